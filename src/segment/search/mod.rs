//! Searching segments: indexes with an exact re-score of what they find, and exact scans.

mod among;
mod lists;
mod look;
mod scan;

use hashbrown::HashSet;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::index::{
    BREADTH, Best, Candidate, Cells, Codes, HnswGraph, Ranker, RowSet, WIDER, apartness, finalists,
    fullness, is_scan_quicker, to_score,
};
use crate::schema::{Effort, Likeness, Metric, Trial, VectorColumn, promise};
use crate::segment::column_index::{ColumnIndex, IndexBody};
use crate::segment::index_recall::Among;
use crate::segment::sealed::Sealed;
use crate::segment::told::{RecallSource, Told};
use crate::simd::{Query, prefetch_bytes};

pub use scan::{scan_growing, scan_sealed};

/// Bytes of codes or rows that are scanned where no effort of the index keeps the promise.
const SCAN_BYTES: usize = 512 << 20;
/// So many bytes are scanned in about the time of a walk for a query unlike the rows.
const SOON_BYTES: usize = 4 << 20;
/// The place of the found one that tells whether a query is like the rows, however many are wanted.
const TELLING: usize = 10;
/// A walk may read so many times the bytes of a scan that is short.
const LONGER: u64 = 4;

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
    /// Its declaration.
    pub declared: &'a VectorColumn,
    /// Bytes that may be read to look at allowed rows one by one, where an index does not find them.
    pub scan_bytes_max: u64,
    /// The rows that may be found; `None` for all.
    pub allowed: Option<&'a RowSet>,
    /// Neighbours wanted.
    pub k: usize,
    /// How hard to search.
    pub effort: Effort,
    /// Looks wider, or at all rows, where codes do not tell the nearest apart: what a promise of recall asks
    /// for.
    pub keeps_promise: bool,
    /// Whether the query is like the rows, where that is known; else what is found tells.
    pub likeness: Option<Likeness>,
    /// How many times as hard to search among some rows as among all, one of [`BOOSTS`](super::BOOSTS); `None`
    /// for what was measured to be enough.
    pub boost: Option<usize>,
    /// Is told how well an index was searched.
    pub told: &'a Told,
    /// Rows scored exactly, as times k at least; `None` for as many as the index asks for.
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

/// What became of a search of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It found so many vectors, some of them of one row perhaps. That is all there are when it is fewer
    /// than `k` and the search has `allowed` rows.
    Found(usize),
    /// It would have to read more than `scan_bytes_max`. Nothing was offered.
    TooLong,
    /// Looking at all rows is quicker, or the only way to find what is wanted. Nothing was offered.
    Scan,
}

/// The nodes that are to be scored.
enum Met {
    Nodes(Vec<u32>),
    /// The nearest of all that may be found, each of which was looked at.
    OfEach(Vec<u32>),
    TooLong,
    Scan,
}

/// Offers what the index finds to `top`, with exact scores.
pub fn search_index(
    sealed: &Sealed,
    index: &ColumnIndex,
    search: &SegmentSearch<'_>,
    top: &mut impl Best,
) -> Result<Outcome> {
    let finding = Finding::new(sealed, index, search);
    let mut likeness = search.likeness.unwrap_or_else(|| index.recall().likeness_at_first());
    loop {
        let trial = index.recall().trial(search.effort, search.k, likeness);
        if finding.scans(trial) || finding.scans_thin() {
            return Ok(Outcome::Scan);
        }
        let (nodes, is_of_each) = match finding.meet(trial, likeness)? {
            Met::Nodes(nodes) => (nodes, false),
            Met::OfEach(nodes) => (nodes, true),
            Met::TooLong => return Ok(Outcome::TooLong),
            Met::Scan => return Ok(Outcome::Scan),
        };
        let found = finding.score_all(&nodes);
        // Where the query is, an index is searched less well: harder, then.
        if likeness == Likeness::Like && finding.is_unlike(&found, &nodes) {
            likeness = Likeness::Unlike;
            if finding.scan_bytes() <= SOON_BYTES {
                return Ok(Outcome::Scan);
            }
            let harder = index.recall().trial(search.effort, search.k, likeness);
            if !harder.is_enough || harder.candidates > trial.candidates {
                continue;
            }
        }
        match (is_of_each, finding.among) {
            (true, _) => search.told.note(Some(1.0), RecallSource::Exact, 0),
            (false, _) if finding.is_thin => {
                search.told.note(None, RecallSource::Unmeasured, trial.candidates);
            }
            (false, None) => {
                let source = index.recall().source(likeness);
                search.told.note(trial.expected, source, trial.candidates);
            }
            (false, Some(among)) => {
                let effort = trial.candidates.saturating_mul(among.boost);
                search.told.note(among.expected, RecallSource::Live, effort);
            }
        }
        let count = found.len();
        found.into_iter().for_each(|candidate| top.push(candidate));
        return Ok(Outcome::Found(count));
    }
}

