//! A queue with two lanes, for threads that wait for work: what somebody waits for goes before what is
//! done in bulk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Which lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody waits for the answer.
    Search,
    /// Many pictures are to be embedded or written.
    Bulk,
}

/// The queue. It has no bound of its own: those who push hold permits.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    search: VecDeque<T>,
    bulk: VecDeque<T>,
    /// Announced, but not there yet: searches, and all.
    searches_coming: usize,
    coming: usize,
    closed: bool,
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<(Purpose, T)> {
        let search = self.search.pop_front().map(|work| (Purpose::Search, work));
        search.or_else(|| Some((Purpose::Bulk, self.bulk.pop_front()?)))
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let state = State {
            search: VecDeque::new(),
            bulk: VecDeque::new(),
            searches_coming: 0,
            coming: 0,
            closed: false,
        };
        Lanes { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Lanes<T> {
    /// Puts work in; gives it back when the queue is closed.
    pub(super) fn push(&self, purpose: Purpose, work: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(work);
        }
        match purpose {
            Purpose::Search => state.search.push_back(work),
            Purpose::Bulk => state.bulk.push_back(work),
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Announces work: until the guard is dropped, batches wait for it.
    pub(super) fn announce(self: &std::sync::Arc<Self>, purpose: Purpose) -> Coming<T> {
        let mut state = self.state.lock();
        state.coming += 1;
        state.searches_coming += usize::from(purpose == Purpose::Search);
        Coming { lanes: self.clone(), purpose }
    }

    /// The next work; waits for some. `None` when the queue is closed.
    pub(super) fn next(&self) -> Option<T> {
        self.first().map(|(_, work)| work)
    }

    fn first(&self) -> Option<(Purpose, T)> {
        let mut state = self.state.lock();
        loop {
            match state.pop() {
                Some(work) => return Some(work),
                None if state.closed => return None,
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// The next work and up to `most` altogether: waits for the first, and then at most `patience` as long as
    /// more is announced; with a search in it, as long as searches are. Empty when the queue is closed.
    pub(super) fn next_batch(&self, most: usize, patience: Duration) -> Vec<T> {
        let Some((mut purpose, first)) = self.first() else { return Vec::new() };
        let mut batch = vec![first];
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            while batch.len() < most
                && let Some((its, work)) = state.pop()
            {
                batch.push(work);
                if its == Purpose::Search {
                    purpose = its;
                }
            }
            let coming = match purpose {
                Purpose::Search => state.searches_coming,
                Purpose::Bulk => state.coming,
            };
            let is_done = batch.len() >= most || coming == 0 || state.closed;
            if is_done || self.changed.wait_until(&mut state, until).timed_out() {
                // A notice meant for another thread may have come here.
                self.changed.notify_one();
                return batch;
            }
        }
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        state.search.len() + state.bulk.len()
    }

    /// Ends the threads that wait, and drops what waits.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = (std::mem::take(&mut state.search), std::mem::take(&mut state.bulk));
        drop(state);
        drop(dropped);
        self.changed.notify_all();
    }
}

/// Work that was announced.
#[derive(Debug)]
pub(super) struct Coming<T> {
    lanes: std::sync::Arc<Lanes<T>>,
    purpose: Purpose,
}

impl<T> Drop for Coming<T> {
    fn drop(&mut self) {
        let mut state = self.lanes.state.lock();
        state.coming -= 1;
        let is_search = self.purpose == Purpose::Search;
        state.searches_coming -= usize::from(is_search);
        let is_last = state.coming == 0 || (is_search && state.searches_coming == 0);
        drop(state);
        if is_last {
            self.lanes.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn searches_go_before_bulk_and_each_lane_keeps_its_order() {
        let lanes = Lanes::default();
        for (purpose, work) in
            [(Purpose::Bulk, 1), (Purpose::Bulk, 2), (Purpose::Search, 3), (Purpose::Search, 4)]
        {
            lanes.push(purpose, work).expect("it is open");
        }
        assert_eq!(lanes.len(), 4);
        assert_eq!(lanes.next_batch(3, LONG), [3, 4, 1]);
        assert_eq!(lanes.next(), Some(2));
    }

    #[test]
    fn a_batch_waits_for_what_is_announced_and_for_nothing_else() {
        let lanes = Arc::new(Lanes::default());
        lanes.push(Purpose::Bulk, 1).expect("it is open");
        assert_eq!(lanes.next_batch(8, LONG), [1], "nothing is coming");
        let coming = lanes.announce(Purpose::Bulk);
        lanes.push(Purpose::Bulk, 2).expect("it is open");
        let waiting = thread::spawn({
            let lanes = lanes.clone();
            move || lanes.next_batch(8, LONG)
        });
        while lanes.len() > 0 {
            thread::yield_now();
        }
        lanes.push(Purpose::Search, 3).expect("it is open");
        drop(coming);
        assert_eq!(waiting.join().expect("no panic"), [2, 3]);
        let _coming = lanes.announce(Purpose::Bulk);
        lanes.push(Purpose::Bulk, 4).expect("it is open");
        assert_eq!(lanes.next_batch(8, Duration::ZERO), [4], "patience has an end");
        lanes.push(Purpose::Search, 5).expect("it is open");
        assert_eq!(lanes.next_batch(8, LONG), [5], "a search waits for no bulk");
        let search = lanes.announce(Purpose::Search);
        lanes.push(Purpose::Search, 6).expect("it is open");
        let waiting = thread::spawn({
            let lanes = lanes.clone();
            move || lanes.next_batch(8, LONG)
        });
        while lanes.len() > 0 {
            thread::yield_now();
        }
        drop(search);
        assert_eq!(waiting.join().expect("no panic"), [6]);
    }

    #[test]
    fn a_closed_queue_ends_its_threads_and_takes_nothing() {
        let lanes: Arc<Lanes<u8>> = Arc::default();
        let waiting = thread::spawn({
            let lanes = lanes.clone();
            move || lanes.next()
        });
        lanes.close();
        assert_eq!(waiting.join().expect("no panic"), None);
        assert_eq!(lanes.push(Purpose::Search, 1), Err(1));
        assert!(lanes.next_batch(3, LONG).is_empty());
    }
}
