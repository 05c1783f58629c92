//! Searching segments: indexes with an exact re-score of what they find, and exact scans.

use std::sync::atomic::AtomicU64;

use super::block::Rows;
use super::column_index::{ColumnIndex, IndexBody};
use super::growing::GrowingView;
use super::sealed::Sealed;
use crate::cancel::{CANCEL_ROWS, Cancel};
use crate::error::Result;
use crate::index::{
    Best, Bounds, Candidate, Cells, Codes, HnswGraph, Ranker, RowSet, ScanTarget, Shortlist,
    finalists, scan,
};
use crate::native::{TrainedIndex, Tuning};
use crate::schema::{Effort, Metric};
use crate::simd::{Query, prefetch_bytes};

/// Allowed rows are looked at one by one where they are at most this many times the nodes that a walk
/// would meet.
const SCAN_STEPS: usize = 3;
/// The same where there are cells: finding these and trying their rows takes as long as looking at so
/// many.
const SCAN_ROWS: usize = 3_000;
/// Allowed rows that a walk begins with: the regions it may go through need not touch each other.
const SEEDS: usize = 400;
/// An exact search looks at the codes of all rows where at least one in so many is allowed.
const SPARSE: u64 = 8;
/// Among more of the rows than this, an index without lists is asked.
const ASK_SHARE: f64 = 0.05;
/// Up to this share, the allowed rows of the cells near the query are looked at.
const FEW: f64 = 0.12;
/// From this share on, all nodes are walked and those not allowed left out.
const MOSTLY: f64 = 0.18;
/// How much harder is searched among allowed nodes alone, which lie less close.
const AMONG: f64 = 1.5;
/// How many times what is wanted is expected among the nodes of a walk that leaves others out.
const EXPECTED: f64 = 1.5;
/// Where scores do not tell what is far: rows are elsewhere when near the query there are fewer of them
/// than this share of what there would be were they anywhere.
const SPARSE_NEAR: f64 = 0.75;
/// The same, when more than one of so many of those found come from the farther half of the cells.
const LATE: usize = 20;
/// Nodes near the query that are looked at to tell that.
const NEAR_MAX: usize = 4_096;
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
    /// Bytes that may be read to look at allowed rows one by one, where an index does not find them.
    pub scan_bytes_max: u64,
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
    /// Ends scans, and looks at rows one by one: what was found until then is of no use.
    pub cancel: &'a Cancel,
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
            let vector = self.sealed.node_vector(self.column, self.index.row(*id), *id);
            let score = vector.and_then(|vector| self.query.distance(vector));
            score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
        }));
    }

    fn prefetch(&self, id: u32) {
        if let Some(vector) = self.sealed.node_vector(self.column, self.index.row(id), id) {
            prefetch_bytes(vector);
        }
    }
}

/// Offers what the index finds to `top`, with exact scores, and returns how many vectors it found, some
/// of them of one row perhaps. That is all there are when it is fewer than `k` and the search has
/// `allowed` rows. `None`, with nothing offered, where it would have to read more than `scan_bytes_max`.
pub fn search_index(
    sealed: &Sealed,
    index: &ColumnIndex,
    search: &SegmentSearch<'_>,
    top: &mut impl Best,
) -> Result<Option<usize>> {
    let finding = Finding::new(sealed, index, search);
    let rows = RowRanker { sealed, index, query: search.query, column: search.column };
    let found = match &index.body {
        IndexBody::Graph { graph, codes, cells } => {
            let cells = cells.get().and_then(Option::as_deref);
            match codes {
                Some(codes) => finding.walk((graph, cells), &codes.ranker(search.vector)),
                None => finding.walk((graph, cells), &rows),
            }
        }
        IndexBody::Trained(trained) => finding.ask(trained, &rows)?,
    };
    let Some(found) = found else { return Ok(None) };
    for id in &found {
        let row = index.row(*id);
        let stored = sealed.node_vector(search.column, row, *id);
        let score = stored.and_then(|vector| search.query.distance(vector));
        if let (Some(score), Some(key)) = (score, sealed.key(row)) {
            top.push(Candidate { score, key, place: (search.segment, row) });
        }
    }
    Ok(Some(found.len()))
}

