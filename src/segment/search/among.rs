//! Searching a graph where only some rows may be found (decision 0013).

use std::cell::RefCell;

use hashbrown::HashMap;

use super::look::Look;
use super::{Finding, Found, Met, SCAN_BYTES, TELLING};
use crate::cancel::CANCEL_ROWS;
use crate::index::{
    BREADTH, Cells, Codes, HnswGraph, Ranker, RowSet, WIDER, is_scan_quicker, to_score,
};
use crate::schema::{Effort, Likeness};
use crate::segment::index_recall::EACH;

/// Allowed rows are looked at one by one where they are at most this many times the nodes that a walk
/// would meet.
const SCAN_STEPS: usize = 3;
/// The same where there are cells: finding these and trying their rows takes as long as looking at so
/// many.
const SCAN_ROWS: usize = 3_000;
/// Allowed rows that a walk begins with: the regions it may go through need not touch each other.
const SEEDS: usize = 400;
/// Up to this share, the allowed rows of the cells near the query are looked at.
const FEW: f64 = 0.12;
/// From this share on, all nodes are walked and those not allowed left out.
const MOSTLY: f64 = 0.18;
/// How much harder is searched among allowed nodes alone, which lie less close.
const AMONG: f64 = 1.5;
/// How many times what is wanted is expected among the nodes of a walk that leaves others out.
const EXPECTED: f64 = 1.5;
/// Where scores do not tell what is far: rows are elsewhere when near the query there are fewer of them
/// than this share of what there would be were they anywhere.
const SPARSE_NEAR: f64 = 0.75;
/// The same, when more than one of so many of those found come from the farther half of the cells.
const LATE: usize = 20;
/// Nodes near the query that are looked at to tell that.
const NEAR_MAX: usize = 4_096;
/// So many bytes of allowed rows or codes are looked at one by one in about the time of a walk.
const SOON_BYTES: u64 = 4 << 20;
/// So many bytes of allowed rows or codes are looked at for a query that is away from all rows, and where
/// scores do not tell whether it is.
const FAR_BYTES: u64 = 32 << 20;
const UNCLEAR_BYTES: u64 = 8 << 20;
/// How many times the deviation of ranks is reckoned with where each row was looked at.
const SURE: f32 = 2.0;
/// Walks tried where most rows may be found.
const ROUNDS: usize = 4;

