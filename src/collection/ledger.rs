//! What may be written anew: an account of the bytes that callers wrote and of those that were written for
//! them, so that all of what maintenance rewrites is a bounded multiple of what came.
//!
//! Two purses, each with what new bytes earn and a little that time brings:
//!
//! - *joins* pay for fewer and larger segments, and for the log and the sealing too. What is not used by
//!   the time all is in order is given up: old rows do not pay for being written again for a few new ones.
//! - *removal* pays for segments to be rewritten without their deleted rows when it is quiet. Rows bring
//!   what their removal will take, and it is kept until then.
//!
//! An hour after the last write, whatever is left to do is done at any cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::compaction::Budget;

/// Bytes that may be written in all, without removal, for each that came.
const JOINS_RATIO: u64 = 6;
/// Bytes that removal may write for each that came.
const REMOVAL_RATIO: u64 = 2;
/// What joins have beyond that; half of it comes back in an hour.
const JOINS_SPARE: u64 = 4 << 20;
/// What removal has beyond that; half of it comes back in an hour.
const REMOVAL_SPARE: u64 = 64 << 20;
/// The time that brings half of what is spare, and without a write after which nothing is spared.
const HOUR: Duration = Duration::from_secs(3_600);
/// The time between two looks at the clock, at least.
const LOOK: Duration = Duration::from_secs(1);

/// What a collection wrote since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenReport {
    /// Bytes of what callers wrote: keys, vectors, forward values.
    pub asked: u64,
    /// Bytes written for it: log, segments, marks of deleted rows, manifests, forward values.
    pub written: u64,
}

/// A purse: what was earned, below 0 where more was spent, and what is spare.
#[derive(Debug, Clone, Copy)]
struct Purse {
    earned: i64,
    spare: u64,
    spare_max: u64,
}

impl Purse {
    fn new(spare_max: u64) -> Self {
        Purse { earned: 0, spare: spare_max, spare_max }
    }

    fn earn(&mut self, bytes: u64) {
        self.earned = self.earned.saturating_add_unsigned(bytes);
    }

    /// What was not earned is taken from what is spare, and what that does not have is owed.
    fn spend(&mut self, bytes: u64) {
        self.earned = self.earned.saturating_sub_unsigned(bytes);
        let taken = self.spare.min(self.earned.min(0).unsigned_abs());
        self.spare -= taken;
        self.earned = self.earned.saturating_add_unsigned(taken);
    }

    fn refill(&mut self, elapsed: Duration) {
        let share = elapsed.min(HOUR).as_secs_f64() / HOUR.as_secs_f64();
        let refilled = self.spare + (self.spare_max as f64 / 2.0 * share) as u64;
        self.spare = refilled.min(self.spare_max);
    }

    fn left(&self) -> u64 {
        self.spare.saturating_add_signed(self.earned)
    }
}

/// The account by itself, without clock and counters.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    joins: Purse,
    removal: Purse,
    seen: WrittenReport,
    /// Rows when all was in order for the last time.
    ordered_rows: u64,
}

impl Account {
    /// An account of a collection of which so many rows are in order.
    pub fn new(ordered_rows: u64) -> Self {
        Account {
            joins: Purse::new(JOINS_SPARE),
            removal: Purse::new(REMOVAL_SPARE),
            seen: WrittenReport::default(),
            ordered_rows,
        }
    }

    /// Brings in what was written since the last time, and what time brought.
    pub fn see(&mut self, report: WrittenReport, elapsed: Duration) {
        let asked = report.asked.saturating_sub(self.seen.asked);
        let written = report.written.saturating_sub(self.seen.written);
        self.seen = report;
        self.joins.refill(elapsed);
        self.removal.refill(elapsed);
        self.joins.earn(asked.saturating_mul(JOINS_RATIO));
        self.joins.spend(written);
        self.removal.earn(asked.saturating_mul(REMOVAL_RATIO));
    }

    /// A removal wrote so many bytes, which are seen next. What its purse does not have is left to the other.
    pub fn removed(&mut self, bytes: u64) {
        let paid = bytes.min(self.removal.left());
        self.removal.spend(paid);
        self.joins.earn(paid);
    }

    /// All is in order, with so many rows.
    pub fn in_order(&mut self, rows: u64) {
        self.joins.earned = self.joins.earned.min(0);
        self.ordered_rows = rows;
    }

