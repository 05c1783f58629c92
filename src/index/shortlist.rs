//! The nearest of many ranked ids, for exact scoring afterwards.

/// Keeps at least the `keep` smallest of what it is offered, and not many more.
#[derive(Debug)]
pub struct Shortlist {
    entries: Vec<(f32, u32)>,
    keep: usize,
    /// Nothing above it can be among the smallest.
    edge: f32,
}

impl Shortlist {
    /// Keeps `keep` (1 and up).
    pub fn new(keep: usize) -> Self {
        Shortlist { entries: Vec::new(), keep: keep.max(1), edge: f32::INFINITY }
    }

    /// Offers ids with their ranks.
    #[inline]
    pub fn offer(&mut self, ids: &[u32], ranks: &[f32]) {
        for (id, rank) in ids.iter().zip(ranks) {
            if *rank <= self.edge {
                self.entries.push((*rank, *id));
            }
        }
        if self.entries.len() > 8 * self.keep.max(64) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.entries.len() > self.keep {
            let place = self.keep - 1;
            let (_, last, _) =
                self.entries.select_nth_unstable_by(place, |a, b| a.0.total_cmp(&b.0));
            self.edge = last.0;
            self.entries.truncate(self.keep);
        }
    }

    /// The smallest as (rank, id), in order.
    pub fn into_sorted(mut self) -> Vec<(f32, u32)> {
        self.cut();
        self.entries.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_smallest() {
        let ids: Vec<u32> = (0..5_000).collect();
        let ranks: Vec<f32> = ids.iter().map(|id| (id * 7_919 % 5_003) as f32).collect();
        let mut list = Shortlist::new(20);
        for (ids, ranks) in ids.chunks(100).zip(ranks.chunks(100)) {
            list.offer(ids, ranks);
        }
        let mut expected: Vec<(f32, u32)> = ranks.iter().copied().zip(ids).collect();
        expected.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(list.into_sorted(), expected[..20]);
        let mut few = Shortlist::new(20);
        few.offer(&[3], &[1.0]);
        assert_eq!(few.into_sorted(), [(1.0, 3)]);
    }
}
