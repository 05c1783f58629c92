//! Exact scan: every live row's score, in runs that stay in the cache.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::topk::{Candidate, TopK};
use crate::segment::Rows;
use crate::simd::Query;

/// Rows scored at once.
const RUN_ROWS: usize = 1_024;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A run of rows to scan.
#[derive(Debug, Clone, Copy)]
pub struct ScanTarget<'a> {
    /// Keys and vectors.
    pub rows: &'a Rows,
    /// The index column.
    pub column: usize,
    /// Delete marks, one per row.
    pub marks: &'a [AtomicU64],
    /// The snapshot's sequence: rows with a mark at or below it are not seen.
    pub sequence: u64,
    /// Which segment of the snapshot this is, and the row number of the first row.
    pub place: (u32, u32),
}

/// Offers every live row that has a vector to `top`.
pub fn scan(query: &Query, target: &ScanTarget<'_>, top: &mut TopK) {
    let Some(column) = target.rows.columns.get(target.column) else { return };
    if column.vector_bytes == 0 {
        return;
    }
    SCORES.with_borrow_mut(|scores| {
        scores.resize(RUN_ROWS, 0.0);
        let rows = target.rows.len().min(target.marks.len());
        let mut first = 0;
        while first < rows {
            let count = RUN_ROWS.min(rows - first);
            let start = first * column.vector_bytes;
            let Some(run) = column.data.get(start..start + count * column.vector_bytes) else {
                return;
            };
            if !query.distances(run, &mut scores[..count]) {
                return;
            }
            for (offset, &score) in scores[..count].iter().enumerate() {
                if !top.wants(score) {
                    continue;
                }
                let row = first + offset;
                let is_live = target.marks[row].load(Ordering::Relaxed) > target.sequence;
                if is_live && column.is_present(row) {
                    let (segment, first_row) = target.place;
                    let place = (segment, first_row + row as u32);
                    top.push(Candidate { score, key: target.rows.keys[row], place });
                }
            }
            first += count;
        }
    });
}
