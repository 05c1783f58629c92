//! Exact search by codes: a row whose codes prove that it is farther than what was found is not
//! looked at. Finds just what scoring every row finds.

use std::cell::RefCell;

use super::codes::Codes;
use super::shortlist::Shortlist;
use crate::cancel::{CANCEL_ROWS, Cancel};
use crate::schema::Metric;
use crate::simd::CodeQuery;

/// Rows ranked at once.
const RUN: usize = 64;
/// Rows scored first, to have something to compare bounds with: this many times k, and some more.
const FIRST_FACTOR: usize = 2;
const FIRST_EXTRA: usize = 16;
/// What rounding may take off a squared distance between codes, as a share of the squares it comes
/// from.
const ROUNDING: f32 = 2e-6;
/// What rounding may take off a score: always, and for each dimension that is summed.
const SCORE_ROUNDING: (f32, f32) = (8e-6, 8e-9);

thread_local! {
    static BOUNDS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// What codes prove of scores: never more than the score itself.
pub struct Bounds<'a> {
    codes: &'a Codes,
    metric: Metric,
    query: CodeQuery,
    /// The sum of the squares of the query's codes.
    square: f32,
    /// How far the query is from its codes, in steps.
    error: f32,
    /// What rounding may take off a score of about 1.
    rounding: f32,
}

impl<'a> Bounds<'a> {
    /// Bounds for a query, one stored vector of the column, compared by `metric`. `None` where the
    /// codes prove nothing: for other metrics than Euclidean distances, and cosines where the codes
    /// are of vectors of length 1.
    pub fn new(codes: &'a Codes, metric: Metric, vector: &[u8]) -> Option<Self> {
        let is_proved = match metric {
            Metric::SquaredEuclidean | Metric::Euclidean => codes.metric() != Metric::Cosine,
            Metric::Cosine => codes.metric() == Metric::Cosine,
            Metric::InnerProduct | Metric::Manhattan | Metric::Hamming => false,
        };
        if !is_proved {
            return None;
        }
        let (query, square, error) = codes.bounded_query(vector)?;
        let (always, each) = SCORE_ROUNDING;
        let rounding = always + each * codes.row_bytes() as f32;
        Some(Bounds { codes, metric, query, square, error, rounding })
    }

    /// Offers every node that `admits` accepts and that may be among the nearest to `score`, which
    /// returns the score that the next one has to stay below or reach. Some `k` are scored before the
    /// others, in the hope that these need not be.
    pub fn scan(
        &self,
        k: usize,
        cancel: &Cancel,
        admits: impl Fn(u32) -> bool,
        mut score: impl FnMut(u32) -> f32,
    ) {
        BOUNDS.with_borrow_mut(|bounds| {
            bounds.clear();
            let mut first = Shortlist::new(FIRST_FACTOR * k + FIRST_EXTRA);
            let count = self.codes.len() as u32;
            let (mut sums, mut ids) = ([0; RUN], [0; RUN]);
            for start in (0..count).step_by(RUN) {
                if (start as usize).is_multiple_of(CANCEL_ROWS) && cancel.is_set() {
                    return;
                }
                let run = (count - start).min(RUN as u32) as usize;
                ids.iter_mut().zip(start..).for_each(|(place, id)| *place = id);
                let (ids, sums) = (&ids[..run], &mut sums[..run]);
                self.query.measure(self.codes.rows(), ids, sums);
                let at = bounds.len();
                bounds.extend(ids.iter().zip(sums).map(|(id, sum)| match admits(*id) {
                    true => self.bound(*id, *sum),
                    false => f32::INFINITY,
                }));
                first.offer(ids, &bounds[at..]);
            }
            let mut limit = f32::INFINITY;
            for (bound, id) in first.into_sorted() {
                if bound <= limit && bound < f32::INFINITY {
                    limit = score(id);
                }
                bounds[id as usize] = f32::INFINITY;
            }
            for (run, bounds) in bounds.chunks(CANCEL_ROWS).enumerate() {
                if cancel.is_set() {
                    return;
                }
                for (id, bound) in (run * CANCEL_ROWS..).zip(bounds) {
                    if *bound <= limit && *bound < f32::INFINITY {
                        limit = score(id as u32);
                    }
                }
            }
        });
    }

    /// What the sum of the products of a row's codes and the query's proves of the row's score.
    #[inline]
    fn bound(&self, id: u32, sum: i32) -> f32 {
        let (square, error) = self.codes.square_and_error(id);
        let squares = self.square + square;
        // Between the codes, then by the triangle inequality between the vectors.
        let between = (squares - 2.0 * sum as f32 - squares * ROUNDING).max(0.0).sqrt();
        let distance = (between - error - self.error).max(0.0) * self.codes.step();
        let score = match self.metric {
            Metric::Euclidean => distance,
            // Of vectors of length 1, the squared distance is twice the score.
            Metric::Cosine => 0.5 * distance * distance - self.rounding,
            _ => distance * distance,
        };
        // NaN, from numbers beyond what floats hold, proves nothing.
        let score = score - score.abs() * self.rounding;
        if score.is_nan() { f32::NEG_INFINITY } else { score.min(f32::MAX) }
    }
}
