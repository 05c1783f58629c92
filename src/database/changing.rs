//! Names whose collections are being created, altered or dropped: one change of a name at a time, and no
//! change waits for one of another name.

use std::collections::BTreeSet;

use parking_lot::{Condvar, Mutex};

/// The names that somebody changes.
#[derive(Debug, Default)]
pub(super) struct Changing {
    names: Mutex<BTreeSet<String>>,
    freed: Condvar,
}

/// Names that nobody else changes until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Claim<'a> {
    of: &'a Changing,
    names: BTreeSet<String>,
}

impl Changing {
    /// Waits until nobody changes any of these names, and takes them all at once.
    pub fn claim(&self, names: impl IntoIterator<Item = String>) -> Claim<'_> {
        let wanted: BTreeSet<String> = names.into_iter().collect();
        let mut names = self.names.lock();
        while wanted.iter().any(|name| names.contains(name)) {
            self.freed.wait(&mut names);
        }
        names.extend(wanted.iter().cloned());
        Claim { of: self, names: wanted }
    }

    /// Returns at a moment when no change is under way.
    pub fn wait_until_none(&self) {
        let mut names = self.names.lock();
        while !names.is_empty() {
            self.freed.wait(&mut names);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.of.names.lock().retain(|name| !self.names.contains(name));
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_change_waits_for_those_of_its_names_alone() {
        let changing = Changing::default();
        let first = changing.claim(names(&["a", "b"]));
        drop(changing.claim(names(&["c"])));
        let (taken, is_taken) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let claim = changing.claim(names(&["b", "d"]));
                taken.send(()).expect("the test waits");
                drop(claim);
            });
            is_taken.recv_timeout(Duration::from_millis(50)).expect_err("b is taken");
            // What is waited for with it stays free.
            drop(changing.claim(names(&["d"])));
            drop(first);
            is_taken.recv_timeout(Duration::from_secs(20)).expect("b is free");
        });
        changing.wait_until_none();
    }
}
