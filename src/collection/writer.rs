//! The single writer of a collection: requests wait in a bounded queue, and whoever runs the writer
//! takes all that wait, checks their keys, logs them with one commit, applies and publishes them, and
//! only then answers. A request is in the queue whole or not at all, so a caller who hangs up changes
//! nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::expiry::Expiry;
use super::now;
use super::snapshot::{Keys, Location, Published, Snapshot};
use super::state::State;
use crate::error::{Error, Result, RowError};
use crate::schema::{Change, CollectionSchema, Condition, Row, Value};
use crate::segment::Sealed;
use crate::wal::{LogOperation, LogWriter};

/// Requests taken from the queue for one commit.
const GROUP_REQUESTS: usize = 256;
/// Rows after which a group takes no further request.
const GROUP_ROWS: usize = 65_536;

/// What became of an accepted write request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Rows that were applied.
    pub rows_applied: u64,
    /// Rows that were not: position in the request, key, why; ascending by position.
    pub failures: Vec<(usize, u64, RowError)>,
}

/// A request that waits for the writer.
pub(super) struct PendingWrite {
    pub rows: Vec<Row>,
    pub reply: oneshot::Sender<Result<WriteOutcome>>,
    /// The request's place in the bounded queue, given back with it.
    pub _permit: OwnedSemaphorePermit,
}

/// Requests waiting, and whether a run of the writer is on its way.
#[derive(Default)]
pub(super) struct WriteQueue {
    waiting: Mutex<VecDeque<PendingWrite>>,
    is_scheduled: AtomicBool,
}

impl WriteQueue {
    pub fn push(&self, pending: PendingWrite) {
        self.waiting.lock().push_back(pending);
    }

    /// True for exactly one caller until [`WriteQueue::unschedule`].
    pub fn schedule(&self) -> bool {
        !self.is_scheduled.swap(true, Ordering::SeqCst)
    }

    pub fn unschedule(&self) {
        self.is_scheduled.store(false, Ordering::SeqCst);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    pub fn take_group(&self) -> Vec<PendingWrite> {
        let mut waiting = self.waiting.lock();
        let mut rows = 0;
        let mut group = Vec::new();
        while group.len() < GROUP_REQUESTS
            && rows < GROUP_ROWS
            && let Some(pending) = waiting.pop_front()
        {
            rows += pending.rows.len();
            group.push(pending);
        }
        group
    }

    /// Answers everything that waits with an error.
    pub fn refuse_all(&self, error: &Error) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for pending in waiting {
            // The caller may have gone; then nobody needs the answer.
            let _ = pending.reply.send(Err(error.clone()));
        }
    }
}

/// The writing end of a collection.
pub(super) struct Writer {
    pub log: LogWriter,
    pub state: State,
    /// The sealed segments of the published snapshot.
    pub sealed: Vec<Arc<Sealed>>,
    collection: String,
    follows_repository: bool,
    /// Where rows have their version.
    version_position: Option<usize>,
    /// When rows expire.
    expiry: Option<Expiry>,
    failure: Option<Error>,
    /// For the idle check: the sequence at the last look.
    pub seen_sequence: u64,
    /// Looks since then at which nothing had been written.
    pub still_ticks: u32,
    /// Bytes of log written since the last freeze.
    pub log_bytes_at_freeze: u64,
    /// When a caller wrote for the last time, or the collection was opened.
    pub written_at: Instant,
    /// When the last sweep began.
    pub swept_at: Instant,
    /// The log goes on in a new file as soon as what is frozen is sealed.
    pub ends_log_file: bool,
}

impl Writer {
    pub fn new(
        log: LogWriter,
        state: State,
        sealed: Vec<Arc<Sealed>>,
        schema: &CollectionSchema,
    ) -> Self {
        Writer {
            seen_sequence: log.next_sequence(),
            still_ticks: 0,
            log_bytes_at_freeze: log.bytes(),
            log,
            state,
            sealed,
            collection: schema.name.clone(),
            follows_repository: schema.follows_repository(),
            version_position: schema.version_position(),
            expiry: Expiry::of(schema),
            failure: None,
            written_at: Instant::now(),
            swept_at: Instant::now(),
            ends_log_file: false,
        }
    }

    /// Sequence of the last operation logged.
    pub fn sequence(&self) -> u64 {
        self.log.next_sequence() - 1
    }

    /// Checks, logs, applies and publishes a group of requests, then answers them.
    pub fn process(&mut self, group: Vec<PendingWrite>, published: &Published) {
        let is_caller = |row: &Row| row.change != Change::Expire;
        if group.iter().any(|pending| pending.rows.iter().any(is_caller)) {
            self.written_at = Instant::now();
        }
        let mut outcomes = Vec::with_capacity(group.len());
        for pending in &group {
            outcomes.push(self.accept(&pending.rows, published));
        }
        if self.failure.is_none() {
            match self.log.commit() {
                Ok(()) => self.publish(published),
                Err(error) => self.poison(&error),
            }
        }
        for (pending, outcome) in group.into_iter().zip(outcomes) {
            let answer = match &self.failure {
                None => outcome,
                Some(failure) => Err(failure.clone()),
            };
            // The caller may have gone; the write stands all the same.
            let _ = pending.reply.send(answer);
        }
    }

