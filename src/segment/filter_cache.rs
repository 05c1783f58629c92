//! The rows that recent filters let through: callers ask with the same few filters again and again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::index::RowSet;

/// Filters remembered.
const FILTERS_MAX: usize = 16;

/// What recent filters let through of a segment whose values never change.
#[derive(Debug, Default)]
pub(super) struct FilterCache {
    /// By the words of the filter with its parameters; the one used last comes last.
    recent: Mutex<Vec<(Arc<str>, Arc<RowSet>)>>,
}

impl FilterCache {
    /// True where the rows of a filter are remembered.
    pub fn has(&self, filter: &str) -> bool {
        self.recent.lock().iter().any(|(known, _)| **known == *filter)
    }

    /// The rows of a filter, which `find` tells where they are not remembered.
    pub fn rows(&self, filter: &Arc<str>, find: impl FnOnce() -> RowSet) -> Arc<RowSet> {
        let mut recent = self.recent.lock();
        if let Some(place) = recent.iter().position(|(known, _)| known == filter) {
            recent[place..].rotate_left(1);
            return recent[recent.len() - 1].1.clone();
        }
        drop(recent);
        let found = Arc::new(find());
        let mut recent = self.recent.lock();
        // Whoever found them at the same time found the same.
        recent.retain(|(known, _)| known != filter);
        if recent.len() >= FILTERS_MAX {
            recent.remove(0);
        }
        recent.push((filter.clone(), found.clone()));
        found
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.recent.lock().iter().map(|(filter, rows)| filter.len() + rows.memory_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(row: u32) -> RowSet {
        RowSet::from_fn(100, |one| one == row)
    }

    #[test]
    fn the_filters_used_last_are_remembered_each_with_its_own_rows() {
        let cache = FilterCache::default();
        let name = |number: u32| -> Arc<str> { format!("n == {number}").into() };
        for number in 0..40 {
            assert_eq!(*cache.rows(&name(number), || set(number)), set(number));
            // Used again and again, the first is never forgotten.
            assert_eq!(*cache.rows(&name(0), || panic!("it is remembered")), set(0));
        }
        let remembered = (0..40).filter(|number| cache.has(&name(*number)));
        assert!(remembered.eq([0].into_iter().chain(25..40)));
        assert_eq!(*cache.rows(&name(1), || set(1)), set(1));
        assert!(cache.memory_bytes() >= FILTERS_MAX * 16);
    }
}
