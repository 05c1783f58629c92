//! Measuring what an index finds, on a sample of queries: rows, each searched for as if it were not there,
//! and others that are unlike the rows. What is found is compared with an exact answer.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::bounds::Bounds;
use super::build::BuildRun;
use super::codes::{CodeRanker, Codes};
use super::graph::{BREADTH, Ranker};
use super::probes::{ProbeKind, ProbeMaker, UNLIKE};
use super::shortlist::Shortlist;
use super::space::Vectors;
use crate::cancel::Cancel;
use crate::schema::{Metric, Reach, RecallCurve, RecallPoint, VectorColumn};
use crate::simd::{Query, prefetch_bytes};

/// Rows asked for. With this many the measured recall is within about 0.01 of what all would give.
const SAMPLE: usize = 160;
/// Queries of each other kind.
const SAMPLE_UNLIKE: usize = 64;
/// Fewer rows are not worth measuring.
const ROWS_MIN: usize = 2_000;
/// Rows of a part of the sample that tell anything of it.
const PART_MIN: usize = 24;
/// Neighbours asked for.
const FEW: usize = 10;
const MANY: usize = 100;
/// Rows that are nearest by codes, among which the true neighbours are taken to be where codes prove
/// nothing.
const SHORTLIST: usize = 8 * MANY;
/// The ladder ends where this is found.
const ENOUGH: f32 = 0.998;
/// The same of queries unlike the rows, of which a little is taken off.
const ENOUGH_UNLIKE: f32 = 0.99;
/// Finalists tried, as times k, and the share of what the most of them find that is enough.
const REFINE_LADDER: [f32; 9] = [1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const REFINE_ENOUGH: f32 = 0.998;
/// Of queries of which all were found, so many more would not have been.
const UNSEEN: f32 = 0.5;
/// Rows ranked at once.
const RUN: u32 = 1_024;
/// A node that there is not.
const NO_NODE: u32 = u32::MAX;

/// How many of the nodes nearest by codes are scored exactly at least for the `k` nearest: the codes'
/// order is not quite the true one. `refine_k` is how many times `k`. For the nearest alone it is as many
/// as for the ten nearest: it is the first of these.
pub fn finalists(k: usize, refine_k: f32) -> usize {
    (refine_k * k.max(FEW) as f32).min(1e9) as usize + 5
}

/// Ranks by exact scores.
pub struct ScoreRanker<'a, V> {
    query: &'a Query,
    vectors: &'a V,
}

impl<V: Vectors> Ranker for ScoreRanker<'_, V> {
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        ranks.clear();
        ranks.extend(ids.iter().map(|id| score(self.query, self.vectors, *id)));
    }

    fn prefetch(&self, id: u32) {
        prefetch_bytes(self.vectors.vector(id));
    }
}

/// Ranks by codes where there are some, else by exact scores.
pub enum AnyRanker<'a, V> {
    /// By codes.
    Codes(CodeRanker<'a>),
    /// By exact scores.
    Scores(ScoreRanker<'a, V>),
}

impl<V: Vectors> Ranker for AnyRanker<'_, V> {
    #[inline]
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        match self {
            AnyRanker::Codes(ranker) => ranker.rank(ids, ranks),
            AnyRanker::Scores(ranker) => ranker.rank(ids, ranks),
        }
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        match self {
            AnyRanker::Codes(ranker) => ranker.prefetch(id),
            AnyRanker::Scores(ranker) => ranker.prefetch(id),
        }
    }

    fn deviation(&self, rank: f32) -> f32 {
        match self {
            AnyRanker::Codes(ranker) => ranker.deviation(rank),
            AnyRanker::Scores(ranker) => ranker.deviation(rank),
        }
    }
}

