//! The k best candidates seen so far.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

use hashbrown::HashMap;

/// A row that may be among the nearest. Ordered by score, then by key, so that equal scores come in
/// the same order from every index and every segment layout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The score; smaller is nearer.
    pub score: f32,
    /// The primary key.
    pub key: u64,
    /// Which segment of the snapshot, and which row of it.
    pub place: (u32, u32),
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(self.key.cmp(&other.key))
    }
}

/// Keeps the best of what it is offered.
pub trait Best {
    /// True when a candidate of that score could still be kept.
    fn wants(&self, score: f32) -> bool;

    /// Offers a candidate.
    fn push(&mut self, candidate: Candidate);

    /// Candidates above this score are not kept.
    fn bound(&self) -> f32;

    /// The candidates, nearest first.
    fn into_sorted(self) -> Vec<Candidate>;
}

/// Keeps the k smallest candidates, whatever rows they are of.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    heap: BinaryHeap<Candidate>,
    /// Candidates above this score are of no use, whatever the heap holds.
    bound: f32,
}

impl TopK {
    /// Keeps up to `k` candidates with a score up to `radius` (included), where one is given.
    pub fn new(k: usize, radius: Option<f32>) -> Self {
        TopK { k, heap: BinaryHeap::new(), bound: radius.unwrap_or(f32::INFINITY) }
    }

    /// Candidates kept.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl Best for TopK {
    #[inline]
    fn wants(&self, score: f32) -> bool {
        score <= self.bound && self.k > 0
    }

    fn push(&mut self, candidate: Candidate) {
        if !self.wants(candidate.score) {
            return;
        }
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
        if self.heap.len() == self.k
            && let Some(worst) = self.heap.peek()
        {
            self.bound = self.bound.min(worst.score);
        }
    }

    fn bound(&self) -> f32 {
        self.bound
    }

    fn into_sorted(self) -> Vec<Candidate> {
        self.heap.into_sorted_vec()
    }
}

/// Keeps the k rows whose best candidates are smallest, each with its best.
#[derive(Debug)]
pub struct TopRows {
    k: usize,
    kept: BTreeSet<Candidate>,
    /// The score of each row that is kept.
    scores: HashMap<(u32, u32), f32>,
    bound: f32,
}

impl TopRows {
    /// Keeps up to `k` rows with a score up to `radius` (included), where one is given.
    pub fn new(k: usize, radius: Option<f32>) -> Self {
        let bound = radius.unwrap_or(f32::INFINITY);
        TopRows { k, kept: BTreeSet::new(), scores: HashMap::new(), bound }
    }
}

impl Best for TopRows {
    fn wants(&self, score: f32) -> bool {
        score <= self.bound && self.k > 0
    }

    fn push(&mut self, candidate: Candidate) {
        if !self.wants(candidate.score) {
            return;
        }
        let known =
            self.scores.get(&candidate.place).map(|score| Candidate { score: *score, ..candidate });
        match known {
            Some(known) if known <= candidate => return,
            Some(known) => _ = self.kept.remove(&known),
            None => {}
        }
        self.scores.insert(candidate.place, candidate.score);
        self.kept.insert(candidate);
        if self.kept.len() > self.k
            && let Some(worst) = self.kept.pop_last()
        {
            self.scores.remove(&worst.place);
        }
        if self.kept.len() == self.k
            && let Some(worst) = self.kept.last()
        {
            self.bound = self.bound.min(worst.score);
        }
    }

    fn bound(&self) -> f32 {
        self.bound
    }

    fn into_sorted(self) -> Vec<Candidate> {
        self.kept.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_k_smallest_are_kept_and_equal_scores_come_by_key() {
        let mut top = TopK::new(3, None);
        for (score, key) in [(2.0, 9), (1.0, 8), (2.0, 1), (2.0, 5), (0.5, 7), (9.0, 0)] {
            top.push(Candidate { score, key, place: (0, 0) });
        }
        let kept: Vec<_> = top.into_sorted().into_iter().map(|c| (c.score, c.key)).collect();
        assert_eq!(kept, [(0.5, 7), (1.0, 8), (2.0, 1)]);
    }

    #[test]
    fn a_radius_includes_its_own_value() {
        let mut top = TopK::new(10, Some(0.9));
        for score in [0.9, 0.900_001, 0.1] {
            top.push(Candidate { score, key: 0, place: (0, 0) });
        }
        assert_eq!(top.len(), 2);
    }

    proptest! {
        #[test]
        fn the_k_best_rows_are_kept_with_their_best(
            offered in proptest::collection::vec((0u32..12, 0u8..20), 0..80),
            k in 0usize..8,
            radius in proptest::option::of(0u8..20),
        ) {
            let mut top = TopRows::new(k, radius.map(f32::from));
            let mut best = std::collections::BTreeMap::new();
            for (row, score) in &offered {
                // Keys do not follow rows.
                let key = u64::from(row * 7 % 12);
                top.push(Candidate { score: f32::from(*score), key, place: (0, *row) });
                let known = best.entry(key).or_insert(*score);
                *known = (*known).min(*score);
            }
            let within = best.into_iter().filter(|(_, score)| radius.is_none_or(|r| *score <= r));
            let mut expected: Vec<(u8, u64)> = within.map(|(key, score)| (score, key)).collect();
            expected.sort_unstable();
            expected.truncate(k);
            let kept = top.into_sorted().into_iter().map(|c| (c.score as u8, c.key));
            prop_assert_eq!(kept.collect::<Vec<_>>(), expected);
        }
    }
}
