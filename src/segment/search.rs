//! Searching segments: graphs with an exact re-score of what they find, and exact scans.

use std::sync::atomic::AtomicU64;

use super::block::Rows;
use super::growing::GrowingView;
use super::sealed::{ColumnGraph, Sealed};
use crate::error::Result;
use crate::index::{Candidate, ScanTarget, TopK, scan};
use crate::native::RowFilter;
use crate::simd::Query;

/// What to search for.
#[derive(Debug, Clone, Copy)]
pub struct GraphSearch<'a> {
    /// The query vector as stored vectors are.
    pub vector: &'a [u8],
    /// The same, ready for scoring.
    pub query: &'a Query,
    /// The index column.
    pub column: usize,
    /// Neighbours wanted.
    pub k: usize,
    /// Candidates kept while walking.
    pub ef_search: usize,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// Which segment of the snapshot this is.
    pub segment: u32,
}

/// Offers what the graph finds to `top`, with exact scores, and returns how many rows it found.
pub fn search_graph(
    sealed: &Sealed,
    graph: &ColumnGraph,
    search: &GraphSearch<'_>,
    top: &mut TopK,
) -> Result<usize> {
    let deleted = sealed.tombstones.deleted();
    let filter = RowFilter {
        deleted_at: sealed.tombstones.marks(),
        sequence: search.sequence,
        row_of_id: graph.row_of_id.as_ref(),
    };
    // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
    let rows = u64::from(sealed.rows().max(1));
    let ef_search = search.ef_search as u64 * rows / (rows - deleted.min(rows - 1));
    // The graph ranks by rounded distances: a few more than k leave the exact order to the re-score.
    let ask = search.k + search.k / 8 + 4;
    let mut found = Vec::with_capacity(ask);
    let ef_search = (ef_search as usize).max(ask);
    let filter = (deleted > 0).then_some(&filter);
    graph.graph.search(search.vector, ask, ef_search, filter, &mut found)?;
    for (_, id) in &found {
        let row = graph.row(*id);
        let stored = sealed.vector(search.column, row);
        let score = stored.and_then(|vector| search.query.distance(vector));
        if let (Some(score), Some(key)) = (score, sealed.key(row)) {
            top.push(Candidate { score, key, place: (search.segment, row) });
        }
    }
    Ok(found.len())
}

/// Offers every live row of a run that has a vector in the column to `top`. `place` is the segment's
/// place in the snapshot and the row number of the run's first row.
fn scan_rows(
    query: &Query,
    rows: &Rows,
    column: usize,
    marks: &[AtomicU64],
    sequence: u64,
    place: (u32, u32),
    top: &mut TopK,
) {
    if let Some(column) = rows.columns.get(column) {
        let target = ScanTarget {
            keys: &rows.keys,
            vectors: &column.data,
            vector_bytes: column.vector_bytes,
            present: column.present.as_ref(),
            marks,
            sequence,
            place,
        };
        scan(query, &target, top);
    }
}

/// Offers every live row of a growing segment, the `segment`-th of its snapshot.
pub fn scan_growing(
    view: &GrowingView,
    query: &Query,
    column: usize,
    sequence: u64,
    segment: u32,
    top: &mut TopK,
) {
    for block in &view.blocks {
        let marks = block.tombstones.marks();
        scan_rows(query, &block.rows, column, marks, sequence, (segment, block.first_row), top);
    }
}

/// Offers every live row of a sealed segment, the `segment`-th of its snapshot.
pub fn scan_sealed(
    sealed: &Sealed,
    query: &Query,
    column: usize,
    sequence: u64,
    segment: u32,
    top: &mut TopK,
) {
    for (first_row, rows) in sealed.blocks() {
        let first = first_row as usize;
        if let Some(marks) = sealed.tombstones.marks().get(first..first + rows.len()) {
            scan_rows(query, rows, column, marks, sequence, (segment, first_row), top);
        }
    }
}
