//! Measuring what searches of a graph will find, while it is still being built.

use hashbrown::HashSet;

use super::{GRAPH_LADDER, GraphBuilder, GrowingLevel, REFINE_EFFORT, WIDER, is_scan_quicker};
use crate::index::copies::Copies;
use crate::index::graph::{Level, Ranker, SCRATCH, Scratch, walk};
use crate::index::recall::{Met, Probe, RecallSample};
use crate::index::resolution::to_score;
use crate::index::space::{Space, Vectors};
use crate::schema::RecallCurve;

/// A level as if a node were not on it.
struct Without<L> {
    level: L,
    hidden: u32,
}

impl<L: Level> Level for Without<L> {
    fn bound(&self) -> usize {
        self.level.bound()
    }

    #[inline(always)]
    fn each_link(&self, node: u32, mut meet: impl FnMut(u32)) {
        self.level.each_link(node, |link| {
            if link != self.hidden {
                meet(link);
            }
        });
    }

    fn prefetch_links(&self, node: u32) {
        self.level.prefetch_links(node);
    }
}

impl<S: Space> GraphBuilder<'_, S> {
    /// Measures what searches of the finished graph will find.
    pub fn measure<V: Vectors>(&self, sample: &RecallSample<'_, V>) -> RecallCurve {
        let find = |probe: &Probe<'_, V>| self.meet(probe);
        let Some(refine_k) = sample.refine_k(REFINE_EFFORT, find) else {
            return RecallCurve::default();
        };
        let is_useful =
            |effort: &&u32| !is_scan_quicker(**effort as usize, 2 * self.width, self.levels.len());
        let ladder: Vec<u32> = GRAPH_LADDER.iter().take_while(is_useful).copied().collect();
        sample.curve(&ladder, refine_k, find)
    }

    /// What a search of the finished graph will meet.
    fn meet<V: Vectors>(&self, probe: &Probe<'_, V>) -> Met {
        let mut ef = probe.effort as usize;
        loop {
            let has_copies = self.copies.is_some_and(|copies| copies.group(probe.node).is_some());
            let hidden = if has_copies { u32::MAX } else { probe.node };
            let mut found: Vec<(f32, u32)> = SCRATCH.with_borrow_mut(|scratch| {
                self.search_without(hidden, &probe.ranker, (ef, probe.breadth), scratch).collect()
            });
            let met = found.len();
            if let Some(copies) = self.copies {
                found = with_copies(copies, &found, probe);
            }
            let ids = |count: usize| found.iter().take(count).map(|(_, id)| *id).collect();
            match to_score(&found, probe.k, probe.count, |rank| probe.ranker.deviation(rank)) {
                Some(count) => return Met::Nodes(ids(count)),
                None if met < ef => return Met::Nodes(ids(found.len())),
                None => ef *= WIDER,
            }
            if is_scan_quicker(ef, 2 * self.width, self.levels.len()) {
                return Met::Everything;
            }
        }
    }

    /// The `ef` nodes nearest to the query that `ranker` holds, as a search of the finished graph would
    /// find them were `hidden` not in it, nearest first.
    fn search_without(
        &self,
        hidden: u32,
        ranker: &impl Ranker,
        (ef, breadth): (usize, usize),
        scratch: &mut Scratch,
    ) -> impl Iterator<Item = (f32, u32)> {
        let has_upper = |entry: u32| breadth > 1 && self.levels[entry as usize] > 1;
        if let Some(entry) = self.entry().filter(|entry| has_upper(*entry)) {
            let reached = self.descend(ranker, entry, 1, &mut Vec::new(), &mut Vec::new());
            let upper = GrowingLevel { builder: self, level: 1 };
            walk(&upper, ranker, 2 * breadth, [reached], scratch);
            let entries: Vec<(f32, u32)> = scratch.beam.nearest().take(breadth).collect();
            let level = GrowingLevel { builder: self, level: 0 };
            walk(&Without { level, hidden }, ranker, ef, entries, scratch);
        } else if let Some(entry) = self.entry() {
            let reached = self.descend(ranker, entry, 0, &mut Vec::new(), &mut Vec::new());
            // Whoever comes down at the node itself goes on from where it is.
            let entries = [reached, (f32::INFINITY, entry)];
            let entries = entries.into_iter().filter(|(_, id)| *id != hidden).take(1);
            let level = GrowingLevel { builder: self, level: 0 };
            walk(&Without { level, hidden }, ranker, ef, entries, scratch);
        } else {
            scratch.beam.begin(ef);
        }
        scratch.beam.nearest()
    }
}

/// What was found with the copies of each, as many as are wanted.
fn with_copies<V>(copies: &Copies, found: &[(f32, u32)], probe: &Probe<'_, V>) -> Vec<(f32, u32)> {
    let (mut all, mut seen) = (Vec::with_capacity(found.len()), HashSet::new());
    for (rank, id) in found {
        let Some(group) = copies.group(*id) else {
            all.push((*rank, *id));
            continue;
        };
        if seen.insert(group) {
            let members = copies.members(group).iter().filter(|member| **member != probe.node);
            all.extend(members.take(probe.count).map(|member| (*rank, *member)));
        }
    }
    all
}