/// True where a query of that kind is answered by a scan, by itself, though there is an index.
pub fn scans_by_itself(
    sealed: &Sealed,
    index: &ColumnIndex,
    search: &SegmentSearch<'_>,
    likeness: Likeness,
) -> bool {
    let finding = Finding::new(sealed, index, search);
    let is_told = likeness == Likeness::Unlike && index.recall().tells_far();
    is_told && finding.scan_bytes() <= SOON_BYTES
        || finding.scans(index.recall().trial(search.effort, search.k, likeness))
}

/// True where a query of which few numbers count is answered by a scan, by itself. See [`fullness`].
pub fn scans_thin(sealed: &Sealed, index: &ColumnIndex, search: &SegmentSearch<'_>) -> bool {
    Finding::new(sealed, index, search).scans_thin()
}

/// The live nodes that a walk found, nearest first by their ranks.
#[derive(Default)]
struct Found {
    nodes: Vec<(f32, u32)>,
    /// Groups of copies that are among them.
    groups: HashSet<u32>,
}

impl Found {
    fn clear(&mut self) {
        self.nodes.clear();
        self.groups.clear();
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Finding the nodes of a segment whose vectors are to be scored exactly: more than k, since an index
/// ranks by what it keeps of them.
struct Finding<'a> {
    sealed: &'a Sealed,
    index: &'a ColumnIndex,
    search: &'a SegmentSearch<'a>,
    /// Nodes to be found.
    finalists: usize,
    /// The share of the rows that is live, above 0.
    live: f64,
    /// About how many nodes may be found, where not all may.
    allowed: usize,
    /// How hard to search among these.
    among: Option<Among>,
    /// So few numbers of the query count that nothing measured holds for what it is promised. See [`fullness`].
    is_thin: bool,
}

impl<'a> Finding<'a> {
    fn new(sealed: &'a Sealed, index: &'a ColumnIndex, search: &'a SegmentSearch<'a>) -> Self {
        let rows = u64::from(sealed.rows().max(1));
        let deleted = sealed.tombstones.deleted().min(rows - 1);
        let allowed = search.allowed.map(|set| index.nodes_of(set.len(), sealed.rows()));
        let code_bytes = index.codes().map_or(search.vector.len(), Codes::row_bytes);
        let share = allowed.map(|nodes| nodes as f64 / index.nodes().max(1) as f64);
        let is_promised = matches!(search.effort, Effort::Recall(_)) && search.likeness.is_none();
        let of_query = || fullness(search.declared, search.vector);
        Finding {
            is_thin: is_promised && index.recall().is_thin(of_query),
            sealed,
            index,
            search,
            finalists: finalists(search.k, index.recall().refine_k(search.refine_k)),
            live: (rows - deleted) as f64 / rows as f64,
            allowed: allowed.unwrap_or(0),
            among: share.map(|share| match (search.boost, search.effort) {
                (Some(boost), _) => Among { boost, expected: None },
                (None, Effort::Recall(target)) => {
                    let can_look = allowed.unwrap_or(0) * code_bytes <= SCAN_BYTES;
                    index.recall().among(share, promise(target), can_look)
                }
                (None, Effort::Candidates(_)) => Among { boost: 1, expected: None },
            }),
        }
    }

    /// How many times as hard is searched among some rows as among all.
    fn boost(&self) -> usize {
        self.among.map_or(1, |among| among.boost)
    }

    fn is_live(&self, row: u32) -> bool {
        self.live == 1.0 || self.sealed.tombstones.is_live(row, self.search.sequence)
    }

