//! What is known of the recall of an index: what was measured with a sample when it was built, and with
//! queries that were really asked since.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::told::RecallSource;
use crate::schema::{Effort, Likeness, RecallCurve, Trial};

/// How many times as hard as without a filter is searched among some rows alone; where that is not enough,
/// each of them is looked at.
pub const BOOSTS: [usize; 2] = [1, 4];
/// Stands for looking at each.
pub const EACH: usize = usize::MAX;
/// Filters that let through less than these shares of the rows are measured apart from those that let through
/// more: they are searched in other ways.
const SHARES: [f64; 2] = [0.15, 0.5];

/// The measurements of an index.
#[derive(Debug, Default)]
pub struct IndexRecall {
    sample: RecallCurve,
    live: ArcSwapOption<LiveRecall>,
    filtered: ArcSwapOption<FilteredRecall>,
}

/// What an index finds for filtered queries that were really asked, by the share of the rows that their
/// filters let through. Those for which each of these rows is looked at are not among them.
#[derive(Debug, Default)]
pub struct FilteredRecall {
    bands: [Option<Band>; FilteredRecall::BANDS],
}

/// What queries of a band found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// How many queries.
    pub queries: u32,
    /// What they found of the 10 nearest, on average, searched with each of [`BOOSTS`].
    pub found: [f32; BOOSTS.len()],
}

/// How hard to search among some rows alone, and what that is expected to find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Among {
    /// One of [`BOOSTS`], or [`EACH`].
    pub boost: usize,
    /// The recall of the 10 nearest; `None` where nothing was measured.
    pub expected: Option<f32>,
}

impl FilteredRecall {
    /// How many bands there are.
    pub const BANDS: usize = SHARES.len() + 1;

    /// The place of the band of filters that let through this share of the rows.
    pub fn band_of(share: f64) -> usize {
        SHARES.iter().filter(|least| share >= **least).count()
    }

    /// Of what was measured of each band.
    pub fn new(bands: [Option<Band>; FilteredRecall::BANDS]) -> Self {
        FilteredRecall { bands }
    }

    /// How many queries were measured.
    pub fn queries(&self) -> u32 {
        self.bands().map(|band| band.queries).sum()
    }

    /// The bands that were measured.
    pub fn bands(&self) -> impl Iterator<Item = &Band> {
        self.bands.iter().flatten()
    }

    /// How to search where that share of the rows may be found, and that recall is promised. `can_look` says
    /// whether these rows are few enough for each to be looked at.
    fn among(&self, share: f64, promised: f32, can_look: bool) -> Among {
        match &self.bands[Self::band_of(share)] {
            None => Among { boost: 1, expected: None },
            Some(band) => band.among(promised, can_look),
        }
    }
}

impl Band {
    /// What is found as it is searched for that promise, where its rows are few enough to be looked at.
    pub fn found_by_now(&self, promised: f32) -> f32 {
        self.among(promised, true).expected.unwrap_or_default()
    }

    fn among(&self, promised: f32, can_look: bool) -> Among {
        let last = BOOSTS.len() - 1;
        match self.found.iter().position(|found| *found >= promised) {
            None if can_look => Among { boost: EACH, expected: Some(1.0) },
            place => {
                let place = place.unwrap_or(last);
                Among { boost: BOOSTS[place], expected: Some(self.found[place]) }
            }
        }
    }
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
        IndexRecall { sample, ..IndexRecall::default() }
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

    /// What was measured with live queries that have a filter.
    pub fn filtered(&self) -> Option<Arc<FilteredRecall>> {
        self.filtered.load_full()
    }

    /// Takes what was measured with live queries that have a filter into use.
    pub fn set_filtered(&self, filtered: FilteredRecall) {
        self.filtered.store(Some(Arc::new(filtered)));
    }

