//! Nodes with identical vectors. Links to copies lead nowhere: a node whose nearest are copies of one
//! another has no links left for the rest, and a walk that keeps copies sees nothing else. So the first of
//! them stands for all in a graph, and whoever finds it has found them all.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};
use rayon::prelude::*;

use super::space::Vectors;

/// The nodes of an index that have copies, group by group.
#[derive(Debug)]
pub struct Copies {
    /// The group of each node that is in one.
    group_of: HashMap<u32, u32>,
    /// Where each group's members begin, and where the last one's end.
    starts: Vec<u32>,
    members: Vec<u32>,
}

impl Copies {
    /// Finds the nodes with identical vectors, byte by byte. `None` where there are none.
    pub fn of(vectors: &impl Vectors) -> Option<Copies> {
        let hasher = DefaultHashBuilder::default();
        let hash = |node: u32| (hasher.hash_one(vectors.vector(node)), node);
        let mut hashes: Vec<(u64, u32)> =
            (0..vectors.count() as u32).into_par_iter().with_min_len(4_096).map(hash).collect();
        hashes.par_sort_unstable();
        let mut copies = Copies { group_of: HashMap::new(), starts: vec![0], members: Vec::new() };
        for run in hashes.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
            // Equal hashes are nearly always of equal vectors.
            let mut left: Vec<u32> = run.iter().map(|(_, node)| *node).collect();
            while let Some(first) = left.first().copied() {
                let same = |node: &u32| vectors.vector(*node) == vectors.vector(first);
                let (group, others): (Vec<u32>, Vec<u32>) = left.into_iter().partition(same);
                copies.add(&group);
                left = others;
            }
        }
        (!copies.members.is_empty()).then_some(copies)
    }

    fn add(&mut self, group: &[u32]) {
        if group.len() > 1 {
            let number = self.starts.len() as u32 - 1;
            self.group_of.extend(group.iter().map(|node| (*node, number)));
            self.members.extend_from_slice(group);
            self.starts.push(self.members.len() as u32);
        }
    }

    /// Puts the members of each group in another order than that of their numbers.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl Fn(u32) -> K) {
        for group in 0..self.starts.len() - 1 {
            let members = self.starts[group] as usize..self.starts[group + 1] as usize;
            self.members[members].sort_by_cached_key(|node| key(*node));
        }
    }

    /// The group that a node is in.
    #[inline]
    pub fn group(&self, node: u32) -> Option<u32> {
        self.group_of.get(&node).copied()
    }

    /// All nodes of a group.
    pub fn members(&self, group: u32) -> &[u32] {
        let at = |place: u32| self.starts.get(place as usize).map_or(0, |start| *start as usize);
        self.members.get(at(group)..at(group + 1)).unwrap_or_default()
    }

    /// The node that stands for this one in a graph, where that is another one: the first of its copies.
    pub fn leader(&self, node: u32) -> Option<u32> {
        let leader = self.members(self.group(node)?).iter().copied().min()?;
        (leader != node).then_some(leader)
    }

    /// The nodes that others stand for, with these.
    pub fn followers(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.starts.len() as u32 - 1).flat_map(|group| {
            let members = self.members(group);
            let leader = members.iter().copied().min().unwrap_or_default();
            members.iter().filter(move |node| **node != leader).map(move |node| (*node, leader))
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        (2 * self.group_of.capacity() + self.starts.capacity() + self.members.capacity())
            * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_identical_vectors_stands_for_all() {
        let rows = [1u8, 2, 1, 3, 2, 1, 4].map(|byte| vec![byte; 40]);
        let mut copies = Copies::of(&&rows[..]).expect("there are copies");
        let leaders: Vec<Option<u32>> = (0..7).map(|node| copies.leader(node)).collect();
        assert_eq!(leaders, [None, None, Some(0), None, Some(1), Some(0), None]);
        let mut followers: Vec<_> = copies.followers().collect();
        followers.sort_unstable();
        assert_eq!(followers, [(2, 0), (4, 1), (5, 0)]);
        copies.sort_by_key(std::cmp::Reverse);
        let group = copies.group(0).expect("it has copies");
        assert_eq!(copies.members(group), [5, 2, 0]);
        assert_eq!(copies.leader(5), Some(0));
        assert_eq!((copies.group(3), copies.members(99)), (None, &[][..]));
        assert!(Copies::of(&&[vec![1], vec![2]][..]).is_none());
    }
}
