//! Exact scans of segments.

use std::sync::atomic::AtomicU64;

use super::SegmentSearch;
use crate::index::{Best, Bounds, Candidate, ScanTarget, scan};
use crate::segment::block::Rows;
use crate::segment::growing::GrowingView;
use crate::segment::sealed::Sealed;

/// An exact search looks at the codes of all rows where at least one in so many is allowed.
const SPARSE: u64 = 8;

/// Offers every vector of the allowed live rows of a run to `top`.
fn scan_rows(
    rows: &Rows,
    first_row: u32,
    marks: &[AtomicU64],
    search: &SegmentSearch<'_>,
    top: &mut impl Best,
) {
    if let Some(column) = rows.columns.get(search.column) {
        let target = ScanTarget {
            keys: &rows.keys,
            vectors: &column.data,
            vector_bytes: column.vector_bytes,
            present: column.present.as_ref(),
            lists: column.lists.as_ref().map(|lists| &lists.starts[..]),
            marks,
            sequence: search.sequence,
            allowed: search.allowed,
            place: (search.segment, first_row),
            cancel: search.cancel,
        };
        scan(search.query, &target, top);
    }
}

/// Offers every vector of the allowed live rows of a growing segment.
pub fn scan_growing(view: &GrowingView, search: &SegmentSearch<'_>, top: &mut impl Best) {
    for block in &view.blocks {
        scan_rows(&block.rows, block.first_row, block.tombstones.marks(), search, top);
    }
}

/// Offers every vector of the allowed live rows of a sealed segment, but for those whose codes prove that
/// they are of no use.
pub fn scan_sealed(sealed: &Sealed, search: &SegmentSearch<'_>, top: &mut impl Best) {
    // Few rows are looked at one by one sooner than all codes are.
    let is_dense =
        search.allowed.is_none_or(|set| set.len() as u64 * SPARSE >= u64::from(sealed.rows()));
    if is_dense
        && let Some((codes, rows)) = sealed.codes(search.column)
        && let Some(bounds) = Bounds::new(codes, search.metric, search.vector)
    {
        let admits = |id: u32| {
            let row = rows.map_or(id, |rows| rows[id as usize]);
            let is_allowed = search.allowed.is_none_or(|allowed| allowed.contains(row));
            is_allowed && sealed.tombstones.is_live(row, search.sequence)
        };
        bounds.scan(search.k, search.cancel, admits, |id| {
            let row = rows.map_or(id, |rows| rows[id as usize]);
            let stored = sealed.node_vector(search.column, row, id);
            let score = stored.and_then(|vector| search.query.distance(vector));
            if let (Some(score), Some(key)) = (score, sealed.key(row)) {
                top.push(Candidate { score, key, place: (search.segment, row) });
            }
            top.bound()
        });
        return;
    }
    for (first_row, rows) in sealed.blocks() {
        let first = first_row as usize;
        if let Some(marks) = sealed.tombstones.marks().get(first..first + rows.len()) {
            scan_rows(rows, first_row, marks, search, top);
        }
    }
}