    /// How to search where only a share of the rows (0 to 1) may be found, and that recall is promised.
    /// `can_look` says whether these rows are few enough for each to be looked at.
    pub fn among(&self, share: f64, promised: f32, can_look: bool) -> Among {
        let filtered = self.filtered.load();
        let among = filtered.as_ref().map(|filtered| filtered.among(share, promised, can_look));
        among.unwrap_or(Among { boost: 1, expected: None })
    }

    /// How to search for the `k` nearest with that effort, and what that is expected to find.
    pub fn trial(&self, effort: Effort, k: usize, likeness: Likeness) -> Trial {
        let live = self.live.load();
        let Some(live) = live.as_ref().filter(|live| live.curve.is_measured(likeness)) else {
            return self.sample.trial(effort, k, likeness);
        };
        // The next query may be unlike those before it: live ones make searches harder, and never easier.
        let sample = self.sample.trial(effort, k, likeness);
        let asked = live.curve.trial(effort, k, likeness);
        let candidates = asked.candidates.max(sample.candidates);
        let found = match asked.candidates == candidates {
            true => asked.expected,
            false => live.curve.trial(Effort::Candidates(candidates), k, likeness).expected,
        };
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

    /// See [`RecallCurve::is_no_row`].
    pub fn is_no_row(&self, at_10: f32, share: f64, apartness: impl FnOnce() -> f32) -> bool {
        self.sample.is_no_row(at_10, share, apartness)
    }

    /// See [`RecallCurve::is_thin`].
    pub fn is_thin(&self, fullness: impl FnOnce() -> f32) -> bool {
        self.sample.is_thin(fullness)
    }

    /// See [`RecallCurve::tells_apart`].
    pub fn tells_apart(&self) -> bool {
        self.sample.tells_apart()
    }

    /// See [`RecallCurve::is_apart`].
    pub fn is_apart(&self, apartness: f32) -> bool {
        self.sample.is_apart(apartness)
    }

    /// See [`RecallCurve::is_farther`].
    pub fn is_farther(&self, score: f32, near: f32, share: f64) -> bool {
        self.sample.is_farther(score, near, share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::RecallPoint;

    #[test]
    fn queries_that_were_asked_make_it_harder_and_never_easier() {
        let points = |enough: u32| {
            let point =
                |ef_search, at_10| RecallPoint { ef_search, at_1: None, at_10, at_100: at_10 };
            vec![point(10, 0.5), point(enough, 1.0)]
        };
        let sample = RecallCurve { points: points(400), ..RecallCurve::default() };
        let recall = IndexRecall::new(sample);
        let candidates = || recall.candidates(Effort::Recall(0.9), 10);
        let by_sample = candidates();
        assert!(by_sample > 300);
        let asked = |enough: u32| {
            let curve = RecallCurve { points: points(enough), ..RecallCurve::default() };
            recall.set_live(LiveRecall { curve, queries: (192, 0), ..LiveRecall::default() });
            candidates()
        };
        assert_eq!(asked(20), by_sample, "the next one may be of another kind");
        assert!(asked(800) > 600);
    }

    #[test]
    fn filtered_queries_are_searched_as_hard_as_those_of_their_band_need() {
        let recall = IndexRecall::default();
        let of = |share, can_look| recall.among(share, 0.95, can_look);
        assert_eq!(of(0.3, true), Among { boost: 1, expected: None });
        let band = |found| Some(Band { queries: 24, found });
        let bands = [band([0.96, 1.0]), band([0.8, 0.97]), band([0.5, 0.75])];
        recall.set_filtered(FilteredRecall::new(bands));
        assert_eq!(of(0.01, true), Among { boost: 1, expected: Some(0.96) });
        assert_eq!(of(0.15, true), Among { boost: 4, expected: Some(0.97) });
        assert_eq!(of(0.9, true), Among { boost: EACH, expected: Some(1.0) });
        assert_eq!(of(0.5, false), Among { boost: 4, expected: Some(0.75) });
    }
}
