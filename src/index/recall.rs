//! Measuring what a graph finds, on a sample of its own rows: each is searched for as if it were not
//! there, and the answer compared with an exact one.

use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::build::{BuildRun, GraphBuilder};
use super::codes::Codes;
use super::graph::{Ranker, Scratch};
use super::shortlist::Shortlist;
use super::space::{Space, Vectors};
use crate::schema::{Metric, REFINE_K, Reach, RecallCurve, RecallPoint, VectorColumn};
use crate::simd::{Query, prefetch_bytes};

/// Rows asked for. With this many the measured recall is within about 0.01 of what all would give.
const SAMPLE: usize = 256;
/// Fewer rows are not worth measuring.
const ROWS_MIN: usize = 2_000;
/// Numbers of candidates tried.
const LADDER: [u32; 12] = [12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/// Neighbours asked for.
const FEW: usize = 10;
const MANY: usize = 100;
/// Rows that are nearest by codes, among which the true neighbours are taken to be.
const SHORTLIST: usize = 4 * MANY;
/// The ladder ends where this is found.
const ENOUGH: f32 = 0.998;
/// Rows ranked at once.
const RUN: u32 = 1_024;

/// How many of the nodes nearest by codes are scored exactly for the `k` nearest: the codes' order is
/// not quite the true one. `refine_k` is how many times `k`.
pub fn finalists(k: usize, refine_k: f32) -> usize {
    (refine_k * k as f32).min(1e9) as usize + 10
}

/// Ranks by exact scores.
pub struct ScoreRanker<'a, V> {
    query: &'a Query,
    vectors: &'a V,
}

impl<'a, V: Vectors> ScoreRanker<'a, V> {
    /// Ranks the nodes of `vectors` by their scores.
    pub fn new(query: &'a Query, vectors: &'a V) -> Self {
        ScoreRanker { query, vectors }
    }
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

/// The recall of a graph by rising numbers of candidates, on the threads of `run`. Empty for small
/// graphs, and when it was stopped.
pub fn measure_recall<S: Space>(
    builder: &GraphBuilder<'_, S>,
    column: &VectorColumn,
    vectors: &impl Vectors,
    codes: Option<&Codes>,
    run: &BuildRun<'_>,
) -> RecallCurve {
    let count = vectors.count();
    if count < ROWS_MIN {
        return RecallCurve::default();
    }
    let of_row = |position: usize| -> Option<OfRow> {
        // Spread over all rows, and not in step with anything that comes at regular intervals.
        let node = (position * count / SAMPLE + position * 7_919 % (count / SAMPLE)) as u32;
        if run.stop.load(Ordering::Relaxed) {
            return None;
        }
        let vector = vectors.vector(node);
        let query = Query::new(column.element, column.metric, column.dimension, vector)?;
        Some(match codes {
            Some(codes) => of_node(builder, node, &codes.ranker(vector), &query, vectors),
            None => of_node(builder, node, &ScoreRanker::new(&query, vectors), &query, vectors),
        })
    };
    let found: Option<Vec<OfRow>> =
        run.pool.install(|| (0..SAMPLE).into_par_iter().map(of_row).collect());
    let Some(found) = found else { return RecallCurve::default() };
    let mean = |step: usize, which: usize| {
        found.iter().map(|row| row.shares[step][which]).sum::<f32>() / SAMPLE as f32
    };
    let points = LADDER.iter().enumerate().map(|(step, ef_search)| RecallPoint {
        ef_search: *ef_search,
        at_10: mean(step, 0),
        at_100: mean(step, 1),
    });
    let mut points: Vec<RecallPoint> = points.collect();
    if let Some(end) = points.iter().position(|point| point.at_100 >= ENOUGH) {
        points.truncate(end + 1);
    }
    // Inner products are no distances.
    let is_distance = column.metric != Metric::InnerProduct;
    let reach = |which: usize| {
        let mut scores: Vec<f32> = found.iter().map(|row| row.reach[which]).collect();
        scores.sort_unstable_by(f32::total_cmp);
        scores[SAMPLE * 99 / 100]
    };
    let reach = is_distance.then(|| Reach { at_10: reach(0), at_100: reach(1) });
    let reach = reach.filter(|reach| reach.at_100.is_finite());
    RecallCurve { points, reach }
}

/// What was found of one row.
struct OfRow {
    /// The share of the few and of the many nearest rows that each step of the ladder finds.
    shares: Vec<[f32; 2]>,
    /// The scores of the last of the few and of the many nearest.
    reach: [f32; 2],
}

fn of_node<S: Space>(
    builder: &GraphBuilder<'_, S>,
    node: u32,
    ranker: &impl Ranker,
    query: &Query,
    vectors: &impl Vectors,
) -> OfRow {
    let truth = nearest(node, ranker, query, vectors);
    let mut scratch = Scratch::default();
    let mut share = |ef: u32, k: usize| {
        let found = builder.search_without(node, ranker, ef as usize, &mut scratch);
        let found = found.take(finalists(k, REFINE_K));
        let mut scores: Vec<f32> = found.map(|id| score(query, vectors, id)).collect();
        scores.sort_unstable_by(f32::total_cmp);
        let hits = scores.iter().take(k).filter(|score| **score <= truth[k - 1]).count();
        hits as f32 / k as f32
    };
    let steps = LADDER
        .iter()
        .map(|ef| [share(*ef, FEW), if *ef as usize > MANY { share(*ef, MANY) } else { 0.0 }]);
    OfRow { shares: steps.collect(), reach: [truth[FEW - 1], truth[MANY - 1]] }
}

/// The scores of the nearest rows but the node itself, ascending.
fn nearest(node: u32, ranker: &impl Ranker, query: &Query, vectors: &impl Vectors) -> Vec<f32> {
    let count = vectors.count() as u32;
    let (mut near, mut ranks) = (Shortlist::new(SHORTLIST), Vec::new());
    for first in (0..count).step_by(RUN as usize) {
        let run = first..(first + RUN).min(count);
        let ids: Vec<u32> = run.filter(|id| *id != node).collect();
        ranker.rank(&ids, &mut ranks);
        near.offer(&ids, &ranks);
    }
    let near = near.into_sorted();
    let mut scores: Vec<f32> = near.iter().map(|(_, id)| score(query, vectors, *id)).collect();
    scores.sort_unstable_by(f32::total_cmp);
    scores
}

fn score(query: &Query, vectors: &impl Vectors, node: u32) -> f32 {
    let score = query.distance(vectors.vector(node));
    score.filter(|score| !score.is_nan()).unwrap_or(f32::INFINITY)
}