    /// Resolves the rows of one request against the keys there are, applies what holds, and gathers
    /// it in the log.
    fn accept(&mut self, rows: &[Row], published: &Published) -> Result<WriteOutcome> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let now = now();
        let mut outcome = WriteOutcome::default();
        let mut operations = Vec::with_capacity(rows.len());
        for (position, row) in rows.iter().enumerate() {
            let old = self.state.locate(row.key, |key| published.location(key));
            let sequence = self.log.next_sequence() + operations.len() as u64;
            let operation = match self.resolve(row, old, sequence, now) {
                Ok(operation) => {
                    outcome.rows_applied += 1;
                    operation
                }
                Err(error) => {
                    outcome.failures.push((position, row.key, error));
                    match &row.lsn {
                        Some(lsn) => LogOperation::Seen { lsn: lsn.clone() },
                        None => continue,
                    }
                }
            };
            self.state.apply(&operation, sequence, |key| published.location(key));
            operations.push(operation);
        }
        if !operations.is_empty()
            && let Err(error) = self.log.append(&operations)
        {
            // Applied but not logged: nothing of this group may be published.
            self.poison(&error);
            return Err(error);
        }
        Ok(outcome)
    }

    /// What a row does, as the operation `sequence` at the time `now`, to a key that has its row at `old`.
    fn resolve(
        &self,
        row: &Row,
        old: Option<Location>,
        sequence: u64,
        now: i64,
    ) -> std::result::Result<LogOperation, RowError> {
        let (key, lsn) = (row.key, row.lsn.clone());
        let has_expired = |old: &Location| match &self.expiry {
            Some(expiry) => expiry.has_expired(&self.state.forward_at(*old), now),
            None => false,
        };
        if row.change == Change::Expire {
            return match old.filter(has_expired) {
                Some(_) => Ok(LogOperation::Delete { key, lsn }),
                None => Err(RowError::ConditionFailed),
            };
        }
        // What has expired is not there for anybody any more.
        let old = old.filter(|old| !has_expired(old));
        let document = match (&row.change, old) {
            (Change::Insert(_), Some(_)) => return Err(RowError::DuplicateKey),
            (Change::Update(_) | Change::Delete, None) => return Err(RowError::KeyNotFound),
            (Change::Insert(document), None)
            | (Change::Update(document), Some(_))
            | (Change::Upsert(document), _) => Some(document),
            (Change::Delete | Change::Expire, _) => None,
        };
        if let Some(condition) = &row.condition {
            self.check_condition(condition, key, old)?;
        }
        let Some(document) = document else { return Ok(LogOperation::Delete { key, lsn }) };
        if let (Some(new), Some(old)) = (&lsn, old)
            && new.lsn <= self.state.lsn_at(old)
        {
            return Err(RowError::StaleLsn);
        }
        let mut document = document.clone();
        if let Some(position) = self.version_position {
            let mut forward = document.forward.to_vec();
            forward[position] = Some(Value::UInt64(sequence));
            document.forward = forward.into();
        }
        Ok(LogOperation::Put { key, document, lsn })
    }

    /// Refuses a change of a row of which something else holds than it should.
    fn check_condition(
        &self,
        condition: &Condition,
        key: u64,
        old: Option<Location>,
    ) -> std::result::Result<(), RowError> {
        let forward = old.map(|old| self.state.forward_at(old)).ok_or(RowError::KeyNotFound)?;
        match condition {
            Condition::Test(test) if test.is_met(key, &forward) => Ok(()),
            Condition::Test(_) => Err(RowError::ConditionFailed),
            Condition::Version(expected) => {
                let found = self.version_position.and_then(|at| forward.get(at).cloned().flatten());
                match found {
                    Some(Value::UInt64(found)) if found == *expected => Ok(()),
                    Some(Value::UInt64(found)) => Err(RowError::OtherVersion { found }),
                    _ => Err(RowError::OtherVersion { found: 0 }),
                }
            }
        }
    }

    /// Shows everything applied so far. Call only when it is committed.
    pub fn publish(&mut self, published: &Published) {
        self.show(published, |_| {});
        if self.follows_repository {
            published.publish_lsn(self.state.lsns.latest());
        }
    }

    /// Shows the segments as they are now, together with a change of the key map.
    pub fn show(&mut self, published: &Published, change: impl FnOnce(&mut Keys)) {
        let snapshot = Snapshot {
            sequence: self.sequence(),
            sealed: self.sealed.clone(),
            growing: self.state.growing.publish(),
            frozen: self.state.frozen.iter().map(|frozen| frozen.view.clone()).collect(),
        };
        published.publish(snapshot, |keys| {
            self.state.drain_changes(keys);
            change(keys);
        });
    }

    /// Removes the log up to a checkpoint. Where a sweep sealed all there was, a new file is begun first, so
    /// that nothing of it is left.
    pub fn trim_log(&mut self, checkpoint: u64) {
        if std::mem::take(&mut self.ends_log_file) {
            if checkpoint < self.sequence() {
                // Something was written meanwhile: the next sweep has another try.
                self.state.has_removed = true;
            } else if let Err(error) = self.log.begin_file() {
                self.poison(&error);
                return;
            }
        }
        self.log.trim(checkpoint);
    }

    fn poison(&mut self, error: &Error) {
        if self.failure.is_none() {
            tracing::error!(collection = self.collection, %error, "log failed; no more writes");
            let failure =
                Error::Poisoned { collection: self.collection.clone(), cause: error.to_string() };
            self.failure = Some(failure);
        }
    }

    /// The first failure, after which nothing is written.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Makes everything published durable, whatever the durability, and returns its sequence: what
    /// a segment is built from must not be ahead of what a power cut leaves of the log.
    pub fn sync(&mut self) -> Result<u64> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Err(error) = self.log.sync() {
            self.poison(&error);
            return Err(error);
        }
        Ok(self.sequence())
    }
}