    /// True where the search that keeps a promise of recall takes as long as a scan does, or there is no
    /// such search and a scan is bearable.
    fn scans(&self, trial: Trial) -> bool {
        let Effort::Recall(target) = self.search.effort else { return false };
        if self.search.allowed.is_some() {
            return false;
        }
        if let IndexBody::Graph { graph, .. } = &self.index.body
            && is_scan_quicker(trial.candidates, graph.width(), graph.len())
        {
            return true;
        }
        let is_kept =
            trial.is_enough || trial.expected.is_some_and(|share| share >= promise(target));
        !is_kept && trial.expected.is_some() && self.scan_bytes() <= SCAN_BYTES
    }

    /// True for a thin query that a scan of all rows is bearable for.
    fn scans_thin(&self) -> bool {
        self.is_thin && self.search.allowed.is_none() && self.scan_bytes() <= SCAN_BYTES
    }

    /// Bytes of codes or rows that a scan reads, roughly.
    fn scan_bytes(&self) -> usize {
        let codes = self.index.codes().map(Codes::row_bytes);
        self.index.nodes() * codes.unwrap_or(self.search.vector.len())
    }

    /// The nodes to score for a search of that effort.
    fn meet(&self, trial: Trial, likeness: Likeness) -> Result<Met> {
        let (sealed, index, search) = (self.sealed, self.index, self.search);
        let rows = RowRanker { sealed, index, query: search.query, column: search.column };
        match &index.body {
            IndexBody::Graph { graph, codes, cells } => {
                let cells = cells.get().and_then(Option::as_deref);
                let coded = codes.as_ref().map(|codes| codes.ranker(search.vector));
                Ok(match coded.filter(|ranker| !ranker.is_coarse()) {
                    Some(ranker) => self.walk((graph, cells), &ranker, trial, likeness),
                    None => self.walk((graph, cells), &rows, trial, likeness),
                })
            }
            IndexBody::Trained(trained) => self.ask(trained, &rows, trial.candidates),
        }
    }

    /// Nodes with their exact scores.
    fn score_all(&self, nodes: &[u32]) -> Vec<Candidate> {
        let (index, search) = (self.index, self.search);
        let mut found = Vec::with_capacity(nodes.len());
        for id in nodes {
            let row = index.row(*id);
            let stored = self.sealed.node_vector(search.column, row, *id);
            let score = stored.and_then(|vector| search.query.distance(vector));
            if let (Some(score), Some(key)) = (score, self.sealed.key(row)) {
                found.push(Candidate { score, key, place: (search.segment, row) });
            }
        }
        found
    }

    /// True where the k-th of what was found, of these nodes, is farther than rows are from each other.
    fn is_unlike(&self, found: &[Candidate], nodes: &[u32]) -> bool {
        let k = self.search.k;
        let is_promised = matches!(self.search.effort, Effort::Recall(_));
        if !is_promised || self.search.allowed.is_some() || self.search.likeness.is_some() || k == 0
        {
            return false;
        }
        let mut scores: Vec<f32> = found.iter().map(|candidate| candidate.score).collect();
        if scores.len() < k {
            return true;
        }
        // The nearest of all may be near by chance, and what is beyond a cluster far from everywhere: the 10th
        // tells more.
        let is_far = [TELLING, k.max(TELLING)].into_iter().any(|place| {
            let place = place.min(scores.len());
            let (_, last, _) = scores.select_nth_unstable_by(place - 1, f32::total_cmp);
            self.index.recall().is_far(*last, place, 1.0)
        });
        let scored = || found.iter().map(|candidate| candidate.score).zip(nodes.iter().copied());
        if is_far || found.len() != nodes.len() || !self.index.recall().tells_apart() {
            return is_far;
        }
        let place = TELLING.min(scores.len());
        let (_, last, _) = scores.select_nth_unstable_by(place - 1, f32::total_cmp);
        let apartness = || self.apartness(scored().collect()).unwrap_or_default();
        self.index.recall().is_no_row(*last, 1.0, apartness)
    }

