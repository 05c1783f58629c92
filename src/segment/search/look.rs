//! Looking at nodes one by one.

use crate::index::{Ranker, Shortlist};

/// Rows ranked at once.
const RUN: usize = 32;

/// Looks at nodes one by one for those nearest to a query. One run of them is on its way from memory
/// while the one before it is ranked.
pub(super) struct Look<'a, R> {
    ranker: &'a R,
    nearest: Shortlist,
    run: Vec<u32>,
    before: Vec<u32>,
    ranks: Vec<f32>,
}

impl<'a, R: Ranker> Look<'a, R> {
    pub fn new(ranker: &'a R, keep: usize) -> Self {
        let run = || Vec::with_capacity(RUN);
        let nearest = Shortlist::new(keep);
        Look { ranker, nearest, run: run(), before: run(), ranks: Vec::with_capacity(RUN) }
    }

    #[inline(always)]
    pub fn at(&mut self, id: u32) {
        self.ranker.prefetch(id);
        self.run.push(id);
        if self.run.len() == RUN {
            self.rank_before();
        }
    }

    /// Ranks the run before, which the one now under way takes the place of.
    fn rank_before(&mut self) {
        self.ranker.rank(&self.before, &mut self.ranks);
        self.nearest.offer(&self.before, &self.ranks);
        std::mem::swap(&mut self.run, &mut self.before);
        self.run.clear();
    }

    /// The nearest with their ranks, in order.
    pub fn into_nearest(mut self) -> Vec<(f32, u32)> {
        self.rank_before();
        self.rank_before();
        self.nearest.into_sorted()
    }
}
