//! Merges of several collections, side by side: a few places, each with threads of its own to build
//! with, so that no merge waits for another's, and one place more that only short ones take.
//!
//! A rayon pool would not do: what its own threads queue goes before what others queue, so that a
//! collection with many merges would keep the others waiting; and work that one merge spreads over it
//! runs after what another has spread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rayon::ThreadPool;

use super::{pool, yield_to_others};
use crate::error::{Error, Result};

/// Merges that run side by side, at least and at most; within that, as many as there are threads.
const PLACES: (usize, usize) = (2, 4);

/// Given the threads to build with, and whether the place is kept for short ones.
type Merge = Box<dyn FnOnce(&ThreadPool, bool) + Send>;

#[derive(Default)]
struct Waiting {
    /// In the order they came, each with whether it is short.
    merges: VecDeque<(bool, Merge)>,
    is_closed: bool,
}

impl Waiting {
    /// The first that a place may take.
    fn take(&mut self, only_short: bool) -> Option<Merge> {
        let place = self.merges.iter().position(|(is_short, _)| *is_short || !only_short)?;
        self.merges.remove(place).map(|(_, merge)| merge)
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Queue {
    /// Waits for the next; `None` when there will be none.
    fn next(&self, only_short: bool) -> Option<Merge> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(merge) = waiting.take(only_short) {
                return Some(merge);
            }
            if waiting.is_closed {
                return None;
            }
            self.wake.wait(&mut waiting);
        }
    }
}

/// The places, and what waits for one.
pub(super) struct Merges(Arc<Queue>);

impl std::fmt::Debug for Merges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merges").field("waiting", &self.0.waiting.lock().merges.len()).finish()
    }
}

impl Merges {
    /// Starts the places. Each builds with `build_threads` threads, and with those of `shared` where the
    /// system gives it none.
    pub fn start(build_threads: usize, shared: Arc<ThreadPool>) -> Result<Self> {
        let merges = Merges(Arc::default());
        let places = build_threads.clamp(PLACES.0, PLACES.1);
        for place in 0..=places {
            let only_short = place == places;
            let count = if only_short { build_threads.div_ceil(2) } else { build_threads };
            let (queue, shared) = (merges.0.clone(), shared.clone());
            let name = if only_short { "merge-short".into() } else { format!("merge-{place}") };
            let run = move || {
                yield_to_others(0);
                serve(&queue, only_short, count, &shared);
            };
            let started = std::thread::Builder::new().name(name).spawn(run);
            started.map_err(|e| Error::internal(format!("a merge thread cannot start: {e}")))?;
        }
        Ok(merges)
    }

    pub fn queue(&self, is_short: bool, merge: Merge) {
        self.0.waiting.lock().merges.push_back((is_short, merge));
        // Whoever is woken may not be one that takes it.
        self.0.wake.notify_all();
    }
}

impl Drop for Merges {
    fn drop(&mut self) {
        self.0.waiting.lock().is_closed = true;
        self.0.wake.notify_all();
    }
}

/// Runs what a place may take, one after the other.
fn serve(queue: &Queue, only_short: bool, count: usize, shared: &ThreadPool) {
    // Made when first wanted: many servers never have so many merges at a time.
    let mut own: Option<ThreadPool> = None;
    while let Some(merge) = queue.next(only_short) {
        if own.is_none() {
            own = match pool("build", count, yield_to_others) {
                Ok(pool) => Some(pool),
                Err(error) => {
                    tracing::warn!(%error, "a merge builds with the threads of others");
                    None
                }
            };
        }
        let threads = own.as_ref().unwrap_or(shared);
        if catch_unwind(AssertUnwindSafe(|| merge(threads, only_short))).is_err() {
            // As in the other pools: what the panic left half done must not be used.
            tracing::error!("a merge panicked");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn started(threads: usize) -> Merges {
        let shared = Arc::new(pool("test", 1, |_| ()).expect("threads"));
        Merges::start(threads, shared).expect("threads")
    }

    #[test]
    fn merges_run_side_by_side_and_a_short_one_waits_for_no_long_one() {
        let merges = started(1);
        let ((begun, begins), (ended, ends)) = (channel(), channel());
        let mut gates = Vec::new();
        for place in 0..3 {
            let (gate, opened) = channel::<()>();
            gates.push(gate);
            let (begun, ended) = (begun.clone(), ended.clone());
            let run = move |_: &ThreadPool, only_short: bool| {
                assert!(!only_short);
                begun.send(place).expect("the test waits");
                // It ends when its gate does.
                let _ = opened.recv();
                // Nobody listens any more where the test is over: a panic would end the process.
                let _ = ended.send(place);
            };
            merges.queue(false, Box::new(run));
        }
        let mut running: Vec<u32> =
            (0..2).map(|_| begins.recv_timeout(PATIENCE).expect("two run at a time")).collect();
        running.sort_unstable();
        assert_eq!(running, [0, 1]);
        let (done, is_done) = channel();
        let run = move |_: &ThreadPool, only_short: bool| done.send(only_short).expect("waits");
        merges.queue(true, Box::new(run));
        assert_eq!(is_done.recv_timeout(PATIENCE), Ok(true), "it overtakes the third");
        assert!(begins.try_recv().is_err(), "the third waits for a place");
        gates.remove(0);
        assert_eq!(ends.recv_timeout(PATIENCE), Ok(0));
        assert_eq!(begins.recv_timeout(PATIENCE), Ok(2));
    }

    #[test]
    fn a_merge_that_is_queued_from_within_one_comes_after_those_that_wait() {
        let merges = Arc::new(started(1));
        let (done, order) = channel();
        // Both places are taken until all are queued.
        let gates: Vec<_> = (0..2)
            .map(|_| {
                let (gate, opened) = channel::<()>();
                let (again, done) = (merges.clone(), done.clone());
                let run = move |_: &ThreadPool, _: bool| {
                    let _ = opened.recv();
                    let done = done.clone();
                    let run = move |_: &ThreadPool, _: bool| done.send("again").expect("waits");
                    again.queue(false, Box::new(run));
                };
                merges.queue(false, Box::new(run));
                gate
            })
            .collect();
        for _ in 0..3 {
            let done = done.clone();
            let run = move |_: &ThreadPool, _: bool| done.send("waiting").expect("waits");
            merges.queue(false, Box::new(run));
        }
        drop(gates);
        let order: Vec<&str> =
            (0..5).map(|_| order.recv_timeout(PATIENCE).expect("all run")).collect();
        assert_eq!(order.iter().filter(|one| **one == "waiting").count(), 3);
        assert_eq!(order[0], "waiting", "{order:?}");
    }
}