/// One search for what is nearest to a query of the sample, without the row that it is.
pub struct Probe<'a, V> {
    /// The row; no node's number where the query is none.
    pub node: u32,
    /// The query's vector.
    pub vector: &'a [u8],
    /// How many nodes of the level above a walk begins with.
    pub breadth: usize,
    /// Ranks by the distance to it.
    pub ranker: AnyRanker<'a, V>,
    /// How hard to search.
    pub effort: u32,
    /// Rows that are looked for.
    pub k: usize,
    /// Rows wanted, to be scored: more than `k`.
    pub count: usize,
}

/// What a search of the sample met.
pub enum Met {
    /// These nodes, nearest first.
    Nodes(Vec<u32>),
    /// It would look at all rows.
    Everything,
}

impl From<Vec<u32>> for Met {
    fn from(nodes: Vec<u32>) -> Met {
        Met::Nodes(nodes)
    }
}

/// A query with the scores of its true neighbours.
#[derive(Clone)]
struct Sampled<'a> {
    kind: ProbeKind,
    node: u32,
    vector: Cow<'a, [u8]>,
    /// Ascending, [`MANY`] of them.
    truth: Vec<f32>,
    /// It is no row, but its neighbours are as near as those of rows: what is found does not tell it from them.
    passes_for_row: bool,
    /// See [`apartness`].
    apartness: f32,
}

/// How many times farther the nearest of a query are from it than from each other: the last of these scores of
/// up to [`FEW`] neighbours, ascending, over the median of those that the first of the neighbours has with
/// the others. It hardly depends on how close together rows lie where the query is. 0 for one neighbour.
pub fn apartness(scores: &[f32], of_first: &mut [f32]) -> f32 {
    let (Some(last), false) = (scores.last(), of_first.is_empty()) else { return 0.0 };
    let middle = of_first.len() / 2;
    let (_, median, _) = of_first.select_nth_unstable_by(middle, f32::total_cmp);
    if *last <= 0.0 { 0.0 } else { last / median.max(0.0) }
}

/// Queries whose recall is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// All of a kind, searched as what they are.
    Kind(ProbeKind),
    /// Those of a kind that pass for rows, and are searched as if they were.
    Passing(ProbeKind),
}

impl Group {
    fn has(self, query: &Sampled<'_>) -> bool {
        match self {
            Group::Kind(kind) => query.kind == kind,
            Group::Passing(kind) => query.kind == kind && query.passes_for_row,
        }
    }

    /// So many queries tell something.
    fn least(self) -> usize {
        match self {
            Group::Kind(_) => 1,
            Group::Passing(_) => PART_MIN,
        }
    }

    /// How many nodes of the level above a walk begins with.
    fn breadth(self) -> usize {
        match self {
            Group::Kind(ProbeKind::Row) | Group::Passing(_) => 1,
            Group::Kind(_) => BREADTH,
        }
    }

    /// The ladder may end where this is found.
    fn enough(self) -> f32 {
        match self {
            Group::Kind(ProbeKind::Row) => ENOUGH,
            Group::Kind(_) | Group::Passing(_) => ENOUGH_UNLIKE,
        }
    }
}

/// Queries made of the rows of an index, with the scores of their true neighbours.
pub struct RecallSample<'a, V> {
    column: &'a VectorColumn,
    vectors: &'a V,
    codes: Option<&'a Codes>,
    run: BuildRun<'a>,
    queries: Vec<Sampled<'a>>,
}

