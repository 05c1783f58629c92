//! Lanes of background work: what a collection has under way at most once at a time.

use parking_lot::{Condvar, Mutex};

/// Where a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Run {
    /// There is none.
    #[default]
    None,
    /// It waits for a thread.
    Queued,
    /// It is under way.
    UnderWay,
}

/// One lane of background work: at most one run at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    run: Mutex<Run>,
    changed: Condvar,
}

impl Lane {
    /// True for exactly one caller until [`Lane::unschedule`]; the run is then queued.
    pub fn schedule(&self) -> bool {
        let mut run = self.run.lock();
        let is_free = *run == Run::None;
        if is_free {
            *run = Run::Queued;
        }
        is_free
    }

    /// Says that the queued run begins, or, where it should not any more, that it is over: false.
    pub fn begin(&self, is_stopping: impl FnOnce() -> bool) -> bool {
        let mut run = self.run.lock();
        // Looked at under the lock: whoever sets it then waits for the lane sees this run or ends it.
        let begins = !is_stopping();
        *run = if begins { Run::UnderWay } else { Run::None };
        self.changed.notify_all();
        begins
    }

    /// Says that the run is over.
    pub fn unschedule(&self) {
        *self.run.lock() = Run::None;
        self.changed.notify_all();
    }

    /// True when no run is queued or under way.
    pub fn is_idle(&self) -> bool {
        *self.run.lock() == Run::None
    }

    /// Returns when no run is queued or under way.
    pub fn wait_until_idle(&self) {
        let mut run = self.run.lock();
        while *run != Run::None {
            self.changed.wait(&mut run);
        }
    }

    /// Returns when no run is under way. One that is queued may wait for those of other collections; it
    /// does nothing where background work has been told to end before this is called.
    pub fn wait_until_stopped(&self) {
        let mut run = self.run.lock();
        while *run == Run::UnderWay {
            self.changed.wait(&mut run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_run_keeps_nobody_waiting_and_ends_before_it_begins() {
        let lane = Lane::default();
        assert!(lane.schedule() && !lane.schedule() && !lane.is_idle());
        lane.wait_until_stopped();
        assert!(!lane.begin(|| true), "it was told to end");
        assert!(lane.is_idle() && lane.schedule() && lane.begin(|| false) && !lane.schedule());
        lane.unschedule();
        lane.wait_until_idle();
    }
}
