//! The candidates of a graph walk: the best nodes met so far, nearest first.

/// Marks a node whose links have been followed; ids are below 2^31.
const FOLLOWED: u32 = 1 << 31;

/// The nearest nodes met so far, at most as many as its capacity, in order of (rank, arrival).
///
/// An ordered array: for the few hundred candidates of a walk, moving some of them costs less than a
/// heap's branches, and the next node to follow is found at a cursor.
#[derive(Debug, Default)]
pub(super) struct Beam {
    entries: Vec<(f32, u32)>,
    capacity: usize,
    /// Every entry before it has been followed.
    cursor: usize,
}

impl Beam {
    /// Empties it for a walk that keeps `capacity` candidates (1 and up).
    pub fn begin(&mut self, capacity: usize) {
        self.entries.clear();
        self.capacity = capacity;
        self.cursor = 0;
    }

    /// True where a node of that rank would be kept.
    #[inline(always)]
    pub fn wants(&self, rank: f32) -> bool {
        self.entries.len() < self.capacity
            || self.entries.last().is_some_and(|(worst, _)| rank < *worst)
    }

    /// Offers a node that was not offered before.
    #[inline]
    pub fn offer(&mut self, rank: f32, id: u32) {
        if !self.wants(rank) {
            return;
        }
        if self.entries.len() == self.capacity {
            self.entries.pop();
        }
        let place = self.entries.partition_point(|(other, _)| *other <= rank);
        self.entries.insert(place, (rank, id));
        self.cursor = self.cursor.min(place);
    }

    /// The nearest node whose links have not been followed, which then counts as followed.
    #[inline]
    pub fn follow(&mut self) -> Option<u32> {
        while let Some((_, id)) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if *id & FOLLOWED == 0 {
                let next = *id;
                *id |= FOLLOWED;
                return Some(next);
            }
        }
        None
    }

    /// The nodes that [`Beam::follow`] would give now, unless some that are nearer come.
    #[inline]
    pub fn next(&self, count: usize) -> impl Iterator<Item = u32> {
        let rest = &self.entries[self.cursor.min(self.entries.len())..];
        rest.iter().map(|(_, id)| *id).filter(|id| id & FOLLOWED == 0).take(count)
    }

    /// All candidates as (rank, id), nearest first.
    pub fn nearest(&self) -> impl Iterator<Item = (f32, u32)> {
        self.entries.iter().map(|(rank, id)| (*rank, id & !FOLLOWED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_kept_in_order_and_each_is_followed_once() {
        let mut beam = Beam::default();
        beam.begin(3);
        beam.offer(5.0, 50);
        beam.offer(1.0, 10);
        assert!(beam.next(9).eq([10, 50]));
        assert_eq!(beam.follow(), Some(10));
        beam.offer(3.0, 30);
        beam.offer(2.0, 20);
        assert_eq!(beam.nearest().map(|(_, id)| id).collect::<Vec<_>>(), [10, 20, 30]);
        beam.offer(3.0, 31);
        assert!(beam.wants(2.9) && !beam.wants(3.0) && !beam.wants(f32::NAN));
        beam.offer(9.0, 90);
        beam.offer(f32::NAN, 7);
        assert_eq!(beam.nearest().map(|(_, id)| id).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!(beam.follow(), Some(20));
        beam.offer(0.5, 5);
        assert_eq!(beam.next(1).next(), Some(5));
        assert_eq!(beam.follow(), Some(5));
        assert_eq!(beam.next(1).next(), None);
        assert_eq!(beam.follow(), None);
        assert_eq!(beam.nearest().map(|(_, id)| id).collect::<Vec<_>>(), [5, 10, 20]);
        beam.begin(1);
        assert_eq!(beam.nearest().count(), 0);
    }
}
