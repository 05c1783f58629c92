//! One collection: a single writer, an immutable snapshot for readers, segments that are sealed and
//! merged in the background, and a folder from which all of it comes back.

mod by_rows;
mod compaction;
mod expiry;
mod lane;
mod ledger;
mod live;
mod lsn;
mod maintenance;
mod querying;
mod reading;
mod recovery;
mod removal;
mod snapshot;
mod state;
mod stats;
mod upkeep;
mod waiting;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::compute::Compute;
use crate::config::{Config, Durability};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::schema::{Change, CollectionSchema, LsnContext, RawWrite, Row};
use crate::segment::{ForwardStore, SegmentContext, Suspects};
use crate::storage::{CountedDisk, Disk};
use crate::wal::{LogSettings, LogWriter};

use expiry::Expiry;
use lane::Lane;
use ledger::Ledger;
use live::LiveQueries;
use reading::Scrolls;
use snapshot::{Published, Snapshot};
use writer::{PendingWrite, WriteQueue, Writer};

pub use ledger::WrittenReport;
pub use reading::{Page, Reader, SharedFilter};
use stats::Merging;
pub use stats::{
    CollectionStats, IndexingReport, MemoryReport, RecallReport, SegmentState, SegmentStats,
};
pub use waiting::Hurry;
pub use writer::WriteOutcome;

/// Bytes of memory that a row takes beside its values: key, place and delete mark, roughly.
const ROW_BYTES: u64 = 64;
/// Longest context text of an LSN, in bytes.
const LSN_CONTEXT_BYTES_MAX: usize = 4_096;
/// Looks without a write in between after which a collection counts as lying still.
const STILL_TICKS: u32 = 2;
/// Rows, or vectors where these are more, for which a segment that lies still is sealed; fewer are
/// quickly scanned.
const STILL_ROWS_MIN: u64 = 512;
/// Log bytes above the checkpoint after which the growing segment is sealed however small it is, in
/// log files.
const LOG_FILES_MAX: u64 = 4;

/// An open collection.
pub struct Collection {
    schema: Arc<CollectionSchema>,
    config: Arc<Config>,
    compute: Arc<Compute>,
    context: SegmentContext,
    published: Published,
    queue: WriteQueue,
    /// When rows expire.
    expiry: Option<Expiry>,
    /// Expired rows are being deleted.
    is_expiring: AtomicBool,
    permits: Arc<Semaphore>,
    /// Places for open readers.
    readers: Arc<Semaphore>,
    scrolls: Scrolls,
    writer: Mutex<Writer>,
    manifest: Mutex<Manifest>,
    seal_lane: Lane,
    merge_lane: Lane,
    filter_lane: Lane,
    live_lane: Lane,
    live: LiveQueries,
    seal_failure: Mutex<Option<Error>>,
    merge_failure: Mutex<Option<Error>>,
    /// Segments that a merge is reading.
    merging: Mutex<Option<Merging>>,
    /// Nothing was written for a while: small rests may be merged into large segments.
    is_still: AtomicBool,
    /// Callers who wait for rows to be indexed.
    waiting_callers: AtomicU32,
    /// Milliseconds since a caller wrote, at the last look.
    unwritten_ms: AtomicU64,
    /// The sweep under way rewrites segments below this id.
    swept_before: AtomicU32,
    /// Forward values are being filled in.
    is_filling: AtomicBool,
    /// Memory was freed that may be given back.
    has_freed: AtomicBool,
    /// What was written, and may be written anew.
    ledger: Ledger,
    stop: AtomicBool,
    /// Rows linked into graphs since the start.
    built: AtomicU64,
    /// Bytes that the seal under way holds.
    seal_bytes: AtomicU64,
    /// Bytes that the merge under way holds.
    merge_bytes: Arc<AtomicU64>,
    is_dropped: AtomicBool,
    /// Another declaration takes the place of this one: nothing is written any more.
    is_superseded: AtomicBool,
    /// Held while any of what ends background work changes.
    ending: Mutex<()>,
    magic_number: u64,
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("name", &self.schema.name).finish_non_exhaustive()
    }
}

