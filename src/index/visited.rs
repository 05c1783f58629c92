//! Which nodes a graph walk has met.

/// A set of node ids that is emptied in the time of what it holds, so that a walk through a large
/// graph pays for the nodes it meets and not for those it does not.
#[derive(Debug, Default)]
pub(super) struct Visited {
    bits: Vec<u64>,
    ids: Vec<u32>,
}

impl Visited {
    /// Empties it and makes room for ids below `bound`.
    pub fn begin(&mut self, bound: usize) {
        for id in self.ids.drain(..) {
            self.bits[id as usize / 64] = 0;
        }
        let words = bound.div_ceil(64);
        if self.bits.len() < words {
            self.bits.resize(words, 0);
        }
    }

    /// Adds an id below the bound. False when it was there.
    #[inline]
    pub fn insert(&mut self, id: u32) -> bool {
        let word = &mut self.bits[id as usize / 64];
        let bit = 1 << (id % 64);
        let is_new = *word & bit == 0;
        if is_new {
            *word |= bit;
            self.ids.push(id);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_it_held_and_grows() {
        let mut visited = Visited::default();
        visited.begin(100);
        assert!(visited.insert(99) && visited.insert(0) && !visited.insert(99));
        visited.begin(1_000);
        assert!(visited.insert(99) && visited.insert(999) && !visited.insert(999));
        visited.begin(10);
        assert!(visited.insert(9));
    }
}
