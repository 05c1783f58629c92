//! Searching segments: indexes with an exact re-score of what they find, and exact scans.

use std::sync::atomic::AtomicU64;

use super::block::Rows;
use super::column_index::{ColumnIndex, IndexBody};
use super::growing::GrowingView;
use super::sealed::Sealed;
use crate::error::Result;
use crate::index::{
    Bounds, Candidate, HnswGraph, Ranker, RowSet, ScanTarget, Shortlist, TopK, finalists, scan,
};
use crate::native::{TrainedIndex, Tuning};
use crate::schema::{Effort, Metric};
use crate::simd::{Query, prefetch_bytes};

/// Allowed rows are looked at one by one where they are at most this many times the nodes that a walk
/// would meet.
const SCAN_STEPS: usize = 10;
/// Allowed rows that a walk begins with: the regions it may go through need not touch each other.
const SEEDS: usize = 400;
/// An exact search looks at the codes of all rows where at least one in so many is allowed.
const SPARSE: u64 = 8;
/// Among more of the rows than this, a trained index is asked.
const ASK_SHARE: f64 = 0.05;
/// Where at least this share is allowed, all nodes are walked and those not allowed left out.
const MOSTLY: f64 = 0.3;
/// How much harder is searched among allowed nodes alone, which lie less close.
const AMONG: f64 = 1.3;
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
    /// Rows scored exactly, as times k; `None` for as many as the index asks for.
    pub refine_k: Option<f32>,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// Which segment of the snapshot this is.
    pub segment: u32,
}

/// Ranks by the stored rows, for columns that have no codes.
struct RowRanker<'a> {
    sealed: &'a Sealed,
    index: &'a ColumnIndex,
    query: &'a Query,
    column: usize,
}

impl Ranker for RowRanker<'_> {
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        ranks.clear();
        ranks.extend(ids.iter().map(|id| {
            let vector = self.sealed.vector(self.column, self.index.row(*id));
            let score = vector.and_then(|vector| self.query.distance(vector));
            score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
        }));
    }

    fn prefetch(&self, id: u32) {
        if let Some(vector) = self.sealed.vector(self.column, self.index.row(id)) {
            prefetch_bytes(vector);
        }
    }
}

/// Offers what the index finds to `top`, with exact scores, and returns how many rows it found. That
/// is all there are when it is fewer than `k` and the search has `allowed` rows. `None`, with nothing
/// offered, where it would have to look at more than `scan_rows_max` rows.
pub fn search_index(
    sealed: &Sealed,
    index: &ColumnIndex,
    search: &SegmentSearch<'_>,
    top: &mut TopK,
) -> Result<Option<usize>> {
    let finding = Finding::new(sealed, index, search);
    let rows = RowRanker { sealed, index, query: search.query, column: search.column };
    let found = match &index.body {
        IndexBody::Graph { graph, codes: Some(codes) } => {
            finding.walk(graph, &codes.ranker(search.vector))
        }
        IndexBody::Graph { graph, codes: None } => finding.walk(graph, &rows),
        IndexBody::Trained(trained) => finding.ask(trained, &rows)?,
    };
    let Some(found) = found else { return Ok(None) };
    for row in &found {
        let stored = sealed.vector(search.column, *row);
        let score = stored.and_then(|vector| search.query.distance(vector));
        if let (Some(score), Some(key)) = (score, sealed.key(*row)) {
            top.push(Candidate { score, key, place: (search.segment, *row) });
        }
    }
    Ok(Some(found.len()))
}

/// Finding the rows of a segment that are to be scored exactly: more than k, since an index ranks by
/// what it keeps of them.
struct Finding<'a> {
    sealed: &'a Sealed,
    index: &'a ColumnIndex,
    search: &'a SegmentSearch<'a>,
    /// Rows to be found.
    finalists: usize,
    /// Candidates to keep, or lists to look into, were no row deleted and all allowed.
    effort: usize,
    /// The share of the rows that is live, above 0.
    live: f64,
}

impl<'a> Finding<'a> {
    fn new(sealed: &'a Sealed, index: &'a ColumnIndex, search: &'a SegmentSearch<'a>) -> Self {
        let rows = u64::from(sealed.rows().max(1));
        let deleted = sealed.tombstones.deleted().min(rows - 1);
        Finding {
            sealed,
            index,
            search,
            finalists: finalists(search.k, index.recall.refine_k(search.refine_k)),
            effort: index.recall.candidates(search.effort, search.k),
            live: (rows - deleted) as f64 / rows as f64,
        }
    }

    fn is_live(&self, row: u32) -> bool {
        self.sealed.tombstones.is_live(row, self.search.sequence)
    }