impl<'a, V: Vectors> RecallSample<'a, V> {
    /// Takes the sample, on the threads of `run`. `None` for few rows, and when it was stopped.
    pub fn take(
        column: &'a VectorColumn,
        vectors: &'a V,
        codes: Option<&'a Codes>,
        run: BuildRun<'a>,
    ) -> Option<Self> {
        let count = vectors.count();
        if count < ROWS_MIN {
            return None;
        }
        let mut sample = RecallSample { column, vectors, codes, run, queries: Vec::new() };
        // Spread over all rows, and not in step with anything that comes at regular intervals.
        let node =
            |place: usize| (place * count / SAMPLE + place * 7_919 % (count / SAMPLE)) as u32;
        let mut wanted: Vec<(ProbeKind, u32, Cow<'a, [u8]>)> = (0..SAMPLE)
            .map(|place| (ProbeKind::Row, node(place), Cow::Borrowed(vectors.vector(node(place)))))
            .collect();
        let mut maker = ProbeMaker::new(column, vectors);
        for kind in UNLIKE {
            let made = (0..SAMPLE_UNLIKE).map_while(|_| maker.make(kind));
            wanted.extend(made.map(|vector| (kind, NO_NODE, Cow::Owned(vector.into()))));
        }
        let truth = |(kind, node, vector): (ProbeKind, u32, Cow<'a, [u8]>)| {
            let nearest = sample.nearest(node, &vector)?;
            let apartness = sample.apartness(&nearest);
            let truth = nearest.into_iter().map(|(score, _)| score).collect();
            Some(Sampled { kind, node, vector, truth, passes_for_row: false, apartness })
        };
        let queries: Option<Vec<Sampled<'a>>> =
            run.pool.install(|| wanted.into_par_iter().map(truth).collect());
        sample.queries = queries?;
        if let Some(reach) = sample.reach() {
            for query in sample.queries.iter_mut().filter(|query| query.kind != ProbeKind::Row) {
                query.passes_for_row = query.truth[FEW - 1] <= reach.at_10
                    && reach.apart.is_none_or(|apart| query.apartness <= apart);
            }
        }
        Some(sample)
    }

    /// The rows of the sample that are some of the nodes; `None` where too few are to tell anything.
    pub fn among(&self, nodes: Range<u32>) -> Option<Self> {
        let is_among =
            |query: &&Sampled<'a>| query.kind == ProbeKind::Row && nodes.contains(&query.node);
        let queries: Vec<Sampled<'a>> = self.queries.iter().filter(is_among).cloned().collect();
        let RecallSample { column, vectors, codes, run, .. } = *self;
        let is_enough = queries.len() >= PART_MIN;
        is_enough.then_some(RecallSample { column, vectors, codes, run, queries })
    }

    /// The recall by rising effort, of a search that scores as many finalists as `refine_k` says.
    /// `find` gives the rows found, nearest first. Empty when it was stopped.
    pub fn curve<M: Into<Met>>(
        &self,
        ladder: &[u32],
        refine_k: f32,
        find: impl Fn(&Probe<'_, V>) -> M + Sync,
    ) -> RecallCurve {
        let mut groups = vec![Group::Kind(ProbeKind::Row)];
        groups.extend(UNLIKE.map(Group::Passing));
        let like = self.points(&groups, ladder, refine_k, &find);
        let unlike = self.points(&UNLIKE.map(Group::Kind), ladder, refine_k, &find);
        match (like, unlike) {
            (Some(points), Some(unlike)) => {
                RecallCurve { points, reach: self.reach(), refine_k: Some(refine_k), unlike }
            }
            _ => RecallCurve::default(),
        }
    }

    /// The recall by rising effort, at each that of the group of queries with the lowest. `None` when it
    /// was stopped.
    fn points<M: Into<Met>>(
        &self,
        groups: &[Group],
        ladder: &[u32],
        refine_k: f32,
        find: &(impl Fn(&Probe<'_, V>) -> M + Sync),
    ) -> Option<Vec<RecallPoint>> {
        let mut points = Vec::new();
        let is_useful = |group: &&Group| {
            self.queries.iter().filter(|query| group.has(query)).count() >= group.least()
        };
        let groups: Vec<Group> = groups.iter().filter(is_useful).copied().collect();
        if groups.is_empty() {
            return Some(points);
        }
        for effort in ladder {
            let (mut at_1, mut at_10, mut at_100) = (1f32, 1f32, 1f32);
            let mut is_enough = true;
            for group in &groups {
                let share = |k: usize| self.share_of(*group, *effort, refine_k, k, find);
                let (one, few, many) = (share(1)?, share(FEW)?, share(MANY)?);
                is_enough &= one.min(few).min(many) >= group.enough();
                (at_1, at_10, at_100) = (at_1.min(one), at_10.min(few), at_100.min(many));
            }
            points.push(RecallPoint { ef_search: *effort, at_1: Some(at_1), at_10, at_100 });
            if is_enough {
                break;
            }
        }
        Some(points)
    }

    /// How many finalists, as times k, are enough at an effort: the fewest that find nearly what the most
    /// of them do. `None` when it was stopped.
    pub fn refine_k<M: Into<Met>>(
        &self,
        effort: u32,
        find: impl Fn(&Probe<'_, V>) -> M + Sync,
    ) -> Option<f32> {
        let (most, ladder) = REFINE_LADDER.split_last()?;
        let best = self.share(effort, *most, FEW, &find)?;
        for refine_k in ladder {
            if self.share(effort, *refine_k, FEW, &find)? >= best * REFINE_ENOUGH {
                return Some(*refine_k);
            }
        }
        Some(*most)
    }

    /// The mean share found of the `k` nearest to rows, at most 100. `None` when it was stopped.
    pub fn share<M: Into<Met>>(
        &self,
        effort: u32,
        refine_k: f32,
        k: usize,
        find: impl Fn(&Probe<'_, V>) -> M + Sync,
    ) -> Option<f32> {
        self.share_of(Group::Kind(ProbeKind::Row), effort, refine_k, k, &find)
    }

    fn share_of<M: Into<Met>>(
        &self,
        group: Group,
        effort: u32,
        refine_k: f32,
        k: usize,
        find: &(impl Fn(&Probe<'_, V>) -> M + Sync),
    ) -> Option<f32> {
        let of_query = |sampled: &Sampled<'_>| -> Option<f32> {
            if self.run.stop.load(Ordering::Relaxed) {
                return None;
            }
            let vector = &*sampled.vector;
            let query = self.query(vector)?;
            let (ranker, count) = (self.ranker(vector, &query), finalists(k, refine_k));
            let (node, breadth) = (sampled.node, group.breadth());
            let probe = Probe { node, vector, breadth, ranker, effort, k, count };
            let Met::Nodes(found) = find(&probe).into() else { return Some(1.0) };
            let mut scores: Vec<f32> =
                found.into_iter().map(|id| score(&query, self.vectors, id)).collect();
            scores.sort_unstable_by(f32::total_cmp);
            let edge = sampled.truth[k - 1];
            let hits = scores.iter().take(k).filter(|score| **score <= edge).count();
            Some(hits as f32 / k as f32)
        };
        let members: Vec<&Sampled<'_>> =
            self.queries.iter().filter(|query| group.has(query)).collect();
        let shares: Option<Vec<f32>> =
            self.run.pool.install(|| members.par_iter().map(|query| of_query(query)).collect());
        let shares = shares?;
        let count = shares.len().max(1) as f32;
        let mean = shares.iter().sum::<f32>() / count;
        if group.breadth() == 1 {
            return Some(mean);
        }
        // They find all or nothing, often, and are few: the mean of all is a little worse, perhaps.
        let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f32>() / count;
        Some((mean - (variance / count).sqrt() - UNSEEN / count).max(0.0))
    }

    /// Where scores are distances, which inner products are not, how far neighbours are.
    fn reach(&self) -> Option<Reach> {
        let rows = self.queries.iter().filter(|query| query.kind == ProbeKind::Row);
        let of = |k: usize| {
            let mut scores: Vec<f32> = rows.clone().map(|query| query.truth[k - 1]).collect();
            scores.sort_unstable_by(f32::total_cmp);
            scores[scores.len() * 99 / 100]
        };
        let mut apart: Vec<f32> = rows.clone().map(|query| query.apartness).collect();
        apart.sort_unstable_by(f32::total_cmp);
        let apart = apart[apart.len() * 99 / 100];
        let apart = apart.is_finite().then_some(apart);
        let reach = Reach { at_10: of(FEW), at_100: of(MANY), apart };
        (self.column.metric != Metric::InnerProduct && reach.at_100.is_finite()).then_some(reach)
    }

    fn query(&self, vector: &[u8]) -> Option<Query> {
        let column = self.column;
        Query::new(column.element, column.metric, column.dimension, vector)
    }

    fn ranker<'q>(&'q self, vector: &[u8], query: &'q Query) -> AnyRanker<'q, V> {
        match self.codes {
            Some(codes) => AnyRanker::Codes(codes.ranker(vector)),
            None => AnyRanker::Scores(ScoreRanker { query, vectors: self.vectors }),
        }
    }

    /// See [`apartness`]; of the neighbours of a query.
    fn apartness(&self, nearest: &[(f32, u32)]) -> f32 {
        let nearest = &nearest[..nearest.len().min(FEW)];
        let Some(((_, first), others)) = nearest.split_first() else { return 0.0 };
        let Some(first) = self.query(self.vectors.vector(*first)) else { return 0.0 };
        let mut of_first: Vec<f32> =
            others.iter().map(|(_, id)| score(&first, self.vectors, *id)).collect();
        let scores: Vec<f32> = nearest.iter().map(|(score, _)| *score).collect();
        apartness(&scores, &mut of_first)
    }

    /// The rows nearest to a vector, but for a node, with their scores, ascending. `None` when it was stopped.
    fn nearest(&self, node: u32, vector: &[u8]) -> Option<Vec<(f32, u32)>> {
        if self.run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let query = self.query(vector)?;
        let bounds = self.codes.and_then(|codes| Bounds::new(codes, self.column.metric, vector));
        if let Some(bounds) = bounds {
            return Some(self.nearest_within(&bounds, node, &query));
        }
        let ranker = self.ranker(vector, &query);
        let count = self.vectors.count() as u32;
        let (mut near, mut ranks) = (Shortlist::new(SHORTLIST), Vec::new());
        for first in (0..count).step_by(RUN as usize) {
            if self.run.stop.load(Ordering::Relaxed) {
                return None;
            }
            let run = first..(first + RUN).min(count);
            let ids: Vec<u32> = run.filter(|id| *id != node).collect();
            ranker.rank(&ids, &mut ranks);
            near.offer(&ids, &ranks);
        }
        let near = near.into_sorted();
        let mut scored: Vec<(f32, u32)> =
            near.iter().map(|(_, id)| (score(&query, self.vectors, *id), *id)).collect();
        scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Some(scored)
    }

    /// The same, exactly.
    fn nearest_within(&self, bounds: &Bounds<'_>, node: u32, query: &Query) -> Vec<(f32, u32)> {
        // Ordered as its bits are: scores of these metrics are not negative, but for rounding.
        let key = |score: f32, id: u32| (score.max(0.0).to_bits(), id);
        let mut nearest: BinaryHeap<(u32, u32)> = BinaryHeap::with_capacity(MANY + 1);
        bounds.scan(
            MANY,
            &Cancel::default(),
            |id| id != node,
            |id| {
                nearest.push(key(score(query, self.vectors, id), id));
                if nearest.len() > MANY {
                    nearest.pop();
                }
                match nearest.peek() {
                    Some((last, _)) if nearest.len() == MANY => f32::from_bits(*last),
                    _ => f32::INFINITY,
                }
            },
        );
        let nearest = nearest.into_sorted_vec().into_iter();
        nearest.map(|(score, id)| (f32::from_bits(score), id)).collect()
    }
}

fn score(query: &Query, vectors: &impl Vectors, node: u32) -> f32 {
    let score = query.distance(vectors.vector(node));
    score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
}