    /// See [`apartness`]; of these nodes. `None` where they are too few to tell.
    fn apartness(&self, mut scored: Vec<(f32, u32)>) -> Option<f32> {
        if scored.len() < TELLING {
            return None;
        }
        let by_score = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0);
        scored.select_nth_unstable_by(TELLING - 1, by_score);
        scored.truncate(TELLING);
        scored.sort_unstable_by(by_score);
        let vector = |id: u32| self.sealed.node_vector(self.search.column, self.index.row(id), id);
        let first = self.search.query.with(vector(scored[0].1)?)?;
        let others = scored[1..].iter().filter_map(|(_, id)| first.distance(vector(*id)?));
        let mut of_first: Vec<f32> = others.collect();
        let scores: Vec<f32> = scored.iter().map(|(score, _)| *score).collect();
        Some(apartness(&scores, &mut of_first))
    }

    /// The nodes that a walk finds, nearest first by their ranks.
    fn walk(
        &self,
        (graph, cells): (&HnswGraph, Option<&Cells>),
        ranker: &impl Ranker,
        trial: Trial,
        likeness: Likeness,
    ) -> Met {
        let k = self.search.k;
        // Deleted nodes are walked but not kept; a little more is kept on the way to make up for them.
        let ef = (trial.candidates as f64 / self.live) as usize;
        let mut ef = ef.max(k + k / 8 + 4);
        if let Some(allowed) = self.search.allowed {
            return self.walk_among(allowed, (graph, cells), ranker, (ef, likeness));
        }
        let breadth = if likeness == Likeness::Unlike { BREADTH } else { 1 };
        let mut found = Found::default();
        found.nodes.reserve(ef);
        loop {
            if self.is_too_long(graph, ef) {
                return Met::TooLong;
            }
            found.clear();
            let mut met = 0;
            graph.search_from(ranker, ef, breadth, |rank, id| {
                met += 1;
                self.take(rank, id, &mut found);
                true
            });
            match to_score(&found.nodes, k, self.finalists, |rank| ranker.deviation(rank)) {
                Some(count) => return Met::Nodes(self.first(&found.nodes, count)),
                None if !self.search.keeps_promise || met < ef.min(graph.len()) => {
                    return Met::Nodes(self.first(&found.nodes, found.len()));
                }
                None => ef *= WIDER,
            }
            if is_scan_quicker(ef, graph.width(), graph.len()) {
                return Met::Scan;
            }
        }
    }

    /// True for a walk that reads more than may be read where the search runs.
    fn is_too_long(&self, graph: &HnswGraph, ef: usize) -> bool {
        let row_bytes = self.index.codes().map_or(self.search.vector.len(), Codes::row_bytes);
        let bytes = (ef.min(graph.len()) * graph.width()).saturating_mul(row_bytes) as u64;
        bytes > self.search.scan_bytes_max.saturating_mul(LONGER)
    }

    /// Adds a node that a walk found if its row is live and may be found, and its copies, as many as can be
    /// wanted: those of lowest keys.
    #[inline(always)]
    fn take(&self, rank: f32, id: u32, found: &mut Found) {
        let takes = |id: u32| {
            let row = self.index.row(id);
            self.search.allowed.is_none_or(|allowed| allowed.contains(row)) && self.is_live(row)
        };
        let group = self.index.copies().and_then(|copies| Some((copies, copies.group(id)?)));
        match group {
            None if takes(id) => found.nodes.push((rank, id)),
            None => {}
            Some((copies, group)) if found.groups.insert(group) => {
                let members = copies.members(group).iter().copied().filter(|id| takes(*id));
                found.nodes.extend(members.take(self.search.k).map(|id| (rank, id)));
            }
            Some(_) => {}
        }
    }

    /// The first of what was found, whose vectors come from memory together.
    fn first(&self, found: &[(f32, u32)], count: usize) -> Vec<u32> {
        let nodes: Vec<u32> = found.iter().take(count).map(|(_, id)| *id).collect();
        for id in &nodes {
            let vector = self.sealed.node_vector(self.search.column, self.index.row(*id), *id);
            if let Some(vector) = vector {
                prefetch_bytes(vector);
            }
        }
        nodes
    }

    /// The same of what a ranker met, as many as it takes to tell the nearest, all where that is unclear.
    fn clear(&self, found: &[(f32, u32)], ranker: &impl Ranker) -> Vec<u32> {
        let count = to_score(found, self.search.k, self.finalists, |rank| ranker.deviation(rank));
        self.first(found, count.unwrap_or(found.len()))
    }

    fn score(&self, id: u32) -> Option<f32> {
        let vector = self.sealed.node_vector(self.search.column, self.index.row(id), id);
        self.search.query.distance(vector?)
    }
}