    /// The rows that a walk finds, nearest first by their ranks, or `None` where too many would have to
    /// be looked at one by one.
    fn walk(&self, graph: &HnswGraph, ranker: &impl Ranker) -> Option<Vec<u32>> {
        let (index, search) = (self.index, self.search);
        // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
        let ef = (self.effort as f64 / self.live) as usize;
        let ef = ef.max(search.k + search.k / 8 + 4);
        let mut found = Vec::with_capacity(self.finalists.min(ef));
        let take = |id: u32, found: &mut Vec<u32>| {
            let row = index.row(id);
            if self.is_live(row) {
                found.push(row);
                if let Some(vector) = self.sealed.vector(search.column, row) {
                    prefetch_bytes(vector);
                }
            }
            found.len() < self.finalists
        };
        let Some(allowed) = search.allowed else {
            graph.search(ranker, ef, |id| take(id, &mut found));
            return Some(found);
        };
        if allowed.len() > SCAN_STEPS * ef * graph.width() {
            let admits = |id: u32| allowed.contains(index.row(id));
            let share = allowed.len() as f64 / graph.len().max(1) as f64;
            if share >= MOSTLY {
                let ef = (ef as f64 / share) as usize;
                let take = |id| !admits(id) || take(id, &mut found);
                graph.search(ranker, ef, take);
                // Nothing that is allowed is nearer than the last of all that were met.
                if found.len() >= search.k {
                    return Some(found);
                }
            }
            let ef = (ef as f64 * AMONG) as usize;
            // From where the query is; then, where what is allowed is elsewhere, from all over it.
            for count in [0, SEEDS] {
                let seeds: Vec<u32> =
                    allowed.spread(count).filter_map(|row| index.id(row)).collect();
                found.clear();
                graph.search_admitted(ranker, ef, &seeds, admits, |id| take(id, &mut found));
                if found.len() >= search.k && !self.is_far(&found, share) {
                    return Some(found);
                }
                // Where the query is, rows may be farther from each other than elsewhere.
                if found.len() >= search.k && count == 0 {
                    let mut near = Vec::new();
                    graph.search(ranker, ef, |id| take(id, &mut near));
                    if !self.is_farther(&found, &near, share) {
                        return Some(found);
                    }
                }
            }
            if allowed.len() > search.scan_rows_max {
                return None;
            }
        }
        Some(self.look_at_each(allowed, ranker))
    }

    /// The rows that a trained index finds, nearest first by its own measure, or `None` where too many
    /// would have to be looked at one by one.
    ///
    /// Where only some rows may be found, the nearest of these are farther away: as many more lists are
    /// looked into as it takes to meet as many of them.
    fn ask(&self, trained: &TrainedIndex, ranker: &impl Ranker) -> Result<Option<Vec<u32>>> {
        let (index, search) = (self.index, self.search);
        let (most, met) = match trained.tuning() {
            Tuning::Lists(lists) => (lists, self.effort as f64 / lists.max(1) as f64),
            Tuning::Candidates | Tuning::Nothing => (trained.len(), 1.0),
        };
        let share = match search.allowed {
            None => self.live,
            Some(allowed) => {
                let share = allowed.len() as f64 / trained.len().max(1) as f64;
                // No more than the lists hold: sooner looked at than looked for.
                if share <= met.min(ASK_SHARE) {
                    return Ok(Some(self.look_at_each(allowed, ranker)));
                }
                share.min(1.0) * self.live
            }
        };
        let admits = |id: u32| {
            let row = index.row(id);
            search.allowed.is_none_or(|allowed| allowed.contains(row)) && self.is_live(row)
        };
        let is_choosy = search.allowed.is_some() || self.live < 1.0;
        let wanted = match is_choosy && !trained.takes_selector() {
            // What may not be found is found too, and left out then.
            true => (self.finalists as f64 / share * 1.5) as usize,
            false => self.finalists,
        };
        let mut effort = ((self.effort as f64 / share).ceil() as usize).clamp(1, most.max(1));
        let found = loop {
            let admit: Option<&dyn Fn(u32) -> bool> = if is_choosy { Some(&admits) } else { None };
            let ids = trained.search(search.vector, wanted, effort, admit)?;
            let kept = ids.into_iter().filter(|id| admits(*id)).take(self.finalists);
            let found: Vec<u32> = kept.map(|id| index.row(id)).collect();
            if found.len() >= search.k || effort >= most || trained.tuning() == Tuning::Nothing {
                break found;
            }
            // Lists may be short, or hold nothing that may be found.
            effort = effort.saturating_mul(4).min(most);
        };
        let Some(allowed) = search.allowed else { return Ok(Some(found)) };
        if found.len() >= search.k && !self.is_far(&found, share) {
            return Ok(Some(found));
        }
        if allowed.len() > search.scan_rows_max {
            return Ok(None);
        }
        Ok(Some(self.look_at_each(allowed, ranker)))
    }

    /// The nearest of the allowed rows: few enough to look at each, or too far away for the index.
    fn look_at_each(&self, allowed: &RowSet, ranker: &impl Ranker) -> Vec<u32> {
        let mut nearest = Shortlist::new(self.finalists);
        let mut ranks = Vec::with_capacity(RUN);
        // One run is on its way from memory while the one before it is ranked.
        let (mut run, mut before) = (Vec::with_capacity(RUN), Vec::with_capacity(RUN));
        let mut look = |run: &[u32]| {
            ranker.rank(run, &mut ranks);
            nearest.offer(run, &ranks);
        };
        for row in allowed.iter() {
            if self.live < 1.0 && !self.is_live(row) {
                continue;
            }
            let Some(id) = self.index.id(row) else { continue };
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
        nearest.into_sorted().into_iter().map(|(_, id)| self.index.row(id)).collect()
    }

    /// True when what was found is farther away than what is nearest to the query tells, where only a
    /// share of all may be found.
    fn is_farther(&self, found: &[u32], near: &[u32], share: f64) -> bool {
        let score = |row: &u32| {
            let vector = self.sealed.vector(self.search.column, *row);
            vector.and_then(|vector| self.search.query.distance(vector))
        };
        let k = self.search.k;
        let last = found.get(k - 1).and_then(score);
        match (last, near.get(k - 1).and_then(score)) {
            (Some(last), Some(near)) => self.index.recall.is_farther(last, near, share),
            _ => true,
        }
    }

    /// True when what was found is farther away than neighbours are, where only a share of all may be
    /// found.
    fn is_far(&self, found: &[u32], share: f64) -> bool {
        let (search, sealed) = (self.search, self.sealed);
        let last = found.get(search.k - 1).and_then(|row| sealed.vector(search.column, *row));
        let score = last.and_then(|vector| search.query.distance(vector));
        score.is_none_or(|score| self.index.recall.is_far(score, search.k, share))
    }
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
