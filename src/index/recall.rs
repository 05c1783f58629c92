//! Measuring what an index finds, on a sample of its own rows: each is searched for as if it were not
//! there, and the answer compared with an exact one.

use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::build::BuildRun;
use super::codes::{CodeRanker, Codes};
use super::graph::Ranker;
use super::shortlist::Shortlist;
use super::space::Vectors;
use crate::schema::{Metric, Reach, RecallCurve, RecallPoint, VectorColumn};
use crate::simd::{Query, prefetch_bytes};

/// Rows asked for. With this many the measured recall is within about 0.01 of what all would give.
const SAMPLE: usize = 256;
/// Fewer rows are not worth measuring.
const ROWS_MIN: usize = 2_000;
/// Neighbours asked for.
const FEW: usize = 10;
const MANY: usize = 100;
/// Rows that are nearest by codes, among which the true neighbours are taken to be.
const SHORTLIST: usize = 4 * MANY;
/// The ladder ends where this is found.
const ENOUGH: f32 = 0.998;
/// Finalists tried, as times k, and the share of what the most of them find that is enough.
const REFINE_LADDER: [f32; 9] = [1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const REFINE_ENOUGH: f32 = 0.998;
/// Rows ranked at once.
const RUN: u32 = 1_024;

/// How many of the nodes nearest by codes are scored exactly for the `k` nearest: the codes' order is
/// not quite the true one. `refine_k` is how many times `k`.
pub fn finalists(k: usize, refine_k: f32) -> usize {
    (refine_k * k as f32).min(1e9) as usize + 5
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
}

/// One search for what is nearest to a row of the sample, without the row itself.
pub struct Probe<'a, V> {
    /// The row.
    pub node: u32,
    /// Its vector.
    pub vector: &'a [u8],
    /// Ranks by the distance to it.
    pub ranker: AnyRanker<'a, V>,
    /// How hard to search.
    pub effort: u32,
    /// Rows wanted.
    pub count: usize,
}

/// A sample of the rows of an index, with the scores of their true neighbours.
pub struct RecallSample<'a, V> {
    column: &'a VectorColumn,
    vectors: &'a V,
    codes: Option<&'a Codes>,
    run: BuildRun<'a>,
    /// Each row, and the scores of those nearest to it, ascending.
    rows: Vec<(u32, Vec<f32>)>,
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
        let mut sample = RecallSample { column, vectors, codes, run, rows: Vec::new() };
        // Spread over all rows, and not in step with anything that comes at regular intervals.
        let node = |place: usize| place * count / SAMPLE + place * 7_919 % (count / SAMPLE);
        let truth = |place: usize| {
            let node = node(place) as u32;
            Some((node, sample.nearest(node)?))
        };
        let rows: Option<Vec<(u32, Vec<f32>)>> =
            run.pool.install(|| (0..SAMPLE).into_par_iter().map(truth).collect());
        sample.rows = rows?;
        Some(sample)
    }

    /// The recall by rising effort, of a search that scores as many finalists as `refine_k` says.
    /// `find` gives the rows found, nearest first. Empty when it was stopped.
    pub fn curve(
        &self,
        ladder: &[u32],
        refine_k: f32,
        find: impl Fn(&Probe<'_, V>) -> Vec<u32> + Sync,
    ) -> RecallCurve {
        let mut points = Vec::new();
        for effort in ladder {
            let at = |k: usize| self.share(*effort, refine_k, k, &find);
            let (Some(at_10), Some(at_100)) = (at(FEW), at(MANY)) else {
                return RecallCurve::default();
            };
            points.push(RecallPoint { ef_search: *effort, at_10, at_100 });
            if at_100 >= ENOUGH {
                break;
            }
        }
        RecallCurve { points, reach: self.reach(), refine_k: Some(refine_k) }
    }

    /// How many finalists, as times k, are enough at an effort: the fewest that find nearly what the most
    /// of them do. `None` when it was stopped.
    pub fn refine_k(
        &self,
        effort: u32,
        find: impl Fn(&Probe<'_, V>) -> Vec<u32> + Sync,
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

    /// The mean share found of the `k` nearest, at most 100. `None` when it was stopped.
    pub fn share(
        &self,
        effort: u32,
        refine_k: f32,
        k: usize,
        find: impl Fn(&Probe<'_, V>) -> Vec<u32> + Sync,
    ) -> Option<f32> {
        let of_row = |(node, truth): &(u32, Vec<f32>)| -> Option<f32> {
            if self.run.stop.load(Ordering::Relaxed) {
                return None;
            }
            let (vector, query) = self.query(*node)?;
            let (ranker, count) = (self.ranker(vector, &query), finalists(k, refine_k));
            let found = find(&Probe { node: *node, vector, ranker, effort, count });
            let found = found.into_iter().take(count);
            let mut scores: Vec<f32> = found.map(|id| score(&query, self.vectors, id)).collect();
            scores.sort_unstable_by(f32::total_cmp);
            let hits = scores.iter().take(k).filter(|score| **score <= truth[k - 1]).count();
            Some(hits as f32 / k as f32)
        };
        let shares: Option<Vec<f32>> =
            self.run.pool.install(|| self.rows.par_iter().map(of_row).collect());
        Some(shares?.into_iter().sum::<f32>() / self.rows.len() as f32)
    }

    /// Where scores are distances, which inner products are not, how far neighbours are.
    fn reach(&self) -> Option<Reach> {
        let of = |k: usize| {
            let mut scores: Vec<f32> = self.rows.iter().map(|(_, truth)| truth[k - 1]).collect();
            scores.sort_unstable_by(f32::total_cmp);
            scores[scores.len() * 99 / 100]
        };
        let reach = Reach { at_10: of(FEW), at_100: of(MANY) };
        (self.column.metric != Metric::InnerProduct && reach.at_100.is_finite()).then_some(reach)
    }

    fn query(&self, node: u32) -> Option<(&'a [u8], Query)> {
        let (column, vector) = (self.column, self.vectors.vector(node));
        Some((vector, Query::new(column.element, column.metric, column.dimension, vector)?))
    }

    fn ranker<'q>(&'q self, vector: &[u8], query: &'q Query) -> AnyRanker<'q, V> {
        match self.codes {
            Some(codes) => AnyRanker::Codes(codes.ranker(vector)),
            None => AnyRanker::Scores(ScoreRanker { query, vectors: self.vectors }),
        }
    }

    /// The scores of the nearest rows but the node itself, ascending. `None` when it was stopped.
    fn nearest(&self, node: u32) -> Option<Vec<f32>> {
        if self.run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let (vector, query) = self.query(node)?;
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
        let mut scores: Vec<f32> =
            near.iter().map(|(_, id)| score(&query, self.vectors, *id)).collect();
        scores.sort_unstable_by(f32::total_cmp);
        Some(scores)
    }
}

fn score(query: &Query, vectors: &impl Vectors, node: u32) -> f32 {
    let score = query.distance(vectors.vector(node));
    score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
}
