//! The k best candidates seen so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

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

/// Keeps the k smallest candidates.
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

    /// True when a candidate of that score could still be kept.
    pub fn wants(&self, score: f32) -> bool {
        score <= self.bound && self.k > 0
    }

    /// Offers a candidate.
    pub fn push(&mut self, candidate: Candidate) {
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

    /// Candidates above this score are not kept.
    pub fn bound(&self) -> f32 {
        self.bound
    }

    /// Candidates kept.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The candidates, nearest first.
    pub fn into_sorted(self) -> Vec<Candidate> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
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
}
