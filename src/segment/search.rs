//! Searching segments: graphs with an exact re-score of what they find, and exact scans.

use std::sync::atomic::AtomicU64;

use super::block::Rows;
use super::growing::GrowingView;
use super::sealed::{ColumnGraph, Sealed};
use crate::index::{Candidate, Ranker, ScanTarget, TopK, scan};
use crate::simd::{Query, prefetch};

/// Finalists of a walk that are scored exactly: this many times k, and some more.
const REFINE_FACTOR: usize = 2;
const REFINE_EXTRA: usize = 10;

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

/// Ranks by the stored rows, for columns that have no codes.
struct RowRanker<'a> {
    sealed: &'a Sealed,
    graph: &'a ColumnGraph,
    query: &'a Query,
    column: usize,
}

impl Ranker for RowRanker<'_> {
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        ranks.clear();
        ranks.extend(ids.iter().map(|id| {
            let vector = self.sealed.vector(self.column, self.graph.row(*id));
            let score = vector.and_then(|vector| self.query.distance(vector));
            score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
        }));
    }

    fn prefetch(&self, id: u32) {
        if let Some(vector) = self.sealed.vector(self.column, self.graph.row(id)) {
            prefetch_bytes(vector);
        }
    }
}

/// Asks the CPU for the beginning of a vector; it goes on by itself from there.
fn prefetch_bytes(vector: &[u8]) {
    vector.chunks(64).take(8).for_each(|line| prefetch(&line[0]));
}

/// Offers what the graph finds to `top`, with exact scores, and returns how many rows it found.
pub fn search_graph(
    sealed: &Sealed,
    graph: &ColumnGraph,
    search: &GraphSearch<'_>,
    top: &mut TopK,
) -> usize {
    let deleted = sealed.tombstones.deleted();
    // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
    let rows = u64::from(sealed.rows().max(1));
    let ef_search = search.ef_search as u64 * rows / (rows - deleted.min(rows - 1));
    let ef_search = (ef_search as usize).max(search.k + search.k / 8 + 4);
    // The walk ranks by codes: more than k leave the exact order to the re-score.
    let finalists = REFINE_FACTOR * search.k + REFINE_EXTRA;
    let mut found = Vec::with_capacity(finalists.min(ef_search));
    let take = |id: u32| {
        let row = graph.row(id);
        if sealed.tombstones.is_live(row, search.sequence) {
            found.push(row);
            if let Some(vector) = sealed.vector(search.column, row) {
                prefetch_bytes(vector);
            }
        }
        found.len() < finalists
    };
    match &graph.codes {
        Some(codes) => graph.graph.search(&codes.ranker(search.vector), ef_search, take),
        None => {
            let (query, column) = (search.query, search.column);
            graph.graph.search(&RowRanker { sealed, graph, query, column }, ef_search, take);
        }
    }
    for row in &found {
        let stored = sealed.vector(search.column, *row);
        let score = stored.and_then(|vector| search.query.distance(vector));
        if let (Some(score), Some(key)) = (score, sealed.key(*row)) {
            top.push(Candidate { score, key, place: (search.segment, *row) });
        }
    }
    found.len()
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
