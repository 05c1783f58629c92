//! What may be found: rows that are far enough away, and not those that a query is made of. All of
//! them up to a radius, as many as a reply may have.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hashbrown::HashMap;

use super::execute::{Search, Stop};
use crate::error::{Error, Result};
use crate::index::{Best, Candidate};

/// Keeps the best of what a search may find.
pub(super) struct Admitted<'a, B> {
    least: f32,
    hidden: &'a [(u32, u32)],
    best: B,
}

impl<'a, B: Best> Admitted<'a, B> {
    /// Keeps what `best` keeps of it.
    pub fn new(search: &Search<'a>, best: B) -> Self {
        let least = search.plan.options.radius_min.unwrap_or(f32::NEG_INFINITY);
        Admitted { least, hidden: search.hidden, best }
    }
}

impl<B: Best> Best for Admitted<'_, B> {
    #[inline]
    fn wants(&self, score: f32) -> bool {
        self.best.wants(score)
    }

    fn push(&mut self, candidate: Candidate) {
        if candidate.score >= self.least && self.hidden.binary_search(&candidate.place).is_err() {
            self.best.push(candidate);
        }
    }

    fn bound(&self) -> f32 {
        self.best.bound()
    }

    fn into_sorted(self) -> Vec<Candidate> {
        self.best.into_sorted()
    }
}

/// How many rows all query vectors may find together.
struct Budget {
    results_max: u64,
    left: AtomicU64,
    /// One more was found than there is place for.
    is_exceeded: AtomicBool,
}

impl Budget {
    /// Takes the place of one row; false where there is none.
    fn take(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if took.is_err() {
            self.is_exceeded.store(true, Ordering::Relaxed);
        }
        took.is_ok()
    }

    fn check(&self) -> Result<()> {
        if !self.is_exceeded.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::LimitExceeded {
            what: "number of rows within the radius, as far as they were counted,",
            value: self.results_max + 1,
            limit: self.results_max,
            setting: "limits.query_results_max",
        })
    }
}

/// Keeps everything up to a radius that there is place for.
struct Everything<'a> {
    budget: &'a Budget,
    bound: f32,
    kept: Vec<Candidate>,
    /// Where rows may have several vectors: which of those that are kept is each row's nearest.
    nearest: Option<HashMap<(u32, u32), usize>>,
}

impl Everything<'_> {
    /// Keeps the vector of a row that is kept already, if it is nearer; false where the row is not kept.
    fn replace(&mut self, candidate: Candidate) -> bool {
        let known = self.nearest.as_ref().and_then(|nearest| nearest.get(&candidate.place));
        let Some(known) = known.and_then(|at| self.kept.get_mut(*at)) else { return false };
        *known = candidate.min(*known);
        true
    }
}

impl Best for Everything<'_> {
    #[inline]
    fn wants(&self, score: f32) -> bool {
        score <= self.bound
    }

    fn push(&mut self, candidate: Candidate) {
        if !self.wants(candidate.score) || self.replace(candidate) {
            return;
        }
        if !self.budget.take() {
            // The query fails: nothing more is wanted, of whatever score.
            self.bound = f32::NEG_INFINITY;
            return;
        }
        if let Some(nearest) = &mut self.nearest {
            nearest.insert(candidate.place, self.kept.len());
        }
        self.kept.push(candidate);
    }

    fn bound(&self) -> f32 {
        self.bound
    }

    fn into_sorted(self) -> Vec<Candidate> {
        let mut kept = self.kept;
        kept.sort_unstable();
        kept
    }
}

impl Search<'_> {
    /// All rows within the radius of each query vector, nearest first; at most `results_max` together.
    pub(super) fn all_within(
        &self,
        results_max: u64,
    ) -> std::result::Result<Vec<Vec<Candidate>>, Stop> {
        let (left, is_exceeded) = (AtomicU64::new(results_max), AtomicBool::new(false));
        let budget = Budget { results_max, left, is_exceeded };
        let bound = self.plan.radius.unwrap_or(f32::INFINITY);
        self.each(|vector| {
            budget.check()?;
            let everything = || Everything {
                budget: &budget,
                bound,
                kept: Vec::new(),
                nearest: self.rows_once.then(HashMap::new),
            };
            let found = self.nearest(vector, || Admitted::new(self, everything()))?;
            budget.check()?;
            Ok(found)
        })
    }
}
