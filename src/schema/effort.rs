//! How hard an index is searched: a number of candidates, or a recall to be reached, which a segment's
//! own measurement turns into one.

use serde::{Deserialize, Serialize};

/// The recall that queries aim at unless they, or their column, say otherwise: 0.95 is the promise, and
/// this leaves room for queries unlike the rows that it was measured with.
pub const RECALL_TARGET: f32 = 0.98;
/// Rows that an index finds and that are scored exactly, as times k, unless the query says otherwise.
pub const REFINE_K: f32 = 2.0;
/// Candidates kept where nothing was measured.
const UNMEASURED: usize = 200;
/// Candidates kept at most, whatever the recall.
const CANDIDATES_MAX: usize = 65_536;
/// How much farther than expected rows may be and still be where they are looked for.
const LOCAL_SLACK: f64 = 1.1;
/// The share of the misses a target allows that is kept in reserve: the sample is one of many.
const RESERVE: f32 = 0.05;

/// How hard an index is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effort {
    /// Candidates kept while walking a graph (ef), or inverted lists looked into (nprobe). 1 to 65536.
    Candidates(usize),
    /// As many candidates as find this share of the true neighbours, on average. Above 0, below 1.
    Recall(f32),
}

/// What was found of a sample of a segment's own rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecallPoint {
    /// Candidates kept while walking a graph, or inverted lists looked into.
    pub ef_search: u32,
    /// Recall of the 10 nearest.
    pub at_10: f32,
    /// Recall of the 100 nearest.
    pub at_100: f32,
}

/// How far the neighbours of a segment's own rows are: scores that 99 of 100 rows stay below.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// Of the 10th nearest.
    pub at_10: f32,
    /// Of the 100th nearest.
    pub at_100: f32,
}

/// The recall that an index reaches, measured by rising effort.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecallCurve {
    /// The measurements; empty where there are none.
    pub points: Vec<RecallPoint>,
    /// Where scores are distances, how far neighbours are.
    pub reach: Option<Reach>,
    /// Rows scored exactly while measuring, as times k.
    #[serde(default)]
    pub refine_k: Option<f32>,
}

impl RecallCurve {
    /// Candidates to keep for the `k` nearest with that effort.
    pub fn candidates(&self, effort: Effort, k: usize) -> usize {
        match effort {
            Effort::Candidates(count) => count,
            Effort::Recall(target) => self.for_recall(target, k).clamp(1, CANDIDATES_MAX),
        }
    }

    /// Rows to score exactly, as times k, unless something else is asked for.
    pub fn refine_k(&self, asked: Option<f32>) -> f32 {
        asked.or(self.refine_k).unwrap_or(REFINE_K)
    }

    /// True where [`RecallCurve::is_far`] and [`RecallCurve::is_farther`] can tell anything.
    pub fn tells_far(&self) -> bool {
        self.power().is_some()
    }

    /// True when the `k`-th of the nearest rows of which only a `share` (0 to 1) may be found is farther
    /// than such rows are from each other: then the query is away from all of them, and what was
    /// measured does not hold for it.
    pub fn is_far(&self, score: f32, k: usize, share: f64) -> bool {
        let (Some(reach), Some(power)) = (self.reach, self.power()) else { return false };
        let place = (k as f64 / 10.0 / share.max(1e-9)).max(1.0);
        f64::from(score) > f64::from(reach.at_10) * place.powf(power)
    }

    /// The same, told by the score `near` that as many of all rows have.
    pub fn is_farther(&self, score: f32, near: f32, share: f64) -> bool {
        self.power().is_some_and(|power| {
            let growth = (1.0 / share.max(1e-9)).powf(power);
            f64::from(score) > f64::from(near) * growth * LOCAL_SLACK
        })
    }

    /// The n-th neighbour is about as far as this power of n.
    fn power(&self) -> Option<f64> {
        let reach = self.reach?;
        (reach.at_10 > 0.0 && reach.at_100 > reach.at_10)
            .then(|| f64::from(reach.at_100 / reach.at_10).log10())
    }

    fn for_recall(&self, target: f32, k: usize) -> usize {
        let target = target + (1.0 - target) * RESERVE;
        let (ten, hundred) = (
            self.reaching(target, |point| point.at_10),
            self.reaching(target, |point| point.at_100),
        );
        let (Some(ten), Some(hundred)) = (ten, hundred) else { return UNMEASURED.max(2 * k) };
        match k {
            0..=10 => ten.ceil() as usize,
            // In between, and beyond, by a straight line: each neighbour more wants as much more.
            11..=100 => (ten + (hundred - ten).max(0.0) * (k - 10) as f32 / 90.0).ceil() as usize,
            _ => (hundred * k as f32 / 100.0).ceil() as usize,
        }
    }

    /// The number of candidates that reaches a recall, between the points by a straight line, and twice
    /// the last where none does.
    fn reaching(&self, target: f32, of: impl Fn(&RecallPoint) -> f32) -> Option<f32> {
        let points = &self.points;
        let Some(place) = points.iter().position(|point| of(point) >= target) else {
            return points.last().map(|last| 2.0 * last.ef_search as f32);
        };
        let above = points[place];
        let Some(below) = place.checked_sub(1).map(|before| points[before]) else {
            return Some(above.ef_search as f32);
        };
        let share = (target - of(&below)) / (of(&above) - of(&below)).max(f32::MIN_POSITIVE);
        let step = above.ef_search as f32 - below.ef_search as f32;
        Some(below.ef_search as f32 + step * share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_becomes_as_many_candidates_as_were_measured_to_reach_it() {
        let point = |ef_search, at_10, at_100| RecallPoint { ef_search, at_10, at_100 };
        let of = |points| RecallCurve { points, reach: None, refine_k: None };
        let curve = of(vec![
            point(16, 0.5, 0.0),
            point(32, 0.9, 0.0),
            point(128, 1.0, 0.9),
            point(256, 1.0, 1.0),
        ]);
        let at = |target, k| curve.candidates(Effort::Recall(target), k);
        // With the reserve these ask for 0.905 and 0.9525.
        assert_eq!(at(0.9, 10), 37);
        assert_eq!(at(0.95, 1), 83);
        assert!(at(0.95, 10) < at(0.95, 40) && at(0.95, 40) < at(0.95, 100));
        assert_eq!(at(0.9, 1_000).div_ceil(10), at(0.9, 100));
        assert_eq!(at(0.01, 10), 16);
        assert_eq!(curve.candidates(Effort::Candidates(7), 10), 7);
        assert_eq!(RecallCurve::default().candidates(Effort::Recall(0.9), 10), 200);
        assert_eq!(RecallCurve::default().candidates(Effort::Recall(0.9), 500), 1_000);
        let low = of(vec![point(512, 0.4, 0.4)]);
        assert_eq!(low.candidates(Effort::Recall(0.99), 10), 1_024);
    }

    #[test]
    fn rows_farther_than_rows_are_from_each_other_are_far() {
        let reach = Some(Reach { at_10: 1.0, at_100: 2.0 });
        let curve = RecallCurve { points: Vec::new(), reach, refine_k: None };
        assert!(!curve.is_far(0.9, 10, 1.0) && curve.is_far(1.1, 10, 1.0));
        assert!(!curve.is_far(1.9, 10, 0.1) && curve.is_far(2.1, 10, 0.1));
        assert!(!curve.is_far(1.9, 100, 1.0) && curve.is_far(2.1, 100, 1.0));
        assert!(!curve.is_far(0.9, 1, 1.0), "fewer than were measured are not nearer");
        assert!(!RecallCurve::default().is_far(1e9, 10, 1.0));
    }
}
