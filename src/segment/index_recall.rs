//! What is known of the recall of an index: what was measured with a sample when it was built, and with
//! queries that were really asked since.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::told::RecallSource;
use crate::schema::{Effort, Likeness, RecallCurve, Trial};

/// The measurements of an index.
#[derive(Debug, Default)]
pub struct IndexRecall {
    sample: RecallCurve,
    live: ArcSwapOption<LiveRecall>,
}

/// What an index finds for queries that were really asked.
#[derive(Debug, Default)]
pub struct LiveRecall {
    /// The measurements, by rising effort; where queries of a kind are too few, there are none.
    pub curve: RecallCurve,
    /// How many queries like the rows, and unlike them, were measured.
    pub queries: (u32, u32),
    /// What they found of the 10 nearest as they are searched for by default, on average.
    pub recall: f32,
    /// Half of the interval that the true mean lies in with a probability of 95%.
    pub deviation: f32,
}

impl IndexRecall {
    /// Of what was measured with a sample.
    pub fn new(sample: RecallCurve) -> Self {
        IndexRecall { sample, live: ArcSwapOption::empty() }
    }

    /// What was measured with a sample.
    pub fn sample(&self) -> &RecallCurve {
        &self.sample
    }

    /// What was measured with live queries.
    pub fn live(&self) -> Option<Arc<LiveRecall>> {
        self.live.load_full()
    }

    /// Takes what was measured with live queries into use.
    pub fn set_live(&self, live: LiveRecall) {
        self.live.store(Some(Arc::new(live)));
    }

    /// How to search for the `k` nearest with that effort, and what that is expected to find.
    pub fn trial(&self, effort: Effort, k: usize, likeness: Likeness) -> Trial {
        let live = self.live.load();
        let sample = self.sample.trial(effort, k, likeness);
        let Some(live) = live.as_ref().filter(|live| live.curve.is_measured(likeness)) else {
            return sample;
        };
        // The next query may be unlike those before it: live ones make searches harder only.
        let asked = live.curve.trial(effort, k, likeness);
        let candidates = asked.candidates.max(sample.candidates);
        let found = live.curve.trial(Effort::Candidates(candidates), k, likeness).expected;
        Trial {
            candidates,
            expected: found.into_iter().chain(sample.expected).reduce(f32::min),
            is_enough: asked.is_enough && sample.is_enough,
        }
    }

    /// Candidates to keep for the `k` nearest with that effort, for a query like the rows.
    pub fn candidates(&self, effort: Effort, k: usize) -> usize {
        self.trial(effort, k, Likeness::Like).candidates
    }

    /// What a trial's expectation comes from.
    pub fn source(&self, likeness: Likeness) -> RecallSource {
        let live = self.live.load();
        let is_live = live.as_ref().is_some_and(|live| live.curve.is_measured(likeness));
        match (is_live, self.sample.is_measured(likeness)) {
            (true, _) => RecallSource::Live,
            (false, true) => RecallSource::Sample,
            (false, false) => RecallSource::Unmeasured,
        }
    }

    /// See [`RecallCurve::likeness_at_first`].
    pub fn likeness_at_first(&self) -> Likeness {
        self.sample.likeness_at_first()
    }

    /// See [`RecallCurve::refine_k`].
    pub fn refine_k(&self, asked: Option<f32>) -> f32 {
        self.sample.refine_k(asked)
    }

    /// See [`RecallCurve::tells_far`].
    pub fn tells_far(&self) -> bool {
        self.sample.tells_far()
    }

    /// See [`RecallCurve::is_far`].
    pub fn is_far(&self, score: f32, k: usize, share: f64) -> bool {
        self.sample.is_far(score, k, share)
    }

    /// See [`RecallCurve::is_farther`].
    pub fn is_farther(&self, score: f32, near: f32, share: f64) -> bool {
        self.sample.is_farther(score, near, share)
    }
}
