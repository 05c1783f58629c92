//! Measuring what an index finds, on a sample of queries: rows, each searched for as if it were not there,
//! and others that are unlike the rows. What is found is compared with an exact answer.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::build::BuildRun;
use super::codes::{CodeRanker, Codes};
use super::graph::{BREADTH, Ranker};
use super::probes::{ProbeKind, ProbeMaker, UNLIKE};
use super::space::Vectors;
use super::truth::nearest_of_each;
use crate::schema::{
    Effort, Likeness, Metric, RECALL_TARGET, Reach, RecallCurve, RecallPoint, VectorColumn,
    decode_floats,
};
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
/// The ladder ends where this is found.
const ENOUGH: f32 = 0.998;
/// The same of queries unlike the rows, of which a little is taken off.
const ENOUGH_UNLIKE: f32 = 0.99;
/// Finalists tried, as times k, and the share of what the most of them find that is enough.
const REFINE_LADDER: [f32; 9] = [1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const REFINE_ENOUGH: f32 = 0.998;
/// Of queries of which all were found, so many more would not have been.
const UNSEEN: f32 = 0.5;
/// At this effort and above, a search for many finds of fewer what searches for these do.
const LARGE: u32 = 384;
/// A query is apart by less than all rows where it is by this share of the least that was seen.
const LESS: f32 = 0.95;
/// How many of 100 rows what tells others from them may keep.
const STRICTNESS: [usize; 6] = [99, 97, 94, 90, 80, 70];
/// A scan takes as long as a walk with so many times fewer candidates than rows.
const SCAN_STEPS: usize = 32;
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
    fn rank_at_least(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        match self {
            AnyRanker::Codes(ranker) => ranker.rank_at_least(ids, ranks),
            AnyRanker::Scores(ranker) => ranker.rank(ids, ranks),
        }
    }

    #[inline]
    fn complete(&self, id: u32, at_least: f32) -> f32 {
        match self {
            AnyRanker::Codes(ranker) => ranker.complete(id, at_least),
            AnyRanker::Scores(_) => at_least,
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
    /// See [`apartness`].
    apartness: f32,
}

/// How many times farther the nearest of a query are from it than from each other: the last of these scores of
/// up to 10 neighbours, ascending, over the median of those that the first of the neighbours has with
/// the others. It hardly depends on how close together rows lie where the query is. 0 for one neighbour.
pub fn apartness(scores: &[f32], of_first: &mut [f32]) -> f32 {
    let (Some(last), false) = (scores.last(), of_first.is_empty()) else { return 0.0 };
    let middle = of_first.len() / 2;
    let (_, median, _) = of_first.select_nth_unstable_by(middle, f32::total_cmp);
    if *last <= 0.0 { 0.0 } else { last / median.max(0.0) }
}

/// How many numbers of a vector count, as a share of all: 1 where all are of one size, one of all where the others
/// are zero. Hoyer ("Non-negative matrix factorization with sparseness constraints", 2004) makes sparseness
/// of the same two sums. 1 where there is nothing to tell.
pub fn fullness(column: &VectorColumn, vector: &[u8]) -> f32 {
    let (dimension, mut numbers) = (column.dimension as usize, Vec::new());
    decode_floats(vector, column.element, dimension, false, &mut numbers);
    let (mut sum, mut squares) = (0f64, 0f64);
    for number in numbers.iter().map(|number| f64::from(*number)) {
        sum += number.abs();
        squares += number * number;
    }
    let share = sum * sum / (squares * dimension as f64);
    if share.is_finite() { share as f32 } else { 1.0 }
}

/// How a sample is searched.
struct Search<'s, F> {
    /// Efforts, rising.
    ladder: &'s [u32],
    /// Rows scored exactly, as times k.
    refine_k: f32,
    find: &'s F,
}

/// A query of which either is larger is told from rows.
#[derive(Debug, Clone, Copy)]
struct Signs {
    /// The score of the 10th nearest.
    at_10: f32,
    /// See [`apartness`].
    apart: f32,
}

/// What queries found at efforts that rise, of the nearest, the 10 and the 100 nearest.
struct Tried<'q, 'a> {
    queries: &'q [&'q Sampled<'a>],
    /// Of each query, by effort.
    shares: Vec<Vec<[f32; 3]>>,
}

impl Tried<'_, '_> {
    /// How many efforts were tried.
    fn efforts(&self) -> usize {
        self.shares.first().map_or(0, Vec::len)
    }

    /// What those queries found at an effort that are of a group, made one number of by `sum_up`: 1 without
    /// any.
    fn at(
        &self,
        place: usize,
        is_of: impl Fn(&Sampled<'_>) -> bool,
        sum_up: impl Fn(&[f32]) -> f32,
    ) -> [f32; 3] {
        let of_group = self.queries.iter().zip(&self.shares).filter(|(query, _)| is_of(query));
        let found: Vec<[f32; 3]> = of_group.filter_map(|(_, at)| at.get(place).copied()).collect();
        let one = |which: usize| -> f32 {
            let shares: Vec<f32> = found.iter().map(|shares| shares[which]).collect();
            if shares.is_empty() { 1.0 } else { sum_up(&shares) }
        };
        [one(0), one(1), one(2)]
    }

    /// The least of that at the last effort.
    fn least(&self, is_of: impl Fn(&Sampled<'_>) -> bool, sum_up: impl Fn(&[f32]) -> f32) -> f32 {
        least_of(self.at(self.efforts() - 1, is_of, sum_up))
    }

    /// The curve that `shares` makes of each effort.
    fn points(
        &self,
        ladder: &[u32],
        shares: impl Fn(&Self, usize) -> [f32; 3],
    ) -> Vec<RecallPoint> {
        let efforts = ladder.iter().enumerate().take(self.efforts());
        efforts.map(|(place, effort)| point(*effort, shares(self, place))).collect()
    }

    fn mean(shares: &[f32]) -> f32 {
        shares.iter().sum::<f32>() / shares.len() as f32
    }

    /// The mean; of few as if others were with them that found all, as these few tell little.
    fn mean_of_many(shares: &[f32]) -> f32 {
        let others = PART_MIN.saturating_sub(shares.len()) as f32;
        (shares.iter().sum::<f32>() + others) / (shares.len() as f32 + others)
    }

    /// The mean, a little lower: they find all or nothing, often, and are few, so that the mean of all is a
    /// little worse, perhaps.
    fn lowered(shares: &[f32]) -> f32 {
        let (count, mean) = (shares.len() as f32, Self::mean(shares));
        let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f32>() / count;
        (mean - (variance / count).sqrt() - UNSEEN / count).max(0.0)
    }
}

fn point(effort: u32, [at_1, at_10, at_100]: [f32; 3]) -> RecallPoint {
    RecallPoint { ef_search: effort, at_1: Some(at_1), at_10, at_100 }
}

fn least(one: [f32; 3], other: [f32; 3]) -> [f32; 3] {
    std::array::from_fn(|which| one[which].min(other[which]))
}

fn least_of(shares: [f32; 3]) -> f32 {
    shares.into_iter().fold(1.0, f32::min)
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
        let query =
            |(_, node, vector): &(_, u32, Cow<'a, [u8]>)| Some((sample.query(vector)?, *node));
        let queries: Option<Vec<(Query, u32)>> = wanted.iter().map(query).collect();
        let nearest = nearest_of_each(vectors, &queries?, MANY, run)?;
        let sampled = |((kind, node, vector), nearest): (_, Vec<(f32, u32)>)| {
            let apartness = sample.apartness(&nearest);
            let truth = nearest.into_iter().map(|(score, _)| score).collect();
            Sampled { kind, node, vector, truth, apartness }
        };
        let queries = wanted.into_iter().zip(nearest).map(sampled).collect();
        sample.queries = queries;
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
        let search = Search { ladder, refine_k, find: &find };
        self.try_curve(&search).unwrap_or_default()
    }

    fn try_curve<M: Into<Met>>(
        &self,
        search: &Search<'_, impl Fn(&Probe<'_, V>) -> M + Sync>,
    ) -> Option<RecallCurve> {
        let others: Vec<&Sampled<'_>> =
            self.queries.iter().filter(|query| query.kind != ProbeKind::Row).collect();
        let is_of = |kind: ProbeKind| move |query: &Sampled<'_>| query.kind == kind;
        let unlike = self.try_each(&others, BREADTH, search, |tried| {
            UNLIKE.iter().all(|kind| tried.least(is_of(*kind), Tried::lowered) >= ENOUGH_UNLIKE)
        })?;
        let unlike = unlike.points(search.ladder, |tried, place| {
            let of_kinds = UNLIKE.map(|kind| tried.at(place, is_of(kind), Tried::lowered));
            of_kinds.into_iter().fold([1.0; 3], least)
        });
        let mut curve = RecallCurve {
            reach: self.reach(),
            refine_k: Some(search.refine_k),
            fullness: self.fullness(),
            nodes: u32::try_from(self.vectors.count()).ok(),
            unlike,
            ..RecallCurve::default()
        };
        // Those that pass for rows are searched as these are.
        let signs = self.signs();
        let passes = |signs: &Signs, query: &Sampled<'_>| {
            query.truth[FEW - 1] <= signs.at_10 && query.apartness <= signs.apart
        };
        let of_group = |kind: ProbeKind, signs: Option<Signs>| {
            move |query: &Sampled<'_>| {
                query.kind == kind && signs.is_none_or(|signs| passes(&signs, query))
            }
        };
        let members: Vec<&Sampled<'_>> = self
            .queries
            .iter()
            .filter(|query| {
                query.kind == ProbeKind::Row
                    || signs.first().is_some_and(|signs| passes(signs, query))
            })
            .collect();
        let shares = |tried: &Tried<'_, '_>, place: usize, signs: Option<Signs>| {
            let rows = tried.at(place, of_group(ProbeKind::Row, None), Tried::mean);
            let passing = signs.map_or([[1.0; 3]; UNLIKE.len()], |signs| {
                UNLIKE.map(|kind| tried.at(place, of_group(kind, Some(signs)), Tried::mean_of_many))
            });
            (rows, passing.into_iter().fold([1.0; 3], least))
        };
        let is_enough = |(rows, passing): &([f32; 3], [f32; 3])| {
            least_of(*rows) >= ENOUGH && least_of(*passing) >= ENOUGH_UNLIKE
        };
        let tried = self.try_each(&members, 1, search, |tried| {
            is_enough(&shares(tried, tried.efforts() - 1, signs.first().copied()))
        })?;
        let points = |signs: Option<Signs>| {
            let mut points = Vec::new();
            for place in 0..tried.efforts() {
                let found = shares(&tried, place, signs);
                points.push(point(search.ladder[place], least(found.0, found.1)));
                if is_enough(&found) {
                    break;
                }
            }
            points
        };
        curve.points = points(signs.first().copied());
        // The stricter the signs, the fewer pass for rows, and the more rows are searched as others are.
        let mut best = f64::INFINITY;
        for signs in &signs {
            let candidate = RecallCurve { points: points(Some(*signs)), ..curve.clone() };
            let rows = self.queries.iter().filter(|query| query.kind == ProbeKind::Row);
            let mistaken = rows.clone().filter(|query| !passes(signs, query)).count().max(1);
            let share = mistaken as f64 / rows.count().max(1) as f64;
            let effort = |likeness| {
                let trial = candidate.trial(Effort::Recall(RECALL_TARGET), FEW, likeness);
                let scan = self.vectors.count() / SCAN_STEPS;
                if trial.is_enough { trial.candidates.min(scan) } else { scan }
            };
            let cost = effort(Likeness::Like) as f64 + share * effort(Likeness::Unlike) as f64;
            if cost < best {
                best = cost;
                let of_rows = members
                    .iter()
                    .filter(|query| query.kind == ProbeKind::Row || passes(signs, query));
                let apart_least = of_rows.map(|query| query.apartness).reduce(f32::min);
                curve.points = candidate.points.clone();
                curve.reach = candidate.reach.map(|reach| Reach {
                    row_at_10: Some(signs.at_10),
                    row_apart: signs.apart.is_finite().then_some(signs.apart),
                    apart_least: apart_least.map(|least| least * LESS),
                    ..reach
                });
            }
        }
        Some(curve)
    }

    /// What may tell queries unlike the rows from these, by rising strictness; nothing where scores tell
    /// nothing.
    fn signs(&self) -> Vec<Signs> {
        if self.reach().is_none() {
            return Vec::new();
        }
        let rows = self.queries.iter().filter(|query| query.kind == ProbeKind::Row);
        let sorted = |of: &dyn Fn(&Sampled<'_>) -> f32| {
            let mut numbers: Vec<f32> = rows.clone().map(of).collect();
            numbers.sort_unstable_by(f32::total_cmp);
            numbers
        };
        let at_10 = sorted(&|query| query.truth[FEW - 1]);
        let apart = sorted(&|query| query.apartness);
        let of = |percent: usize| Signs {
            at_10: at_10[at_10.len() * percent / 100],
            apart: apart[apart.len() * percent / 100],
        };
        STRICTNESS.map(of).to_vec()
    }

    /// What queries find at rising effort, until it is enough. `None` when it was stopped.
    fn try_each<'q, M: Into<Met>>(
        &self,
        queries: &'q [&'q Sampled<'a>],
        breadth: usize,
        search: &Search<'_, impl Fn(&Probe<'_, V>) -> M + Sync>,
        is_enough: impl Fn(&Tried<'q, 'a>) -> bool,
    ) -> Option<Tried<'q, 'a>> {
        let mut tried = Tried { queries, shares: vec![Vec::new(); queries.len()] };
        if queries.is_empty() {
            return Some(tried);
        }
        for effort in search.ladder {
            let go_on = |(query, shares): (&&Sampled<'a>, &mut Vec<[f32; 3]>)| -> Option<()> {
                // More effort finds what less does.
                let has_all = shares.last().is_some_and(|shares| least_of(*shares) >= 1.0);
                let share =
                    |k: usize, of: &[usize]| self.found(query, (*effort, breadth), k, of, search);
                shares.push(match () {
                    () if has_all => [1.0; 3],
                    () if *effort >= LARGE => share(MANY, &[1, FEW, MANY])?.try_into().ok()?,
                    () => [share(1, &[1])?[0], share(FEW, &[FEW])?[0], share(MANY, &[MANY])?[0]],
                });
                Some(())
            };
            let each = || queries.par_iter().zip(&mut tried.shares).map(go_on).collect();
            let each: Option<()> = self.run.pool.install(each);
            each?;
            if is_enough(&tried) {
                break;
            }
        }
        Some(tried)
    }

    /// The shares of so many of the nearest that a search for `k` finds. `None` when it was stopped.
    fn found<M: Into<Met>>(
        &self,
        sampled: &Sampled<'_>,
        (effort, breadth): (u32, usize),
        k: usize,
        of: &[usize],
        search: &Search<'_, impl Fn(&Probe<'_, V>) -> M + Sync>,
    ) -> Option<Vec<f32>> {
        if self.run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let vector = &*sampled.vector;
        let query = self.query(vector)?;
        let (ranker, count) = (self.ranker(vector, &query), finalists(k, search.refine_k));
        let probe = Probe { node: sampled.node, vector, breadth, ranker, effort, k, count };
        let Met::Nodes(found) = (search.find)(&probe).into() else {
            return Some(vec![1.0; of.len()]);
        };
        let mut scores: Vec<f32> =
            found.into_iter().map(|id| score(&query, self.vectors, id)).collect();
        scores.sort_unstable_by(f32::total_cmp);
        let share = |k: &usize| {
            let edge = sampled.truth[*k - 1];
            scores.iter().take(*k).filter(|score| **score <= edge).count() as f32 / *k as f32
        };
        Some(of.iter().map(share).collect())
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
        let rows: Vec<&Sampled<'_>> =
            self.queries.iter().filter(|query| query.kind == ProbeKind::Row).collect();
        let search = Search { ladder: &[], refine_k, find: &find };
        let share = |query: &&Sampled<'_>| self.found(query, (effort, 1), k, &[k], &search);
        let each = || rows.par_iter().map(share).collect();
        let shares: Option<Vec<Vec<f32>>> = self.run.pool.install(each);
        let shares = shares?;
        Some(shares.iter().flatten().sum::<f32>() / shares.len().max(1) as f32)
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
        let reach = Reach {
            at_10: of(FEW),
            at_100: of(MANY),
            apart,
            row_at_10: None,
            row_apart: None,
            apart_least: None,
        };
        (self.column.metric != Metric::InnerProduct && reach.at_100.is_finite()).then_some(reach)
    }

    /// What 95 of 100 queries have of [`fullness`], where it can be told and scores tell nothing else.
    fn fullness(&self) -> Option<f32> {
        if self.column.metric != Metric::InnerProduct || self.column.element.is_binary() {
            return None;
        }
        let of = |query: &Sampled<'_>| fullness(self.column, &query.vector);
        let mut all: Vec<f32> = self.queries.iter().map(of).collect();
        all.sort_unstable_by(f32::total_cmp);
        all.get(all.len() / 20).copied()
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
}

fn score(query: &Query, vectors: &impl Vectors, node: u32) -> f32 {
    let score = query.distance(vectors.vector(node));
    score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
}