    /// What merges of a collection of so many rows may cost, when nothing was written for so long.
    pub fn budget(&self, rows: u64, unwritten: Duration) -> Budget {
        if unwritten >= HOUR {
            return Budget::UNBOUNDED;
        }
        Budget {
            joins: self.joins.left(),
            removal: self.removal.left(),
            is_first_order: rows > 0 && rows / 16 >= self.ordered_rows,
        }
    }
}

/// The account of an open collection.
#[derive(Debug)]
pub struct Ledger {
    asked: AtomicU64,
    /// Counted by the collection's disk and its part of the forward store.
    written: [Arc<AtomicU64>; 2],
    account: Mutex<(Account, Instant)>,
}

impl Ledger {
    /// A ledger over these counters.
    pub fn new(written: [Arc<AtomicU64>; 2], ordered_rows: u64) -> Self {
        let account = Mutex::new((Account::new(ordered_rows), Instant::now()));
        Ledger { asked: AtomicU64::new(0), written, account }
    }

    /// Callers have written so many bytes in all.
    pub fn asked(&self, bytes: u64) {
        self.asked.store(bytes, Ordering::Relaxed);
    }

    /// What was written so far.
    pub fn report(&self) -> WrittenReport {
        WrittenReport {
            asked: self.asked.load(Ordering::Relaxed),
            written: self.written.iter().map(|part| part.load(Ordering::Relaxed)).sum(),
        }
    }

    /// The account with all that was written. What a short time brings would be rounded away, and waits.
    fn current(&self) -> MutexGuard<'_, (Account, Instant)> {
        let report = self.report();
        let mut account = self.account.lock();
        let elapsed = account.1.elapsed();
        let elapsed = if elapsed < LOOK { Duration::ZERO } else { elapsed };
        account.1 += elapsed;
        account.0.see(report, elapsed);
        account
    }

    /// What merges may cost now.
    pub fn budget(&self, rows: u64, unwritten: Duration) -> Budget {
        self.current().0.budget(rows, unwritten)
    }

    /// A removal wrote so many bytes.
    pub fn removed(&self, bytes: u64) {
        self.account.lock().0.removed(bytes);
    }

    /// All is in order, with so many rows.
    pub fn in_order(&self, rows: u64) {
        self.current().0.in_order(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn report(asked: u64, written: u64) -> WrittenReport {
        WrittenReport { asked: asked * MIB, written: written * MIB }
    }

    fn joins(account: &Account) -> u64 {
        account.budget(1_000, Duration::ZERO).joins / MIB
    }

    fn removal(account: &Account) -> u64 {
        account.budget(1_000, Duration::ZERO).removal / MIB
    }

    #[test]
    fn joins_spend_what_came_since_all_was_in_order() {
        let mut account = Account::new(1_000);
        account.see(report(100, 200), Duration::ZERO);
        assert_eq!((joins(&account), removal(&account)), (400 + 4, 200 + 64));
        account.in_order(1_000);
        assert_eq!((joins(&account), removal(&account)), (4, 264), "removal keeps what it has");
        account.see(report(101, 202), Duration::ZERO);
        assert_eq!(joins(&account), 4 + 4);
        account.see(report(101, 222), Duration::ZERO);
        assert_eq!(joins(&account), 0, "all is spent, and 12 MiB are owed");
        account.see(report(104, 225), Duration::ZERO);
        assert_eq!(joins(&account), 3);
    }

    #[test]
    fn removal_has_a_purse_of_its_own() {
        let mut account = Account::new(1_000);
        account.removed(50 * MIB);
        account.see(report(0, 50), Duration::ZERO);
        assert_eq!((joins(&account), removal(&account)), (4, 14));
        account.see(report(0, 50), HOUR);
        assert_eq!((joins(&account), removal(&account)), (4, 46), "half comes back in an hour");
        // What it does not have, joins have to pay.
        account.see(report(100, 150), Duration::ZERO);
        account.removed(346 * MIB);
        account.see(report(100, 496), Duration::ZERO);
        assert_eq!((joins(&account), removal(&account)), (400 + 4, 0));
    }

    #[test]
    fn what_is_new_is_put_in_order_and_after_an_hour_everything_is() {
        let account = Account::new(1_000);
        let is_first = |rows| account.budget(rows, Duration::ZERO).is_first_order;
        assert!(!is_first(15_000) && is_first(16_000));
        assert!(Account::new(0).budget(1, Duration::ZERO).is_first_order);
        assert_eq!(account.budget(1_000, HOUR), Budget::UNBOUNDED);
    }
}