impl Finding<'_> {
    /// [`Finding::walk`] where only some rows may be found.
    pub(super) fn walk_among(
        &self,
        allowed: &RowSet,
        (graph, cells): (&HnswGraph, Option<&Cells>),
        ranker: &impl Ranker,
        (ef, likeness): (usize, Likeness),
    ) -> Met {
        let k = self.search.k;
        if self.boost() == EACH || self.is_thin && self.allowed_bytes() <= SCAN_BYTES as u64 {
            return self.look_or_wait(allowed, ranker);
        }
        let ef = ef.saturating_mul(self.boost());
        let share = self.allowed as f64 / graph.len().max(1) as f64;
        let cells = cells.filter(|_| share <= FEW);
        let steps = SCAN_STEPS * ef * graph.width();
        let is_sooner =
            self.allowed <= cells.map_or(steps.max(SCAN_ROWS), |_| steps.min(SCAN_ROWS));
        if is_sooner || cells.is_none() && self.allowed_bytes() <= SOON_BYTES {
            return self.look_at_each(allowed, ranker);
        }
        let tells_far = self.index.recall().tells_far();
        if !tells_far && self.allowed_bytes() <= UNCLEAR_BYTES {
            return self.look_or_wait(allowed, ranker);
        }
        if share >= MOSTLY
            && let Some(met) = self.walk_mostly(graph, ranker, (ef, likeness, share))
        {
            return met;
        }
        let ef = (ef as f64 * AMONG) as usize;
        let mut found = Found::default();
        let mut is_elsewhere = false;
        match cells {
            Some(cells) => {
                let is_local;
                (found.nodes, is_local) = self.look_into(cells, allowed, (graph, share), ranker);
                is_elsewhere = !tells_far && !is_local;
            }
            None => {
                if !tells_far {
                    let near = self.count_near(allowed, (graph, share), ranker);
                    is_elsewhere = self.is_sparse(near, share);
                }
                if !is_elsewhere {
                    self.walk_admitted(allowed, graph, ranker, (ef, 0), &mut found);
                }
            }
        }
        if found.len() >= k && !is_elsewhere && !self.is_away(&found.nodes, share) {
            return Met::Nodes(self.clear(&found.nodes, ranker));
        }
        // Neither is what is nearest of all found well for a query that is away from all rows.
        if tells_far && self.allowed_bytes() <= FAR_BYTES {
            return self.look_or_wait(allowed, ranker);
        }
        // Where the query is, rows may be farther from each other than elsewhere.
        if found.len() >= k && tells_far {
            // What is nearest of all, whether it may be found or not.
            let mut near = Vec::new();
            graph.search(ranker, ef, |rank, id| {
                if self.is_live(self.index.row(id)) {
                    near.push((rank, id));
                }
                near.len() < self.finalists
            });
            if !self.is_farther(&found.nodes, &near, share) {
                return Met::Nodes(self.clear(&found.nodes, ranker));
            }
        }
        // What is allowed is elsewhere. Few are sooner looked at one by one.
        if cells.is_none() && tells_far {
            found.clear();
            self.walk_admitted(allowed, graph, ranker, (ef, SEEDS), &mut found);
            if found.len() >= k && !self.is_far(&found.nodes, share) {
                return Met::Nodes(self.clear(&found.nodes, ranker));
            }
        }
        self.look_or_wait(allowed, ranker)
    }

    /// [`Finding::look_at_each`], unless that takes too long where the search runs.
    fn look_or_wait(&self, allowed: &RowSet, ranker: &impl Ranker) -> Met {
        match self.can_look_at_each() {
            true => self.look_at_each(allowed, ranker),
            false => Met::TooLong,
        }
    }

    /// Bytes that looking at each of the allowed rows reads.
    fn allowed_bytes(&self) -> u64 {
        let codes = self.index.codes().map(Codes::row_bytes);
        let row_bytes = codes.unwrap_or(self.search.vector.len()) as u64;
        (self.allowed as u64).saturating_mul(row_bytes)
    }

    /// [`Finding::walk_among`] where most rows may be found: all nodes are walked, and those that may not
    /// be are left out. The k-th of the others is then one of more that were met, and as many candidates
    /// are kept as it takes to find these. `None` where other ways are better.
    fn walk_mostly(
        &self,
        graph: &HnswGraph,
        ranker: &impl Ranker,
        (ef, mut likeness, share): (usize, Likeness, f64),
    ) -> Option<Met> {
        let (k, recall) = (self.search.k, self.index.recall());
        let is_explicit = matches!(self.search.effort, Effort::Candidates(_));
        let can_scan = self.allowed_bytes() <= SCAN_BYTES as u64;
        let mut ef = (ef as f64 / share.sqrt()).max(EXPECTED * k as f64 / share) as usize;
        let mut found = Found::default();
        for _ in 0..ROUNDS {
            if self.is_too_long(graph, ef) {
                return Some(Met::TooLong);
            }
            found.clear();
            let (mut met, mut of_kth) = (0, 0);
            let breadth = if likeness == Likeness::Unlike { BREADTH } else { 1 };
            graph.search_from(ranker, ef, breadth, |rank, id| {
                met += 1;
                self.take(rank, id, &mut found);
                if found.len() >= k && of_kth == 0 {
                    of_kth = met;
                }
                true
            });
            if found.len() < k {
                // What may not be found lies around the query. A walk among the others alone ends at the
                // first of its edge, not at the nearest.
                if is_explicit || !can_scan || met < ef {
                    return None;
                }
                ef = ef.saturating_mul(WIDER);
                if is_scan_quicker(ef, graph.width(), self.allowed) {
                    break;
                }
                continue;
            }
            if self.is_away(&found.nodes, share) {
                if self.allowed_bytes() <= FAR_BYTES {
                    break;
                }
                likeness = Likeness::Unlike;
            } else if self.is_no_row(&found.nodes, share) {
                likeness = Likeness::Unlike;
            }
            let trial = recall.trial(self.search.effort, of_kth, likeness);
            let wanted = trial.candidates;
            if !is_explicit && !trial.is_enough && trial.expected.is_some() && can_scan {
                break;
            }
            if is_explicit || wanted <= ef || met < ef {
                return Some(Met::Nodes(self.clear(&found.nodes, ranker)));
            }
            ef = wanted;
            if is_scan_quicker(ef, graph.width(), self.allowed) {
                break;
            }
        }
        self.search.allowed.map(|allowed| self.look_or_wait(allowed, ranker))
    }

    /// Adds to `found` what a walk among allowed nodes alone finds that begins with `seeds` of them.
    fn walk_admitted(
        &self,
        allowed: &RowSet,
        graph: &HnswGraph,
        ranker: &impl Ranker,
        (ef, seeds): (usize, usize),
        found: &mut Found,
    ) {
        let index = self.index;
        let seeds = allowed.spread(seeds).filter_map(|row| index.ids(row).next());
        let seeds: Vec<u32> = seeds.collect();
        let take = |rank: f32, id: u32| {
            self.take(rank, id, found);
            true
        };
        // The innermost loop of a walk has nothing to spare for a map that most columns lack.
        match index.row_of_id.is_none() && index.copies().is_none() {
            true => graph.search_admitted(ranker, ef, &seeds, |id| allowed.contains(id), take),
            false => {
                let known = RefCell::default();
                let admits = |id: u32| self.may_be_found(allowed, id, &known);
                graph.search_admitted(ranker, ef, &seeds, admits, take);
            }
        }
    }

    pub(super) fn can_look_at_each(&self) -> bool {
        self.allowed_bytes() <= self.search.scan_bytes_max
    }

    /// The nearest of the allowed nodes: few enough to look at each, or too far away for the index. Where
    /// ranks do not tell them apart, a scan does.
    fn look_at_each(&self, allowed: &RowSet, ranker: &impl Ranker) -> Met {
        let found = self.ranked(allowed, ranker);
        // All were looked at: what rounding may have made of them is all that can be missed.
        let deviation = |rank: f32| SURE * ranker.deviation(rank);
        let count = to_score(&found, self.search.k, self.finalists, deviation);
        match count {
            None if found.len() < self.allowed => Met::Scan,
            count => Met::OfEach(self.first(&found, count.unwrap_or(found.len()))),
        }
    }

    /// The same where ranks are exact.
    pub(super) fn nearest_of(&self, allowed: &RowSet, ranker: &impl Ranker) -> Vec<u32> {
        self.first(&self.ranked(allowed, ranker), self.finalists)
    }

    /// The allowed nodes of least rank, in order: more than finalists.
    fn ranked(&self, allowed: &RowSet, ranker: &impl Ranker) -> Vec<(f32, u32)> {
        let mut look = Look::new(ranker, self.finalists * WIDER);
        let mut rows = allowed.iter().peekable();
        while rows.peek().is_some() && !self.search.cancel.is_set() {
            for row in rows.by_ref().take(CANCEL_ROWS) {
                if self.is_live(row) {
                    self.index.ids(row).for_each(|id| look.at(id));
                }
            }
        }
        look.into_nearest()
    }

    /// How many of the nodes nearest to the query are allowed, and how many these are.
    fn count_near(
        &self,
        allowed: &RowSet,
        (graph, share): (&HnswGraph, f64),
        ranker: &impl Ranker,
    ) -> (usize, usize) {
        let (mut met, mut looked_at) = (0, 0);
        graph.search(ranker, self.near_wanted(share), |_, id| {
            let row = self.index.row(id);
            looked_at += 1;
            met += usize::from(allowed.contains(row) && self.is_live(row));
            true
        });
        (met, looked_at)
    }

    /// Nodes near the query among which there are twice as many as wanted, were the allowed ones anywhere.
    pub(super) fn near_wanted(&self, share: f64) -> usize {
        ((2.0 * self.search.k as f64 / share) as usize).clamp(1, NEAR_MAX)
    }

    /// True when fewer nodes were met than there would be were the allowed ones anywhere, of so many
    /// looked at near the query.
    pub(super) fn is_sparse(&self, (met, looked_at): (usize, usize), share: f64) -> bool {
        (met as f64) < SPARSE_NEAR * share * self.live * looked_at as f64
    }

    /// The nearest of the allowed nodes in the cells near the query, and whether these are as many as they
    /// would be were they anywhere, and the nearest of them in the nearest cells: else there may be nearer
    /// ones in other cells.
    fn look_into(
        &self,
        cells: &Cells,
        allowed: &RowSet,
        (graph, share): (&HnswGraph, f64),
        ranker: &impl Ranker,
    ) -> (Vec<(f32, u32)>, bool) {
        let (mut met, mut looked_at, mut cell) = (0, 0, 0);
        let mut late = Vec::new();
        let probes = cells.probes(self.search.effort, self.search.k, share);
        let probes = probes.saturating_mul(self.boost()).min(cells.count());
        let mut look = Look::new(ranker, self.finalists * WIDER);
        cells.search(graph, ranker, probes, |members| {
            looked_at += members.len();
            cell += 1;
            for id in members {
                let row = self.index.row(*id);
                if allowed.contains(row) && self.is_live(row) {
                    met += 1;
                    look.at(*id);
                    if cell > probes / 2 {
                        late.push(*id);
                    }
                }
            }
        });
        let (found, k) = (look.into_nearest(), self.search.k);
        late.sort_unstable();
        let late = found.iter().take(k).filter(|(_, id)| late.binary_search(id).is_ok()).count();
        let is_all = looked_at == graph.len();
        (found, is_all || late <= k / LATE && !self.is_sparse((met, looked_at), share))
    }

    /// True when what was found is farther away than what is nearest to the query tells, where only a
    /// share of all may be found.
    fn is_farther(&self, found: &[(f32, u32)], near: &[(f32, u32)], share: f64) -> bool {
        match (self.score_of_kth(found), self.score_of_kth(near)) {
            (Some(last), Some(near)) => self.index.recall().is_farther(last, near, share),
            _ => true,
        }
    }

    /// True when what was found is farther away than neighbours are, where only a share of all may be
    /// found.
    fn is_far(&self, found: &[(f32, u32)], share: f64) -> bool {
        let last = self.score_of_kth(found);
        last.is_none_or(|score| self.index.recall().is_far(score, self.search.k, share))
    }

    /// True when what was found says that the query is away from rows: it is far, or far for what rows are from
    /// each other there.
    fn is_away(&self, found: &[(f32, u32)], share: f64) -> bool {
        let recall = self.index.recall();
        self.is_far(found, share)
            || recall.tells_apart()
                && self.apartness_of(found).is_some_and(|apartness| recall.is_apart(apartness))
    }

    /// See [`apartness`](crate::index::apartness); of what was found.
    fn apartness_of(&self, found: &[(f32, u32)]) -> Option<f32> {
        let nearest = found.iter().take(self.finalists);
        self.apartness(nearest.filter_map(|(_, id)| Some((self.score(*id)?, *id))).collect())
    }

    /// True when what was found tells the query from rows, as strictly as without a filter.
    fn is_no_row(&self, found: &[(f32, u32)], share: f64) -> bool {
        let place = found.len().min(TELLING).checked_sub(1);
        let score = place.and_then(|place| self.score(found[place].1));
        score.is_some_and(|score| {
            let apartness = || self.apartness_of(found).unwrap_or_default();
            self.index.recall().is_no_row(score, share, apartness)
        })
    }

    fn score_of_kth(&self, found: &[(f32, u32)]) -> Option<f32> {
        found.get(self.search.k.checked_sub(1)?).and_then(|(_, id)| self.score(*id))
    }

    /// True where a node, or a copy of it, may be found. `known` remembers that of copies.
    fn may_be_found(&self, allowed: &RowSet, id: u32, known: &RefCell<HashMap<u32, bool>>) -> bool {
        let contains = |id: u32| allowed.contains(self.index.row(id));
        let group = self.index.copies().and_then(|copies| Some((copies, copies.group(id)?)));
        match group {
            None => contains(id),
            Some((copies, group)) => {
                let is_any = || copies.members(group).iter().any(|id| contains(*id));
                *known.borrow_mut().entry(group).or_insert_with(is_any)
            }
        }
    }
}
