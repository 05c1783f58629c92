//! Processor time for comparing queries that were asked with exact answers: a share of a core, divided evenly
//! among the collections that have something to measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Processor time that may be saved up.
const SAVED_MAX: Duration = Duration::from_secs(2);

/// The time of all collections.
#[derive(Debug)]
pub struct MeasuringTime {
    share: f64,
    /// Collections that have something to measure.
    sharers: AtomicU32,
}

impl MeasuringTime {
    /// That share of a core, from 0, which is none, to 1.
    pub fn new(share: f64) -> Self {
        MeasuringTime { share, sharers: AtomicU32::new(0) }
    }
}

/// The time of one collection.
#[derive(Debug)]
pub struct MeasuringBudget {
    of: Arc<MeasuringTime>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: Duration,
    seen: Instant,
    /// It is one of the sharers.
    shares: bool,
}

impl MeasuringBudget {
    /// For a collection that has nothing to measure yet.
    pub fn new(of: Arc<MeasuringTime>) -> Self {
        let state = State { left: SAVED_MAX, seen: Instant::now(), shares: false };
        MeasuringBudget { of, state: Mutex::new(state) }
    }

    /// False where there never is any time.
    pub fn is_given(&self) -> bool {
        self.of.share > 0.0
    }

    /// Adds what time has brought since the last call. Who has something to measure has as many others beside it
    /// as have, too.
    pub fn turn(&self, has_work: bool) {
        self.turn_at(has_work, Instant::now());
    }

    fn turn_at(&self, has_work: bool, now: Instant) {
        let mut state = self.state.lock();
        match (state.shares, has_work) {
            (false, true) => _ = self.of.sharers.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.of.sharers.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
        state.shares = has_work;
        let sharers = self.of.sharers.load(Ordering::Relaxed).max(1);
        let passed = now.saturating_duration_since(state.seen);
        state.seen = now;
        let brought = passed.mul_f64(self.of.share / f64::from(sharers));
        state.left = (state.left + brought).min(SAVED_MAX / sharers);
    }

    /// Takes off what was used.
    pub fn spend(&self, spent: Duration) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_sub(spent);
    }

    /// True where nothing is left for now.
    pub fn is_spent(&self) -> bool {
        self.state.lock().left.is_zero()
    }
}

impl Drop for MeasuringBudget {
    fn drop(&mut self) {
        self.turn(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_collections_together_have_their_share_of_a_core() {
        let time = Arc::new(MeasuringTime::new(0.01));
        let budgets: Vec<_> = (0..100).map(|_| MeasuringBudget::new(time.clone())).collect();
        let begun = Instant::now();
        let after = |seconds: u64| {
            let now = begun + Duration::from_secs(seconds);
            budgets.iter().for_each(|budget| budget.turn_at(true, now));
        };
        let spend_all = || {
            let spend = |budget: &MeasuringBudget| {
                let left = budget.state.lock().left;
                budget.spend(left);
                assert!(budget.is_spent());
                left
            };
            budgets.iter().map(spend).sum::<Duration>()
        };
        after(0);
        after(1);
        assert!(spend_all() <= SAVED_MAX, "what was saved is not there for each");
        after(101);
        let spent = spend_all().as_secs_f64();
        assert!((spent - 1.0).abs() < 0.01, "{spent} s of 100");
    }

    #[test]
    fn who_has_nothing_to_measure_leaves_its_time_to_others() {
        let time = Arc::new(MeasuringTime::new(0.5));
        let [one, other] = [(); 2].map(|()| MeasuringBudget::new(time.clone()));
        let begun = Instant::now();
        let gained = |seconds: u64| {
            one.spend(SAVED_MAX);
            one.turn_at(true, begun + Duration::from_secs(seconds));
            one.state.lock().left
        };
        gained(1);
        assert_eq!(gained(3), Duration::from_secs(1));
        other.turn_at(true, begun);
        assert_eq!(gained(5), Duration::from_millis(500));
        other.turn_at(false, begun);
        assert_eq!(gained(7), Duration::from_secs(1));
        other.turn_at(true, begun);
        drop(other);
        assert_eq!(gained(9), Duration::from_secs(1));
        assert!(
            one.is_given() && !MeasuringBudget::new(Arc::new(MeasuringTime::new(0.0))).is_given()
        );
    }
}
