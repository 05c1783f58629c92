//! Searching segments: graphs with an exact re-score of what they find, and exact scans.

use std::sync::atomic::AtomicU64;

use super::block::Rows;
use super::growing::GrowingView;
use super::sealed::{ColumnGraph, Sealed};
use crate::index::{
    Bounds, Candidate, Ranker, RowSet, ScanTarget, Shortlist, TopK, finalists, scan,
};
use crate::schema::{Effort, Metric};
use crate::simd::{Query, prefetch_bytes};

/// Allowed rows are looked at one by one where they are at most this many times the nodes that a walk
/// would meet.
const SCAN_STEPS: usize = 10;
/// Allowed rows that a walk begins with: the regions it may go through need not touch each other.
const SEEDS: usize = 400;
/// An exact search looks at the codes of all rows where at least one in so many is allowed.
const SPARSE: u64 = 8;
/// Rows ranked at once.
const RUN: usize = 32;

/// What to search a segment for.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSearch<'a> {
    /// The query vector as stored vectors are.
    pub vector: &'a [u8],
    /// The same, ready for scoring.
    pub query: &'a Query,
    /// How to compare: the column's metric, or another one.
    pub metric: Metric,
    /// The index column.
    pub column: usize,
    /// Allowed rows that may be looked at one by one where a walk does not find them.
    pub scan_rows_max: usize,
    /// The rows that may be found; `None` for all.
    pub allowed: Option<&'a RowSet>,
    /// Neighbours wanted.
    pub k: usize,
    /// How hard to search.
    pub effort: Effort,
    /// Rows scored exactly, as times k.
    pub refine_k: f32,
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

/// Offers what the graph finds to `top`, with exact scores, and returns how many rows it found. That
/// is all there are when it is fewer than `k` and the search has `allowed` rows. `None`, with nothing
/// offered, where it would have to look at more than `scan_rows_max` rows.
pub fn search_graph(
    sealed: &Sealed,
    graph: &ColumnGraph,
    search: &SegmentSearch<'_>,
    top: &mut TopK,
) -> Option<usize> {
    let found = match &graph.codes {
        Some(codes) => find(sealed, graph, search, &codes.ranker(search.vector)),
        None => {
            let (query, column) = (search.query, search.column);
            find(sealed, graph, search, &RowRanker { sealed, graph, query, column })
        }
    }?;
    for row in &found {
        let stored = sealed.vector(search.column, *row);
        let score = stored.and_then(|vector| search.query.distance(vector));
        if let (Some(score), Some(key)) = (score, sealed.key(*row)) {
            top.push(Candidate { score, key, place: (search.segment, *row) });
        }
    }
    Some(found.len())
}

/// The rows that are nearest by their ranks, or `None` where that would take looking at too many one by
/// one. The walk ranks by codes: more than k leave the exact order to the re-score.
fn find(
    sealed: &Sealed,
    graph: &ColumnGraph,
    search: &SegmentSearch<'_>,
    ranker: &impl Ranker,
) -> Option<Vec<u32>> {
    let finalists = finalists(search.k, search.refine_k);
    let ef = graph.recall.candidates(search.effort, search.k);
    let mut found = Vec::with_capacity(finalists.min(ef));
    let mut take = |id: u32| {
        let row = graph.row(id);
        if sealed.tombstones.is_live(row, search.sequence) {
            found.push(row);
            if let Some(vector) = sealed.vector(search.column, row) {
                prefetch_bytes(vector);
            }
        }
        found.len() < finalists
    };
    // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
    let rows = u64::from(sealed.rows().max(1));
    let deleted = sealed.tombstones.deleted().min(rows - 1);
    let ef = (ef as u64 * rows / (rows - deleted)) as usize;
    let ef = ef.max(search.k + search.k / 8 + 4);
    let Some(allowed) = search.allowed else {
        graph.graph.search(ranker, ef, take);
        return Some(found);
    };
    if allowed.len() > SCAN_STEPS * ef * graph.graph.width() {
        let seeds: Vec<u32> = allowed.spread(SEEDS).filter_map(|row| graph.id(row)).collect();
        let admits = |id: u32| allowed.contains(graph.row(id));
        graph.graph.search_admitted(ranker, ef, &seeds, admits, &mut take);
        let share = allowed.len() as f64 / graph.graph.len().max(1) as f64;
        if found.len() >= search.k && !is_far(sealed, graph, search, &found, share) {
            return Some(found);
        }
        if allowed.len() > search.scan_rows_max {
            return None;
        }
    }
    // Few enough to look at each, or too far away for a walk.
    let mut nearest = Shortlist::new(finalists);
    let mut ranks = Vec::with_capacity(RUN);
    // One run is on its way from memory while the one before it is ranked.
    let (mut run, mut before) = (Vec::with_capacity(RUN), Vec::with_capacity(RUN));
    let mut look = |run: &[u32]| {
        ranker.rank(run, &mut ranks);
        nearest.offer(run, &ranks);
    };
    for row in allowed.iter() {
        if deleted > 0 && !sealed.tombstones.is_live(row, search.sequence) {
            continue;
        }
        let Some(id) = graph.id(row) else { continue };
        ranker.prefetch(id);
        run.push(id);
        if run.len() == RUN {
            look(&before);
            std::mem::swap(&mut run, &mut before);
            run.clear();
        }
    }
    look(&before);
    look(&run);
    Some(nearest.into_sorted().into_iter().map(|(_, id)| graph.row(id)).collect())
}

/// True when what was found is farther away than neighbours are.
fn is_far(
    sealed: &Sealed,
    graph: &ColumnGraph,
    search: &SegmentSearch<'_>,
    found: &[u32],
    share: f64,
) -> bool {
    let last = found.get(search.k - 1).and_then(|row| sealed.vector(search.column, *row));
    let score = last.and_then(|vector| search.query.distance(vector));
    score.is_none_or(|score| graph.recall.is_far(score, search.k, share))
}

/// Offers every allowed live row of a run that has a vector in the column to `top`.
fn scan_rows(
    rows: &Rows,
    first_row: u32,
    marks: &[AtomicU64],
    search: &SegmentSearch<'_>,
    top: &mut TopK,
) {
    if let Some(column) = rows.columns.get(search.column) {
        let target = ScanTarget {
            keys: &rows.keys,
            vectors: &column.data,
            vector_bytes: column.vector_bytes,
            present: column.present.as_ref(),
            marks,
            sequence: search.sequence,
            allowed: search.allowed,
            place: (search.segment, first_row),
        };
        scan(search.query, &target, top);
    }
}

/// Offers every allowed live row of a growing segment.
pub fn scan_growing(view: &GrowingView, search: &SegmentSearch<'_>, top: &mut TopK) {
    for block in &view.blocks {
        scan_rows(&block.rows, block.first_row, block.tombstones.marks(), search, top);
    }
}

/// Offers every allowed live row of a sealed segment, but for those whose codes prove that they are
/// of no use.
pub fn scan_sealed(sealed: &Sealed, search: &SegmentSearch<'_>, top: &mut TopK) {
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
        bounds.scan(search.k, admits, |id| {
            let row = rows.map_or(id, |rows| rows[id as usize]);
            let stored = sealed.vector(search.column, row);
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
