//! Exact scan: every live row's score, in runs that stay in the cache.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::row_set::RowSet;
use super::topk::{Best, Candidate};
use crate::cancel::Cancel;
use crate::simd::Query;
use arrow_buffer::BooleanBuffer;

/// Rows scored at once.
const RUN_ROWS: usize = 1_024;

/// Rows are scored one by one where fewer than one in this many is allowed.
const SPARSE: usize = 4;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A run of rows to scan.
#[derive(Debug, Clone, Copy)]
pub struct ScanTarget<'a> {
    /// The primary keys, one per row.
    pub keys: &'a [u64],
    /// The stored vectors, row after row.
    pub vectors: &'a [u8],
    /// Bytes of one vector; 0 for a column that can hold none.
    pub vector_bytes: usize,
    /// Where rows may have several vectors: which one each begins with, and where the last one ends.
    pub lists: Option<&'a [i64]>,
    /// Which rows have a vector; `None` when all do, and where there are `lists`.
    pub present: Option<&'a BooleanBuffer>,
    /// Delete marks, one per row.
    pub marks: &'a [AtomicU64],
    /// The snapshot's sequence: rows with a mark at or below it are not seen.
    pub sequence: u64,
    /// The rows of the segment that may be offered; `None` for all.
    pub allowed: Option<&'a RowSet>,
    /// Which segment of the snapshot this is, and the row number of the first row.
    pub place: (u32, u32),
    /// Ends the scan.
    pub cancel: &'a Cancel,
}

impl ScanTarget<'_> {
    #[inline(always)]
    fn allows(&self, row: usize) -> bool {
        self.allowed.is_none_or(|set| set.contains(self.place.1 + row as u32))
    }
}

/// Offers every vector of live rows to `top`.
pub fn scan(query: &Query, target: &ScanTarget<'_>, top: &mut impl Best) {
    if target.vector_bytes == 0 {
        return;
    }
    if let Some(starts) = target.lists {
        return scan_lists(query, target, starts, top);
    }
    SCORES.with_borrow_mut(|scores| {
        scores.resize(RUN_ROWS, 0.0);
        let rows = target.keys.len().min(target.marks.len());
        let mut first = 0;
        while first < rows && !target.cancel.is_set() {
            let count = RUN_ROWS.min(rows - first);
            let start = first * target.vector_bytes;
            let Some(run) = target.vectors.get(start..start + count * target.vector_bytes) else {
                return;
            };
            let first_row = target.place.1 + first as u32;
            let allowed = target.allowed.map_or(count, |set| set.count_within(first_row, count));
            if allowed * SPARSE >= count {
                if !query.distances(run, &mut scores[..count]) {
                    return;
                }
            } else if allowed > 0 {
                for (offset, row) in run.chunks_exact(target.vector_bytes).enumerate() {
                    if target.allows(first + offset) {
                        scores[offset] = query.distance(row).unwrap_or(f32::INFINITY);
                    }
                }
            }
            for (offset, &score) in scores[..count].iter().enumerate().filter(|_| allowed > 0) {
                let row = first + offset;
                if !top.wants(score) || !target.allows(row) {
                    continue;
                }
                let is_live = target.marks[row].load(Ordering::Relaxed) > target.sequence;
                if is_live && target.present.is_none_or(|p| row < p.len() && p.value(row)) {
                    let place = (target.place.0, target.place.1 + row as u32);
                    top.push(Candidate { score, key: target.keys[row], place });
                }
            }
            first += count;
        }
    });
}

/// [`scan`] where rows may have several vectors.
fn scan_lists(query: &Query, target: &ScanTarget<'_>, starts: &[i64], top: &mut impl Best) {
    let rows = target.keys.len().min(target.marks.len()).min(starts.len().saturating_sub(1));
    let bytes = |vector: i64| vector as usize * target.vector_bytes;
    SCORES.with_borrow_mut(|scores| {
        let mut first = 0;
        while first < rows && !target.cancel.is_set() {
            // As many rows as have a run's worth of vectors, and one at least.
            let start = starts[first];
            let more =
                starts[first + 2..=rows].partition_point(|end| end - start <= RUN_ROWS as i64);
            let end = first + 1 + more;
            let count = target.allowed.map_or(end - first, |set| {
                set.count_within(target.place.1 + first as u32, end - first)
            });
            // A run of rows of which many are allowed, or each allowed row by itself.
            let is_dense = count * SPARSE >= end - first;
            let step = if is_dense { end - first } else { 1 };
            for row in (first..end).step_by(step).filter(|row| is_dense || target.allows(*row)) {
                let vectors = (starts[row], starts[row + step]);
                scores.resize((vectors.1 - vectors.0) as usize, 0.0);
                let run = target.vectors.get(bytes(vectors.0)..bytes(vectors.1));
                if !run.is_some_and(|run| query.distances(run, scores)) {
                    return;
                }
                for row in (row..row + step).filter(|row| target.allows(*row)) {
                    if target.marks[row].load(Ordering::Relaxed) <= target.sequence {
                        continue;
                    }
                    let place = (target.place.0, target.place.1 + row as u32);
                    let own =
                        (starts[row] - vectors.0) as usize..(starts[row + 1] - vectors.0) as usize;
                    for score in &scores[own] {
                        if top.wants(*score) {
                            top.push(Candidate { score: *score, key: target.keys[row], place });
                        }
                    }
                }
            }
            first = end;
        }
    });
}
