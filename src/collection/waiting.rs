//! Telling rows that wait for an index from those that stay without one, and waiting for the former.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::compaction::{Policy, SegmentFacts};
use super::snapshot::Snapshot;
use super::{Collection, STILL_ROWS_MIN};
use crate::schema::IndexKind;
use crate::segment::GrowingView;

/// The growing segment among the sealed ones, which never get so far.
const GROWING: u32 = u32::MAX;

/// While this is held, what waits is treated as if nothing were being written.
#[derive(Debug)]
pub struct Hurry(Arc<Collection>);

impl Hurry {
    /// The collection.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.0
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.waiting_callers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Collection {
    /// Begins at once what would begin when nothing is written any more: rows that would get an index by
    /// being sealed are sealed, however few, and what waits is merged. Takes the writer for a moment.
    pub fn hurry(self: &Arc<Self>) -> Hurry {
        self.waiting_callers.fetch_add(1, Ordering::Relaxed);
        let hurry = Hurry(self.clone());
        if self.is_stopping() {
            return hurry;
        }
        if self.gains_by_sealing() {
            let mut writer = self.writer.lock();
            let sequence = writer.sequence();
            if writer.failure().is_none() && writer.state.growing.rows() > 0 {
                writer.state.freeze(sequence);
                writer.log_bytes_at_freeze = writer.log.bytes();
                writer.publish(&self.published);
            }
        }
        // Also of what was frozen before: the seal may have failed.
        if !self.published.snapshot().frozen.is_empty() {
            self.schedule_seal();
        }
        if self.next_merge().is_some() || self.lacks_cells() {
            self.schedule_merge();
        }
        hurry
    }

    /// True while somebody waits for rows to be indexed.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting_callers.load(Ordering::Relaxed) > 0
    }

    /// True where no work is due or under way, nor will be while nothing is written, for an hour.
    pub(super) fn is_settled(&self, snapshot: &Snapshot) -> bool {
        // What cannot be paid for stays as it is until more is written, or an hour has passed.
        let policy = Policy { is_still: true, removal_before: 0, ..self.policy() };
        snapshot.frozen.is_empty()
            && self.vectors_of(&snapshot.growing) < STILL_ROWS_MIN
            && self.seal_lane.is_idle()
            && self.merge_lane.is_idle()
            && policy.next_merge(&self.facts(snapshot)).is_none()
            && !self.lacks_cells()
    }

    /// True where live rows of the growing segment would get an index were it sealed.
    fn gains_by_sealing(&self) -> bool {
        let snapshot = self.published.snapshot();
        let growing = &snapshot.growing;
        let rows = u64::from(growing.rows);
        let facts = SegmentFacts {
            id: GROWING,
            rows,
            vectors: self.vectors_of(growing),
            deleted: growing.deleted().min(rows),
            has_index: false,
            rows_bytes: growing.bytes,
        };
        if facts.deleted == rows || self.policy().index_rows_min.is_none() {
            return false;
        }
        // Those that wait to be sealed come before it.
        let frozen = snapshot.frozen.iter().enumerate().map(|(place, view)| SegmentFacts {
            id: GROWING - 1 - place as u32,
            rows: u64::from(view.rows),
            vectors: self.vectors_of(view),
            deleted: view.deleted().min(view.rows.into()),
            has_index: false,
            rows_bytes: view.bytes,
        });
        let mut all = self.facts(&snapshot);
        all.extend(frozen);
        all.push(facts);
        let mut policy = self.policy();
        policy.is_still = true;
        let has_it = |sources: Vec<u32>| sources.contains(&GROWING);
        facts.vectors >= STILL_ROWS_MIN
            || policy.next_merge(&all).is_some_and(|job| has_it(job.sources))
    }

    /// Vectors of the column of a growing segment that has most, of those that have indexes, and as many as
    /// rows at least.
    fn vectors_of(&self, view: &GrowingView) -> u64 {
        let columns = self.schema.columns.iter().enumerate();
        let columns = columns.filter(|(_, column)| column.index != IndexKind::Flat);
        columns.map(|(place, _)| view.vectors(place)).fold(view.rows.into(), u64::max)
    }
}
