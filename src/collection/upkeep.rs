//! What is done once it is quiet: rows that were deleted, replaced or expired leave the growing segment, the
//! log, the sealed segments and the forward store, and what that frees is given back to the system.
//!
//! A *sweep* begins when no caller has written for `segment.quiet_ms`. It seals the growing segment without
//! its deleted rows, however few are left, begins a new log file, so that the one before goes, and has every
//! segment rewritten that was there and has deleted rows, as far as the [`Ledger`](super::ledger::Ledger)
//! pays for it. Once nothing is left to do, the forward store is renewed where that is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Collection;
use super::compaction::{Budget, Policy};
use super::writer::Writer;
use crate::native::{empty_thread_cache, give_back_memory};

impl Collection {
    /// Time without a write of a caller, at the last look.
    pub(super) fn unwritten(&self) -> Duration {
        Duration::from_millis(self.unwritten_ms.load(Ordering::Relaxed))
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.unwritten() >= self.quiet_time()
    }

    fn quiet_time(&self) -> Duration {
        Duration::from_millis(self.config.segment.quiet_ms)
    }

    /// Begins a sweep where one is due, and tells so.
    pub(super) fn begin_sweep(&self, writer: &mut Writer) -> bool {
        let unwritten = writer.written_at.elapsed();
        let milliseconds = u64::try_from(unwritten.as_millis()).unwrap_or(u64::MAX);
        self.unwritten_ms.store(milliseconds, Ordering::Relaxed);
        let has_deleted = || writer.sealed.iter().any(|sealed| sealed.tombstones.deleted() > 0);
        let is_due = unwritten >= self.quiet_time()
            && writer.swept_at.elapsed() >= self.quiet_time()
            && (writer.state.has_removed || has_deleted());
        if !is_due || writer.failure().is_some() || !writer.state.frozen.is_empty() {
            return false;
        }
        writer.swept_at = Instant::now();
        if std::mem::take(&mut writer.state.has_removed) {
            let sequence = writer.sequence();
            writer.state.freeze(sequence);
            writer.log_bytes_at_freeze = writer.log.bytes();
            writer.ends_log_file = true;
            writer.publish(&self.published);
        }
        true
    }

    /// The segments that there are now are to lose their deleted rows.
    pub(super) fn sweep_segments(&self) {
        let next_id = self.manifest.lock().next_segment_id;
        self.swept_before.store(next_id, Ordering::Relaxed);
    }

    /// Segments below this id lose their deleted rows, as long as it is quiet.
    pub(super) fn removal_before(&self) -> u32 {
        match self.is_quiet() {
            true => self.swept_before.load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// When nothing is being sealed or merged: whether that is because all is in order; and what comes after.
    pub(super) fn rest(self: &Arc<Self>) {
        let ordered = Policy { removal_before: 0, budget: Budget::UNBOUNDED, ..self.policy() };
        if self.is_still.load(Ordering::Relaxed) && self.next_merge_by(&ordered).is_none() {
            self.ledger.in_order(self.published.snapshot().live_rows());
        }
        if self.is_quiet() && self.context.forward.is_renewal_due() {
            let collection = self.clone();
            self.compute.spawn_seal(move || {
                collection.context.forward.renew_if_due();
                collection.has_freed.store(true, Ordering::Relaxed);
            });
        } else if self.is_quiet() && self.has_freed.swap(false, Ordering::Relaxed) {
            let collection = self.clone();
            self.compute.spawn_seal(move || {
                collection.published.shrink_keys();
                collection.compute.spawn_everywhere(empty_thread_cache);
                give_back_memory();
            });
        }
    }

    /// Forward values that the store lost, or gave up to be renewed, are filled in again behind the queries,
    /// which until then read them from the segments' files.
    pub(super) fn restore_forward_store(self: &Arc<Self>) {
        let snapshot = self.published.snapshot();
        let lacks = snapshot.sealed.iter().any(|sealed| sealed.lacks_forward_store());
        if !lacks || self.is_filling.swap(true, Ordering::SeqCst) {
            return;
        }
        let collection = self.clone();
        self.compute.spawn_seal(move || {
            let written = collection.context.forward.written();
            let before = written.load(Ordering::Relaxed);
            for sealed in &snapshot.sealed {
                if collection.is_stopping() {
                    break;
                }
                sealed.fill_forward_store();
            }
            collection.ledger.removed(written.load(Ordering::Relaxed) - before);
            collection.is_filling.store(false, Ordering::SeqCst);
        });
    }
}