/// Finding the nodes of a segment whose vectors are to be scored exactly: more than k, since an index
/// ranks by what it keeps of them.
struct Finding<'a> {
    sealed: &'a Sealed,
    index: &'a ColumnIndex,
    search: &'a SegmentSearch<'a>,
    /// Nodes to be found.
    finalists: usize,
    /// Candidates to keep, or lists to look into, were no row deleted and all allowed.
    effort: usize,
    /// The share of the rows that is live, above 0.
    live: f64,
    /// About how many nodes may be found, where not all may.
    allowed: usize,
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
            allowed: search.allowed.map_or(0, |set| index.nodes_of(set.len(), sealed.rows())),
        }
    }

    fn is_live(&self, row: u32) -> bool {
        self.sealed.tombstones.is_live(row, self.search.sequence)
    }

    /// The nodes that a walk finds, nearest first by their ranks, or `None` where too many would have to
    /// be looked at one by one.
    fn walk(
        &self,
        (graph, cells): (&HnswGraph, Option<&Cells>),
        ranker: &impl Ranker,
    ) -> Option<Vec<u32>> {
        // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
        let ef = (self.effort as f64 / self.live) as usize;
        let ef = ef.max(self.search.k + self.search.k / 8 + 4);
        if let Some(allowed) = self.search.allowed {
            return self.walk_among(allowed, (graph, cells), ranker, ef);
        }
        let mut found = Vec::with_capacity(self.finalists.min(ef));
        graph.search(ranker, ef, |id| self.take(id, self.index.row(id), &mut found));
        Some(found)
    }

    /// Adds a node that a walk found if its row is live, and says whether more are wanted.
    fn take(&self, id: u32, row: u32, found: &mut Vec<u32>) -> bool {
        if self.is_live(row) {
            found.push(id);
            if let Some(vector) = self.sealed.node_vector(self.search.column, row, id) {
                prefetch_bytes(vector);
            }
        }
        found.len() < self.finalists
    }

    /// [`Finding::walk`] where only some rows may be found.
    fn walk_among(
        &self,
        allowed: &RowSet,
        (graph, cells): (&HnswGraph, Option<&Cells>),
        ranker: &impl Ranker,
        ef: usize,
    ) -> Option<Vec<u32>> {
        let k = self.search.k;
        let share = self.allowed as f64 / graph.len().max(1) as f64;
        let cells = cells.filter(|_| share <= FEW);
        let steps = SCAN_STEPS * ef * graph.width();
        if self.allowed <= cells.map_or(steps, |_| steps.min(SCAN_ROWS)) {
            return Some(self.look_at_each(allowed, ranker));
        }
        let mut found = Vec::with_capacity(self.finalists.min(ef));
        if share >= MOSTLY {
            // The nearest of all are farther from being missed than the last of those that are kept.
            let ef = (ef as f64 / share.sqrt()).max(EXPECTED * k as f64 / share) as usize;
            graph.search(ranker, ef, |id| {
                let row = self.index.row(id);
                !allowed.contains(row) || self.take(id, row, &mut found)
            });
            // Nothing that is allowed is nearer than the last of all that were met.
            if found.len() >= k {
                return Some(found);
            }
        }
        let ef = (ef as f64 * AMONG) as usize;
        found.clear();
        let tells_far = self.index.recall.tells_far();
        let mut is_elsewhere = false;
        match cells {
            Some(cells) => {
                let is_local;
                (found, is_local) = self.look_into(cells, allowed, (graph, share), ranker);
                is_elsewhere = !tells_far && !is_local;
            }
            None => {
                if !tells_far {
                    let near = self.count_near(allowed, (graph, share), ranker);
                    is_elsewhere = self.is_sparse(near, share);
                }
                if !is_elsewhere {
                    self.walk_admitted(allowed, graph, ranker, (ef, 0), &mut found);
                }
            }
        }
        if found.len() >= k && !is_elsewhere && !self.is_far(&found, share) {
            return Some(found);
        }
        // Where the query is, rows may be farther from each other than elsewhere.
        if found.len() >= k && tells_far {
            let mut near = Vec::new();
            graph.search(ranker, ef, |id| self.take(id, self.index.row(id), &mut near));
            if !self.is_farther(&found, &near, share) {
                return Some(found);
            }
        }
        // What is allowed is elsewhere. Few are sooner looked at one by one.
        if cells.is_none() && tells_far {
            found.clear();
            self.walk_admitted(allowed, graph, ranker, (ef, SEEDS), &mut found);
            if found.len() >= k && !self.is_far(&found, share) {
                return Some(found);
            }
        }
        self.can_look_at_each().then(|| self.look_at_each(allowed, ranker))
    }

    /// Adds to `found` what a walk among allowed nodes alone finds that begins with `seeds` of them.
    fn walk_admitted(
        &self,
        allowed: &RowSet,
        graph: &HnswGraph,
        ranker: &impl Ranker,
        (ef, seeds): (usize, usize),
        found: &mut Vec<u32>,
    ) {
        let index = self.index;
        let seeds = allowed.spread(seeds).filter_map(|row| index.ids(row).next());
        let seeds: Vec<u32> = seeds.collect();
        let take = |id: u32| self.take(id, index.row(id), found);
        // The innermost loop of a walk has nothing to spare for a map that most columns lack.
        match &index.row_of_id {
            None => graph.search_admitted(ranker, ef, &seeds, |id| allowed.contains(id), take),
            Some(_) => {
                let admits = |id: u32| allowed.contains(index.row(id));
                graph.search_admitted(ranker, ef, &seeds, admits, take);
            }
        }
    }

    /// The nodes that a trained index finds, nearest first by its own measure, or `None` where too many
    /// would have to be looked at one by one.
    ///
    /// Where only some rows may be found, the nearest of these are farther away: as many more lists are
    /// looked into as it takes to meet as many of them.
    fn ask(&self, trained: &TrainedIndex, ranker: &impl Ranker) -> Result<Option<Vec<u32>>> {
        let (index, search) = (self.index, self.search);
        let most = match trained.tuning() {
            Tuning::Lists(lists) => lists,
            Tuning::Candidates | Tuning::Nothing => trained.len(),
        };
        let share = match search.allowed {
            None => self.live,
            Some(allowed) => {
                let share = self.allowed as f64 / trained.len().max(1) as f64;
                // Sooner looked at than looked for: as many lists more are looked into as rows are fewer.
                let is_sooner = match trained.tuning() {
                    Tuning::Lists(lists) => {
                        share * share <= self.effort as f64 / lists.max(1) as f64
                    }
                    Tuning::Candidates | Tuning::Nothing => share <= ASK_SHARE,
                };
                if is_sooner {
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
            let found: Vec<u32> = kept.collect();
            if found.len() >= search.k || effort >= most || trained.tuning() == Tuning::Nothing {
                break found;
            }
            // Lists may be short, or hold nothing that may be found.
            effort = effort.saturating_mul(4).min(most);
        };
        let Some(allowed) = search.allowed else { return Ok(Some(found)) };
        let is_elsewhere = match index.recall.tells_far() {
            true => self.is_far(&found, share),
            // What is near the query says whether what may be found is there.
            false => {
                let near = self.near_wanted(share);
                let near = trained.search(search.vector, near, effort, None)?;
                let met = near.iter().filter(|id| admits(**id)).count();
                self.is_sparse((met, near.len()), share / self.live)
            }
        };
        if found.len() >= search.k && !is_elsewhere {
            return Ok(Some(found));
        }
        Ok(self.can_look_at_each().then(|| self.look_at_each(allowed, ranker)))
    }

    fn can_look_at_each(&self) -> bool {
        let codes = self.index.codes().map(Codes::row_bytes);
        let row_bytes = codes.unwrap_or(self.search.vector.len()) as u64;
        (self.allowed as u64).saturating_mul(row_bytes) <= self.search.scan_bytes_max
    }

    /// The nearest of the allowed nodes: few enough to look at each, or too far away for the index.
    fn look_at_each(&self, allowed: &RowSet, ranker: &impl Ranker) -> Vec<u32> {
        let mut look = Look::new(ranker, self.finalists);
        let mut rows = allowed.iter().peekable();
        while rows.peek().is_some() && !self.search.cancel.is_set() {
            for row in rows.by_ref().take(CANCEL_ROWS) {
                if self.live == 1.0 || self.is_live(row) {
                    self.index.ids(row).for_each(|id| look.at(id));
                }
            }
        }
        look.into_nearest()
    }

    /// How many of the nodes nearest to the query are allowed, and how many these are.
    fn count_near(
        &self,
        allowed: &RowSet,
        (graph, share): (&HnswGraph, f64),
        ranker: &impl Ranker,
    ) -> (usize, usize) {
        let (mut met, mut looked_at) = (0, 0);
        graph.search(ranker, self.near_wanted(share), |id| {
            let row = self.index.row(id);
            looked_at += 1;
            met += usize::from(allowed.contains(row) && self.is_live(row));
            true
        });
        (met, looked_at)
    }

    /// Nodes near the query among which there are twice as many as wanted, were the allowed ones anywhere.
    fn near_wanted(&self, share: f64) -> usize {
        ((2.0 * self.search.k as f64 / share) as usize).clamp(1, NEAR_MAX)
    }

    /// True when fewer nodes were met than there would be were the allowed ones anywhere, of so many
    /// looked at near the query.
    fn is_sparse(&self, (met, looked_at): (usize, usize), share: f64) -> bool {
        (met as f64) < SPARSE_NEAR * share * self.live * looked_at as f64
    }

    /// The nearest of the allowed nodes in the cells near the query, and whether these are as many as they
    /// would be were they anywhere, and the nearest of them in the nearest cells: else there may be nearer
    /// ones in other cells.
    fn look_into(
        &self,
        cells: &Cells,
        allowed: &RowSet,
        (graph, share): (&HnswGraph, f64),
        ranker: &impl Ranker,
    ) -> (Vec<u32>, bool) {
        let (mut met, mut looked_at, mut cell) = (0, 0, 0);
        let mut late = Vec::new();
        let probes = cells.probes(self.search.effort, self.search.k, share);
        let mut look = Look::new(ranker, self.finalists);
        cells.search(graph, ranker, probes, |members| {
            looked_at += members.len();
            cell += 1;
            for id in members {
                let row = self.index.row(*id);
                if allowed.contains(row) && (self.live == 1.0 || self.is_live(row)) {
                    met += 1;
                    look.at(*id);
                    if cell > probes / 2 {
                        late.push(*id);
                    }
                }
            }
        });
        let (found, k) = (look.into_nearest(), self.search.k);
        late.sort_unstable();
        let late = found.iter().take(k).filter(|id| late.binary_search(id).is_ok()).count();
        let is_all = looked_at == graph.len();
        (found, is_all || late <= k / LATE && !self.is_sparse((met, looked_at), share))
    }

    /// True when what was found is farther away than what is nearest to the query tells, where only a
    /// share of all may be found.
    fn is_farther(&self, found: &[u32], near: &[u32], share: f64) -> bool {
        let k = self.search.k;
        let last = found.get(k - 1).and_then(|id| self.score(*id));
        match (last, near.get(k - 1).and_then(|id| self.score(*id))) {
            (Some(last), Some(near)) => self.index.recall.is_farther(last, near, share),
            _ => true,
        }
    }

    /// True when what was found is farther away than neighbours are, where only a share of all may be
    /// found.
    fn is_far(&self, found: &[u32], share: f64) -> bool {
        let last = found.get(self.search.k - 1).and_then(|id| self.score(*id));
        last.is_none_or(|score| self.index.recall.is_far(score, self.search.k, share))
    }

    fn score(&self, id: u32) -> Option<f32> {
        let vector = self.sealed.node_vector(self.search.column, self.index.row(id), id);
        self.search.query.distance(vector?)
    }
}

/// Looks at nodes one by one for those nearest to a query. One run of them is on its way from memory
/// while the one before it is ranked.
struct Look<'a, R> {
    ranker: &'a R,
    nearest: Shortlist,
    run: Vec<u32>,
    before: Vec<u32>,
    ranks: Vec<f32>,
}

impl<'a, R: Ranker> Look<'a, R> {
    fn new(ranker: &'a R, keep: usize) -> Self {
        let run = || Vec::with_capacity(RUN);
        let nearest = Shortlist::new(keep);
        Look { ranker, nearest, run: run(), before: run(), ranks: Vec::with_capacity(RUN) }
    }

    #[inline(always)]
    fn at(&mut self, id: u32) {
        self.ranker.prefetch(id);
        self.run.push(id);
        if self.run.len() == RUN {
            self.rank_before();
        }
    }

    /// Ranks the run before, which the one now under way takes the place of.
    fn rank_before(&mut self) {
        self.ranker.rank(&self.before, &mut self.ranks);
        self.nearest.offer(&self.before, &self.ranks);
        std::mem::swap(&mut self.run, &mut self.before);
        self.run.clear();
    }

    /// The nearest, in order.
    fn into_nearest(mut self) -> Vec<u32> {
        self.rank_before();
        self.rank_before();
        self.nearest.into_sorted().into_iter().map(|(_, id)| id).collect()
    }
}

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