/// What the offline check found in a collection's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderReport {
    /// The collection's name.
    pub name: String,
    /// Sealed segments.
    pub segments: u64,
    /// Live rows.
    pub rows: u64,
    /// Records in the log.
    pub log_records: u64,
    /// Bytes whose checksum was verified.
    pub bytes_checked: u64,
    /// Indexes that are left out of service, or not built any more.
    pub faults: Vec<String>,
    /// Things that are wrong but would not stop the collection.
    pub notes: Vec<String>,
}

impl Collection {
    /// Makes the folder of a new collection: either all of it is there after a crash, or nothing is.
    pub fn create(disk: &Disk, folder: &Path, schema: CollectionSchema) -> Result<()> {
        let temporary = folder.with_extension("tmp");
        disk.remove_dir(&temporary)?;
        disk.create_dir(&temporary)?;
        Manifest::new(schema).write(&**disk, &temporary)?;
        disk.rename(&temporary, folder)?;
        match folder.parent() {
            Some(parent) => disk.sync_dir(parent),
            None => Ok(()),
        }
    }

    /// Opens a collection from its folder: loads, repairs what a crash left, and takes writes.
    pub fn open(
        disk: &Disk,
        folder: &Path,
        forward: &ForwardStore,
        config: &Arc<Config>,
        compute: &Arc<Compute>,
        magic_number: u64,
    ) -> Result<Arc<Self>> {
        let written = Arc::new(AtomicU64::new(0));
        let disk: Disk = Arc::new(CountedDisk::new(disk.clone(), written.clone()));
        let suspects = Suspects::find(&disk, folder)?;
        let loaded = recovery::load(&disk, folder, forward, &config.segment, suspects)?;
        let log_number = recovery::repair(&loaded)?;
        let settings = LogSettings {
            sync_on_commit: config.storage.durability == Durability::Power,
            file_bytes_max: config.storage.log_file_bytes,
        };
        let log = LogWriter::open(
            disk.clone(),
            folder.to_path_buf(),
            loaded.uuid,
            settings,
            log_number,
            loaded.log.next_sequence,
            loaded.log.files.iter().copied(),
        )?;
        let recovery::Loaded { manifest, context, sealed, mut state, keys, .. } = loaded;
        let schema = context.schema.clone();
        let indexed = sealed.iter().filter(|sealed| sealed.has_index());
        let ordered_rows = indexed.map(|sealed| u64::from(sealed.rows())).max().unwrap_or(0);
        let ledger = Ledger::new([written, context.forward.written()], ordered_rows);
        let snapshot = Snapshot {
            sequence: log.next_sequence() - 1,
            sealed: sealed.clone(),
            frozen: state.frozen.iter().map(|frozen| frozen.view.clone()).collect(),
            growing: state.growing.publish(),
        };
        let published = Published::new(snapshot, keys, state.lsns.latest());
        let writer = Writer::new(log, state, sealed, &schema);
        let live = LiveQueries::new(&schema, compute.measuring_budget());
        let collection = Arc::new(Collection {
            expiry: Expiry::of(&schema),
            is_expiring: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(config.compute.write_queue_max.max(1) as usize)),
            readers: Arc::new(Semaphore::new(config.limits.readers_max.max(1) as usize)),
            scrolls: Scrolls::default(),
            schema,
            config: config.clone(),
            compute: compute.clone(),
            context,
            published,
            queue: WriteQueue::default(),
            writer: Mutex::new(writer),
            manifest: Mutex::new(manifest),
            seal_lane: Lane::default(),
            merge_lane: Lane::default(),
            filter_lane: Lane::default(),
            live_lane: Lane::default(),
            live,
            seal_failure: Mutex::new(None),
            merge_failure: Mutex::new(None),
            merging: Mutex::new(None),
            is_still: AtomicBool::new(false),
            waiting_callers: AtomicU32::new(0),
            unwritten_ms: AtomicU64::new(0),
            swept_before: AtomicU32::new(0),
            is_filling: AtomicBool::new(false),
            has_freed: AtomicBool::new(false),
            ledger,
            stop: AtomicBool::new(false),
            built: AtomicU64::new(0),
            seal_bytes: AtomicU64::new(0),
            merge_bytes: Arc::default(),
            is_dropped: AtomicBool::new(false),
            is_superseded: AtomicBool::new(false),
            ending: Mutex::new(()),
            magic_number,
        });
        collection.restore_live();
        for reason in stats::unindexed(&collection.context, &collection.published.snapshot().sealed)
        {
            tracing::error!(
                collection = collection.schema.name,
                reason,
                "rows go without an index"
            );
        }
        collection.forget_unknown_segments();
        collection.restore_forward_store();
        collection.schedule_seal();
        collection.schedule_merge();
        Ok(collection)
    }

    /// Reads a collection's folder and checks every checksum and invariant. Changes nothing.
    pub fn check_folder(disk: &Disk, folder: &Path, config: &Config) -> Result<FolderReport> {
        let forward = ForwardStore::disabled();
        let suspects = Suspects::find(disk, folder)?.only_read();
        let loaded = recovery::load(disk, folder, &forward, &config.segment, suspects)?;
        let faults = stats::unindexed(&loaded.context, &loaded.sealed);
        let mut notes: Vec<String> = recovery::leftovers(&loaded)?
            .iter()
            .map(|path| format!("{} is left over; the next start removes it", path.display()))
            .collect();
        notes.extend(loaded.log.torn_tail.iter().map(|torn| {
            format!(
                "{} has a torn tail of {} bytes, never acknowledged; the next start cuts it",
                torn.path.display(),
                torn.lost_bytes
            )
        }));
        let files = loaded.manifest.segments.iter().flat_map(|entry| entry.files());
        Ok(FolderReport {
            name: loaded.manifest.schema.name.clone(),
            segments: loaded.sealed.len() as u64,
            rows: loaded.keys.len() as u64,
            log_records: loaded.log.records,
            bytes_checked: loaded.log.bytes + files.map(|file| file.bytes).sum::<u64>(),
            faults,
            notes,
        })
    }

    /// Forward values of segments that are not there any more are removed from the store.
    fn forget_unknown_segments(self: &Arc<Self>) {
        let snapshot = self.published.snapshot();
        let first_new = self.manifest.lock().next_segment_id;
        let collection = self.clone();
        self.compute.spawn_seal(move || {
            let known = |id: u32| snapshot.sealed.iter().any(|sealed| sealed.id == id);
            collection.context.forward.retain_segments(|id| id >= first_new || known(id));
        });
    }

    /// The declaration.
    pub fn schema(&self) -> &CollectionSchema {
        &self.schema
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.context.folder
    }

    /// Writes a request. `magic_number` is the caller's, checked in repository collections only.
    ///
    /// The returned future may be dropped at any time: the request is then written whole or, if it
    /// was not queued yet, not at all.
    pub async fn write(
        self: &Arc<Self>,
        raw: RawWrite,
        magic_number: Option<u64>,
    ) -> Result<WriteOutcome> {
        let rows_max = u64::from(self.config.limits.write_rows_max);
        if raw.rows.len() as u64 > rows_max {
            return Err(Error::LimitExceeded {
                what: "number of rows of a write request",
                value: raw.rows.len() as u64,
                limit: rows_max,
                setting: "limits.write_rows_max",
            });
        }
        let lsns = raw.rows.iter().filter_map(|row| row.lsn.as_ref());
        let context_bytes = lsns.map(|lsn| lsn.context.len()).max().unwrap_or(0);
        let limit = self.config.limits.row_vectors_max;
        let rows = self.schema.check_write(raw, now(), limit)?;
        if self.schema.follows_repository() {
            if context_bytes > LSN_CONTEXT_BYTES_MAX {
                return Err(Error::LimitExceeded {
                    what: "length of an lsn context in bytes",
                    value: context_bytes as u64,
                    limit: LSN_CONTEXT_BYTES_MAX as u64,
                    setting: "not adjustable",
                });
            }
            let got = magic_number.unwrap_or(0);
            if got != self.magic_number {
                return Err(Error::MagicNumberMismatch { got, expected: self.magic_number });
            }
        }
        // Deletes grow nothing to speak of: they are what makes room.
        let grows = rows.iter().filter_map(|row| match &row.change {
            Change::Insert(document) | Change::Update(document) | Change::Upsert(document) => {
                Some(document)
            }
            Change::Delete | Change::Expire => None,
        });
        let bytes: u64 = grows.map(|document| ROW_BYTES + document.memory_bytes()).sum();
        if bytes > 0 {
            self.compute.memory().admit("writing these rows", bytes)?;
        }
        self.submit(rows).await
    }

    /// Writes checked rows.
    async fn submit(self: &Arc<Self>, rows: Vec<Row>) -> Result<WriteOutcome> {
        self.enqueue(rows)?.await.unwrap_or(Err(Error::Stopping))
    }

    /// Queues checked rows for the writer, which answers.
    fn enqueue(
        self: &Arc<Self>,
        rows: Vec<Row>,
    ) -> Result<oneshot::Receiver<Result<WriteOutcome>>> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            self.compute.count_refused_write();
            Error::Busy {
                what: "the queue of writes",
                limit: u64::from(self.config.compute.write_queue_max),
                setting: "compute.write_queue_max",
            }
        })?;
        self.check_writable()?;
        let (reply, answer) = oneshot::channel();
        self.queue.push(PendingWrite { rows, reply, _permit: permit });
        self.schedule_writer();
        Ok(answer)
    }

    /// Sees to it that the writer runs.
    fn schedule_writer(self: &Arc<Self>) {
        if self.queue.schedule() {
            let collection = self.clone();
            self.compute.spawn_write(move || collection.run_writer());
        }
    }

    fn run_writer(self: Arc<Self>) {
        loop {
            while !self.queue.is_empty() {
                if let Err(error) = self.check_writable() {
                    self.queue.refuse_all(&error);
                    break;
                }
                let mut writer = self.writer.lock();
                if self.must_wait(&writer) {
                    break;
                }
                writer.process(self.queue.take_group(), &self.published);
                self.ledger.asked(writer.log.gathered_bytes());
                let has_frozen = !writer.state.frozen.is_empty();
                drop(writer);
                if has_frozen {
                    self.schedule_seal();
                }
            }
            self.queue.unschedule();
            // Whatever came in, or was sealed, since the last look finds the writer free, or is
            // found here.
            let is_idle = self.queue.is_empty() || self.must_wait(&self.writer.lock());
            if is_idle || !self.queue.schedule() {
                return;
            }
        }
    }

    /// Too many segments wait to be sealed: writes wait for one, unless sealing fails.
    fn must_wait(&self, writer: &Writer) -> bool {
        if writer.state.frozen.len() < self.config.segment.frozen_max as usize {
            return false;
        }
        if let Some(error) = &*self.seal_failure.lock() {
            self.queue.refuse_all(error);
        }
        true
    }

    /// Where a process that follows the repository resumes; (0, "") at first.
    pub fn latest_lsn(&self) -> LsnContext {
        self.published.latest_lsn()
    }

    /// Once in a while: seals what has lain still or holds too much log, and tries again what failed.
    pub fn tick(self: &Arc<Self>) {
        if self.is_stopping() {
            return;
        }
        self.expire_rows();
        self.scrolls.expire(Duration::from_millis(self.config.limits.reader_idle_ms));
        let (frozen, sweeps) = {
            let mut writer = self.writer.lock();
            let sequence = writer.sequence();
            match std::mem::replace(&mut writer.seen_sequence, sequence) == sequence {
                true => writer.still_ticks = writer.still_ticks.saturating_add(1),
                false => writer.still_ticks = 0,
            }
            let is_still = writer.still_ticks >= STILL_TICKS;
            self.is_still.store(is_still, Ordering::Relaxed);
            let vectors = writer.state.growing.vectors_max();
            let log_bytes = writer.log.bytes().saturating_sub(writer.log_bytes_at_freeze);
            let has_long_log = log_bytes > LOG_FILES_MAX * self.config.storage.log_file_bytes;
            let is_due = (is_still && vectors >= STILL_ROWS_MIN) || has_long_log;
            if is_due && writer.failure().is_none() && writer.state.frozen.is_empty() {
                writer.state.freeze(sequence);
                writer.log_bytes_at_freeze = writer.log.bytes();
                writer.publish(&self.published);
            }
            let sweeps = self.begin_sweep(&mut writer);
            (!writer.state.frozen.is_empty(), sweeps)
        };
        if sweeps {
            self.sweep_segments();
        }
        if frozen {
            self.schedule_seal();
        }
        if self.next_merge().is_some() || self.lacks_cells() {
            self.schedule_merge();
        } else if !frozen {
            self.rest();
        }
        self.restore_forward_store();
        self.schedule_forward_indexes();
        self.schedule_live();
    }

    /// True when background work ends.
    fn is_stopping(&self) -> bool {
        self.context.is_stopping()
    }

    /// Changes something that background work ends by, and tells it.
    fn change_ending(&self, change: impl FnOnce()) {
        let _one = self.ending.lock();
        change();
        let ends = self.stop.load(Ordering::SeqCst) || self.is_superseded.load(Ordering::SeqCst);
        self.context.stop.store(ends, Ordering::SeqCst);
    }

    /// Background work that ended before it was done begins again.
    fn resume(self: &Arc<Self>) {
        self.schedule_seal();
        self.schedule_merge();
        self.schedule_writer();
    }

    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        match self.is_superseded.load(Ordering::SeqCst) {
            true => Err(Error::Altering { collection: self.schema.name.clone() }),
            false => Ok(()),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.is_dropped.load(Ordering::Relaxed) {
            return Err(Error::CollectionNotFound { name: self.schema.name.clone() });
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        Ok(())
    }

    /// Tells background work to end, and refuses everything from now on. Does not wait.
    pub fn stop(&self) {
        self.change_ending(|| self.stop.store(true, Ordering::SeqCst));
    }

    /// Returns when no background work of this collection is under way any more.
    fn wait_until_stopped(&self) {
        self.seal_lane.wait_until_stopped();
        self.merge_lane.wait_until_stopped();
        self.live_lane.wait_until_stopped();
    }

    /// Ends background work and refuses everything from now on. Requests that the writer has begun
    /// are finished; the log is synced.
    pub fn close(&self) {
        self.stop();
        self.wait_until_stopped();
        self.save_live(Duration::ZERO);
        self.context.suspects.release();
        let mut writer = self.writer.lock();
        if writer.failure().is_none()
            && let Err(error) = writer.sync()
        {
            tracing::error!(collection = self.schema.name, %error, "log not synced on close");
        }
    }

    /// Makes another declaration durable, with which the collection is to be opened anew. From then on
    /// this one answers queries only. Builds under way are ended, to begin anew afterwards. Where it fails,
    /// nothing has changed.
    pub fn redeclare(self: &Arc<Self>, schema: CollectionSchema) -> Result<()> {
        self.check_open()?;
        let supersede = |is_superseded| {
            self.change_ending(|| self.is_superseded.store(is_superseded, Ordering::SeqCst));
        };
        supersede(true);
        self.wait_until_stopped();
        self.context.suspects.release();
        let outcome = self.write_declaration(schema);
        if outcome.is_err() {
            supersede(false);
            self.resume();
        }
        outcome
    }

    fn write_declaration(&self, schema: CollectionSchema) -> Result<()> {
        let mut manifest = self.manifest.lock();
        // Whoever was writing has ended; whoever waits is refused.
        let mut writer = self.writer.lock();
        writer.sync()?;
        let mut next = manifest.clone();
        next.schema = schema;
        next.number += 1;
        next.log_file = writer.log.file_number();
        next.write(&*self.context.disk, &self.context.folder)?;
        *manifest = next;
        Ok(())
    }

    /// Takes the collection out of use: from now on it does not exist for anybody who holds it, and
    /// when this returns nothing of it is under way, so that its folder can be removed.
    pub fn retire(&self) {
        self.is_dropped.store(true, Ordering::SeqCst);
        self.stop();
        self.wait_until_stopped();
        drop(self.writer.lock());
    }

    /// Takes a retired collection into use again, when it could not be removed.
    pub fn reinstate(self: &Arc<Self>) {
        self.change_ending(|| self.stop.store(false, Ordering::SeqCst));
        self.is_dropped.store(false, Ordering::SeqCst);
        self.resume();
    }

    /// Blocks until no seal and no merge is due, and what filters asked for is made, or until one fails.
    pub fn settle(self: &Arc<Self>) {
        while !self.is_stopping() {
            self.schedule_seal();
            self.seal_lane.wait_until_idle();
            self.schedule_merge();
            self.merge_lane.wait_until_idle();
            self.schedule_forward_indexes();
            self.filter_lane.wait_until_idle();
            let is_settled =
                self.writer.lock().state.frozen.is_empty() && self.next_merge().is_none();
            if is_settled || self.has_failed_in_background() {
                return;
            }
        }
    }

    fn has_failed_in_background(&self) -> bool {
        self.seal_failure.lock().is_some() || self.merge_failure.lock().is_some()
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The folder of a collection within a data folder.
pub fn collection_folder(data: &Path, uuid: &str) -> PathBuf {
    data.join("collections").join(uuid)
}
