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
    /// Announced, but not there yet.
    coming: usize,
    closed: bool,
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<T> {
        self.search.pop_front().or_else(|| self.bulk.pop_front())
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let state =
            State { search: VecDeque::new(), bulk: VecDeque::new(), coming: 0, closed: false };
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
    pub(super) fn announce(self: &std::sync::Arc<Self>) -> Coming<T> {
        self.state.lock().coming += 1;
        Coming(self.clone())
    }

    /// The next work; waits for some. `None` when the queue is closed.
    pub(super) fn next(&self) -> Option<T> {
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
    /// more is announced. Empty when the queue is closed.
    pub(super) fn next_batch(&self, most: usize, patience: Duration) -> Vec<T> {
        let Some(first) = self.next() else { return Vec::new() };
        let mut batch = vec![first];
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            while batch.len() < most
                && let Some(work) = state.pop()
            {
                batch.push(work);
            }
            let is_done = batch.len() >= most || state.coming == 0 || state.closed;
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
pub(super) struct Coming<T>(std::sync::Arc<Lanes<T>>);

impl<T> Drop for Coming<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.coming -= 1;
        let is_last = state.coming == 0;
        drop(state);
        if is_last {
            self.0.changed.notify_all();
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
        let coming = lanes.announce();
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
        let _coming = lanes.announce();
        lanes.push(Purpose::Bulk, 4).expect("it is open");
        assert_eq!(lanes.next_batch(8, Duration::ZERO), [4], "patience has an end");
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
