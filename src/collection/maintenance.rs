//! Background work of a collection, in two lanes that never wait for each other: sealing, which turns
//! frozen segments into files in order, and merging. Both end in the same two steps: `commit`, which
//! makes the new state durable, and `install`, which shows it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rayon::ThreadPool;

use super::Collection;
use super::compaction::{Budget, MergeJob, Policy, SegmentFacts};
use super::snapshot::{Location, Snapshot};
use super::state::{Frozen, SpaceOwner};
use super::stats::Merging;
use crate::error::{Error, Result};
use crate::index::BuildRun;
use crate::manifest::{FileEntry, Manifest, SegmentEntry};
use crate::memory::KeptRoom;
use crate::schema::{IndexKind, VectorColumn};
use crate::segment::{
    BuildPlan, Built, IndexRule, MergeSource, Sealed, build_segment, encode_tombstones,
    segment_folder,
};
use crate::storage::ChecksumWriter;

/// A merge of so many bytes of vectors at most, none of which are trained with, is a short one.
const SHORT_MERGE_BYTES: u64 = 16 << 20;
/// Bytes of memory for each vector while cells are made, roughly.
const CELLS_NODE_BYTES: u64 = 16;

/// A change of the manifest's segments.
struct Change {
    /// Segments that go.
    removed: Vec<u32>,
    /// The segment that comes, with where its rows come from.
    added: Option<SegmentEntry>,
    sources: Vec<MergeSource>,
    taken: Vec<Vec<u32>>,
    /// The new checkpoint, with the document id after it; `None` leaves it where it is.
    checkpoint: Option<(u64, u64)>,
}

/// Bytes of an index file for each vector of a column, roughly.
fn index_file_bytes(column: &VectorColumn) -> u64 {
    /// Levels, offsets and what a file of few vectors has beside them.
    const NODE_BYTES: u64 = 24;
    let vector_bytes = column.vector_bytes().unwrap_or(0) as u64;
    match &column.index {
        IndexKind::Flat => 0,
        IndexKind::Hnsw { max_neighbor_count, .. } => {
            let links = 2 * size_of::<i32>() as u64 * u64::from(*max_neighbor_count);
            vector_bytes + links + NODE_BYTES
        }
        IndexKind::Trained { .. } => column.index.row_bytes(column.dimension, vector_bytes),
    }
}

impl Collection {
    /// Sees to it that frozen segments get sealed.
    pub(super) fn schedule_seal(self: &Arc<Self>) {
        if self.seal_lane.schedule() {
            let collection = self.clone();
            self.compute.spawn_seal(move || collection.run_seals());
        }
    }

    /// Sees to it that due merges get done.
    pub(super) fn schedule_merge(self: &Arc<Self>) {
        if self.merge_lane.schedule() {
            let collection = self.clone();
            let run = move |pool: &ThreadPool, only_short| collection.run_merges(pool, only_short);
            self.compute.spawn_merge(self.is_next_merge_short(), run);
        }
    }

    fn run_seals(self: Arc<Self>) {
        if !self.seal_lane.begin(|| self.is_stopping()) {
            return;
        }
        loop {
            let next = self.writer.lock().state.frozen.first().cloned();
            let result = match next {
                Some(frozen) if !self.is_stopping() => self.seal(&frozen).map(|()| true),
                _ => Ok(false),
            };
            match result {
                Ok(true) => {
                    *self.seal_failure.lock() = None;
                    self.schedule_writer();
                    self.schedule_merge();
                }
                Ok(false) => {
                    self.seal_lane.unschedule();
                    // A segment frozen since the look above finds the lane free, or is found here.
                    let is_idle = self.writer.lock().state.frozen.is_empty() || self.is_stopping();
                    if is_idle
                        || !self.seal_lane.schedule()
                        || !self.seal_lane.begin(|| self.is_stopping())
                    {
                        return;
                    }
                }
                Err(error) => {
                    if !matches!(error, Error::Stopping) {
                        tracing::error!(collection = self.schema.name, %error, "sealing failed");
                        *self.seal_failure.lock() = Some(error);
                    }
                    self.seal_lane.unschedule();
                    self.schedule_writer();
                    return;
                }
            }
        }
    }

    fn run_merges(self: Arc<Self>, pool: &ThreadPool, only_short: bool) {
        if only_short && !self.is_next_merge_short() {
            // It has become longer since it was queued.
            let compute = self.compute.clone();
            let run = move |pool: &ThreadPool, only_short| self.run_merges(pool, only_short);
            return compute.spawn_merge(false, run);
        }
        if !self.merge_lane.begin(|| self.is_stopping()) {
            return;
        }
        let result = self.next_merge().map(|job| {
            let merged = self.merge(&job, pool);
            *self.merging.lock() = None;
            merged
        });
        let is_more_due = matches!(result, Some(Ok(())));
        if !is_more_due {
            self.make_cells(pool);
        }
        *self.merge_failure.lock() = match result {
            None | Some(Ok(())) | Some(Err(Error::Stopping)) => None,
            Some(Err(error @ Error::OutOfMemory { .. })) => {
                // Tried again at the next tick: merges of others may have room kept for them.
                tracing::warn!(collection = self.schema.name, %error, "merging waits");
                Some(error)
            }
            Some(Err(error)) => {
                // Tried again at the next tick; nothing depends on it but speed and space.
                tracing::error!(collection = self.schema.name, %error, "merging failed");
                Some(error)
            }
        };
        self.merge_lane.unschedule();
        if is_more_due {
            // One merge a turn, so that collections share the pool fairly.
            self.schedule_merge();
        }
    }

    pub(super) fn policy(&self) -> Policy {
        let config = &self.config.segment;
        let is_still = self.is_still.load(Ordering::Relaxed);
        let rows_min = self.indexed_columns().filter_map(|(_, column)| match is_still {
            // What does not come any more is not waited for.
            true => column.index.rows_min(config.graph_rows_min),
            false => column.index.rows_wanted(config.graph_rows_min),
        });
        Policy {
            index_rows_min: rows_min.min(),
            deleted_share_max: config.deleted_share_max,
            rows_max: self.schema.max_docs_per_segment,
            segments_max: config.segments_max as usize,
            is_still: is_still || self.is_waited_for(),
            removal_before: self.removal_before(),
            index_bytes: self.schema.columns.iter().map(index_file_bytes).sum(),
            budget: match self.is_waited_for() {
                true => Budget::UNBOUNDED,
                false => {
                    self.ledger.budget(self.published.snapshot().live_rows(), self.unwritten())
                }
            },
        }
    }

    /// The columns whose indexes can be built, with their places.
    pub(super) fn indexed_columns(&self) -> impl Iterator<Item = (usize, &VectorColumn)> + Clone {
        let columns = self.schema.columns.iter().enumerate();
        columns.filter(|(place, _)| !self.context.suspects.is_unbuilt(*place))
    }

    pub(super) fn next_merge(&self) -> Option<MergeJob> {
        self.next_merge_by(&self.policy())
    }

    pub(super) fn next_merge_by(&self, policy: &Policy) -> Option<MergeJob> {
        match self.is_stopping() {
            true => None,
            false => policy.next_merge(&self.facts(&self.published.snapshot())),
        }
    }

    /// What is known of the sealed segments.
    pub(super) fn facts(&self, snapshot: &Snapshot) -> Vec<SegmentFacts> {
        snapshot
            .sealed
            .iter()
            .map(|sealed| SegmentFacts {
                id: sealed.id,
                rows: u64::from(sealed.rows()),
                vectors: self.vectors_to_index(sealed),
                deleted: sealed.tombstones.deleted(),
                has_index: sealed.has_index() || self.is_beyond_indexing(sealed),
                rows_bytes: sealed.rows_bytes,
            })
            .collect()
    }

    /// True where what a run of merges does first is done soon.
    fn is_next_merge_short(&self) -> bool {
        let Some(job) = self.next_merge() else { return !self.lacks_cells() };
        let snapshot = self.published.snapshot();
        let sources = snapshot.sealed.iter().filter(|sealed| job.sources.contains(&sealed.id));
        let bytes = sources.flat_map(|sealed| {
            self.schema.columns.iter().enumerate().map(|(place, column)| match &column.index {
                IndexKind::Trained { .. } if job.indexes != IndexRule::None => u64::MAX,
                _ => {
                    let vector_bytes = column.vector_bytes().unwrap_or(0) as u64;
                    u64::from(sealed.vectors(place)) * vector_bytes
                }
            })
        });
        bytes.fold(0, u64::saturating_add) <= SHORT_MERGE_BYTES
    }

    /// Vectors of the column of a segment that has most, of those that have indexes, and as many as rows
    /// at least.
    fn vectors_to_index(&self, sealed: &Sealed) -> u64 {
        let columns = self.schema.columns.iter().enumerate();
        let columns = columns.filter(|(_, column)| column.index != IndexKind::Flat);
        let vectors = columns.map(|(place, _)| sealed.vectors(place));
        vectors.fold(sealed.rows(), u32::max).into()
    }

    /// True for a segment with rows enough for an index and too few vectors in every column: waiting
    /// for more of its kind does not help it.
    pub(super) fn is_beyond_indexing(&self, sealed: &Sealed) -> bool {
        // Merged with others it gets an index anew; alone it is left as it is.
        if sealed.has_left_out() {
            return true;
        }
        let graph_rows_min = self.config.segment.graph_rows_min;
        let mut wishes = self
            .indexed_columns()
            .filter_map(|(place, column)| Some((place, column.index.rows_min(graph_rows_min)?)));
        let has_rows = wishes.clone().any(|(_, rows_min)| u64::from(sealed.rows()) >= rows_min);
        has_rows && !wishes.any(|(place, min)| u64::from(sealed.vectors(place)) >= min)
    }

    /// True when some segment is searched among few allowed rows less well than it could be.
    pub(super) fn lacks_cells(&self) -> bool {
        let snapshot = self.published.snapshot();
        !self.is_stopping() && snapshot.sealed.iter().any(|sealed| sealed.lacks_cells())
    }

    /// Where memory is short, graphs do without cells until a later tick.
    fn make_cells(&self, pool: &ThreadPool) {
        let snapshot = self.published.snapshot();
        let run = self.build_run(pool, &self.merge_bytes);
        for sealed in snapshot.sealed.iter().filter(|sealed| sealed.lacks_cells()) {
            let bytes = CELLS_NODE_BYTES * self.vectors_to_index(sealed);
            if self.is_stopping() || self.compute.memory().admit("making cells", bytes).is_err() {
                return;
            }
            sealed.make_cells(&self.schema, &run);
        }
    }

    /// Sees to it that what filters asked for is made, beside the queries.
    pub(super) fn schedule_forward_indexes(self: &Arc<Self>) {
        let snapshot = self.published.snapshot();
        let is_due = snapshot.sealed.iter().any(|sealed| sealed.lacks_forward_indexes());
        if is_due && !self.is_stopping() && self.filter_lane.schedule() {
            let collection = self.clone();
            self.compute.build_pool().spawn(move || {
                if collection.filter_lane.begin(|| collection.is_stopping()) {
                    collection.make_forward_indexes(&snapshot);
                    collection.filter_lane.unschedule();
                }
            });
        }
    }

    /// Where memory is short, filters look at all values until a later tick.
    fn make_forward_indexes(&self, snapshot: &Snapshot) {
        let admit = |bytes| match self.is_stopping() {
            true => Err(Error::Stopping),
            false => self.compute.memory().admit("ordering rows for filters", bytes),
        };
        for sealed in &snapshot.sealed {
            if let Err(error) = sealed.make_forward_indexes(admit) {
                tracing::debug!(collection = self.schema.name, %error, "filters go without an order");
                return;
            }
        }
    }

    fn seal(self: &Arc<Self>, frozen: &Frozen) -> Result<()> {
        let sources = vec![MergeSource::Frozen(frozen.view.clone())];
        let (id, sequence) = self.begin_build()?;
        let plan = BuildPlan {
            id,
            sources: &sources,
            extend_first: false,
            sequence,
            indexes: IndexRule::None,
            run: self.build_run(self.compute.build_pool(), &self.seal_bytes),
        };
        let built = self.build(&plan)?;
        let checkpoint = Some((frozen.last_sequence, frozen.next_doc_id));
        self.finish(built, Vec::new(), sources, checkpoint)?;
        for reason in self.too_few_to_train() {
            tracing::info!(collection = self.schema.name, reason, "rows go without an index");
        }
        Ok(())
    }

    fn merge(self: &Arc<Self>, job: &MergeJob, pool: &ThreadPool) -> Result<()> {
        let started = Instant::now();
        let snapshot = self.published.snapshot();
        let sources = {
            let manifest = self.manifest.lock();
            job.sources
                .iter()
                .map(|id| {
                    let sealed = snapshot.sealed.iter().find(|sealed| sealed.id == *id)?;
                    let entry = manifest.segments.iter().find(|entry| entry.id == *id)?;
                    Some(MergeSource::Sealed(sealed.clone(), entry.clone()))
                })
                .collect::<Option<Vec<_>>>()
        };
        let Some(sources) = sources else {
            return Err(Error::internal("a segment to be merged is not in the manifest"));
        };
        let _room = self.admit_merge(&sources)?;
        *self.merging.lock() = Some(Merging {
            sources: job.sources.clone(),
            rows: self.rows_to_link(job, &sources),
            linked_before: self.built.load(Ordering::Relaxed),
            started,
        });
        let (id, sequence) = self.begin_build()?;
        let plan = BuildPlan {
            id,
            sources: &sources,
            extend_first: job.extend_first,
            sequence,
            indexes: job.indexes,
            run: self.build_run(pool, &self.merge_bytes),
        };
        if job.is_first_order {
            self.ledger.in_order(snapshot.live_rows());
        }
        let built = self.build(&plan)?;
        let rows = built.as_ref().map_or(0, |built| built.entry.rows);
        if job.is_removal {
            let files = built.iter().flat_map(|built| built.entry.files());
            self.ledger.removed(files.map(|file| file.bytes).sum());
        }
        self.finish(built, job.sources.clone(), sources, None)?;
        tracing::info!(
            collection = self.schema.name,
            segments = job.sources.len(),
            rows,
            extended = job.extend_first,
            milliseconds = started.elapsed().as_millis() as u64,
            "segments merged"
        );
        Ok(())
    }

    /// Keeps room for a merge, or refuses one whose codes and links would not fit: old and new ones are
    /// held side by side until the new segment is shown, and the links once more while they are made.
    fn admit_merge(&self, sources: &[MergeSource]) -> Result<KeptRoom<'_>> {
        let bytes = self.schema.columns.iter().enumerate().map(|(place, column)| {
            let vectors: u64 = sources.iter().map(|source| source.vectors(place)).sum();
            let vector_bytes = column.vector_bytes().unwrap_or(0) as u64;
            let index_bytes = column.index.merge_bytes(column.dimension, vector_bytes, vectors);
            // Of which row each is.
            let rows_bytes = column.multi.map_or(0, |_| size_of::<u32>() as u64 * vectors);
            index_bytes.saturating_add(rows_bytes)
        });
        let bytes = bytes.fold(0, u64::saturating_add);
        self.compute.memory().keep("merging segments", bytes, &self.merge_bytes)
    }

    /// Vectors that a merge links into graphs, of all columns that have one.
    fn rows_to_link(&self, job: &MergeJob, sources: &[MergeSource]) -> u64 {
        let IndexRule::FromRows(rows_min) = job.indexes else { return 0 };
        let linked = &sources[usize::from(job.extend_first).min(sources.len())..];
        let columns = self.schema.columns.iter().enumerate();
        let columns = columns.filter(|(_, column)| column.index != IndexKind::Flat);
        let vectors = columns.map(|(place, _)| {
            let of = |sources: &[MergeSource]| -> u64 {
                sources.iter().map(|source| source.vectors(place)).sum()
            };
            if of(sources) < rows_min { 0 } else { of(linked) }
        });
        vectors.sum()
    }

    fn build_run<'a>(&'a self, pool: &'a ThreadPool, held: &'a AtomicU64) -> BuildRun<'a> {
        BuildRun { pool, stop: &self.context.stop, done: &self.built, held }
    }

    /// Builds a segment's files, and leaves none of them behind when that ends early.
    fn build(&self, plan: &BuildPlan<'_>) -> Result<Option<Built>> {
        build_segment(&self.context, plan).map_err(|error| {
            self.remove_unfinished(plan.id);
            // What is interrupted fails in words of its own.
            if self.is_stopping() { Error::Stopping } else { error }
        })
    }

    fn remove_unfinished(&self, id: u32) {
        let folder = segment_folder(&self.context.folder, id);
        if let Err(error) = self.context.disk.remove_dir(&folder) {
            tracing::warn!(%error, "unfinished segment not removed; the next start removes it");
        }
    }

    /// Takes an id, and the sequence up to which deletes may be dropped for good: it must be durable,
    /// or a power cut could undo the delete and not bring back the row.
    fn begin_build(&self) -> Result<(u32, u64)> {
        let sequence = self.writer.lock().sync()?;
        let mut manifest = self.manifest.lock();
        let id = manifest.next_segment_id;
        manifest.next_segment_id = id
            .checked_add(1)
            .ok_or_else(|| Error::internal("the collection has used up its segment ids"))?;
        Ok((id, sequence))
    }

    fn finish(
        self: &Arc<Self>,
        built: Option<Built>,
        removed: Vec<u32>,
        sources: Vec<MergeSource>,
        checkpoint: Option<(u64, u64)>,
    ) -> Result<()> {
        let (entry, taken, trials) = match built {
            Some(built) => (Some(built.entry), built.taken, built.trials),
            None => (None, Vec::new(), Vec::new()),
        };
        // A first source that is taken whole keeps its row numbers, and so its row space: the key map
        // stays as it is for those rows.
        let first_rows = sources.first().map(|source| (source.space(), source.rows()));
        let is_whole = taken.first().map(|rows| rows.len() as u32) == first_rows.map(|f| f.1);
        let space = match first_rows {
            Some((space, _)) if is_whole => space,
            _ => self.writer.lock().state.new_space(),
        };
        let mut change = Change { removed, added: entry, sources, taken, checkpoint };
        let sealed = match &change.added {
            None => None,
            Some(entry) => {
                let sealed = Sealed::open(&self.context, entry, space).inspect_err(|error| {
                    if matches!(error, Error::Stopping) {
                        self.remove_unfinished(entry.id);
                    }
                })?;
                sealed.fill_forward_store();
                Some(Arc::new(sealed))
            }
        };
        drop(trials);
        // Held until the change is shown: the next commit finds every segment of the manifest open.
        let mut manifest = self.manifest.lock();
        self.commit(&mut manifest, &mut change)?;
        let is_shown = self.install(&change, sealed);
        drop(manifest);
        self.has_freed.store(true, Ordering::Relaxed);
        if is_shown {
            self.remove_merged(&change);
        }
        Ok(())
    }

    /// Writes the next manifest: the change, and the deletes up to its checkpoint.
    fn commit(&self, manifest: &mut Manifest, change: &mut Change) -> Result<()> {
        let mut next = manifest.clone();
        next.number += 1;
        next.log_file = self.writer.lock().log.file_number();
        if let Some((checkpoint, next_doc_id)) = change.checkpoint {
            next.checkpoint = checkpoint;
            next.next_doc_id = next_doc_id;
            next.lsn_window = self.writer.lock().state.lsns.to_vec();
        }
        let mut replaced = Vec::new();
        let snapshot = self.published.snapshot();
        next.segments.retain(|entry| !change.removed.contains(&entry.id));
        for entry in &mut next.segments {
            let Some(sealed) = snapshot.sealed.iter().find(|sealed| sealed.id == entry.id) else {
                return Err(Error::internal("a segment of the manifest is not open"));
            };
            let deleted = sealed.tombstones.deleted_up_to(next.checkpoint);
            self.refresh_tombstones(entry, &deleted, next.number, &mut replaced)?;
        }
        if let Some(entry) = &mut change.added {
            let rows = change
                .sources
                .iter()
                .zip(&change.taken)
                .flat_map(|(source, taken)| taken.iter().map(|row| source.mark(*row)));
            let deleted: Vec<u32> = rows
                .enumerate()
                .filter(|(_, mark)| *mark <= next.checkpoint)
                .map(|(row, _)| row as u32)
                .collect();
            self.refresh_tombstones(entry, &deleted, next.number, &mut replaced)?;
            next.segments.push(entry.clone());
        }
        next.write(&*self.context.disk, &self.context.folder)?;
        *manifest = next;
        for path in replaced {
            if let Err(error) = self.context.disk.remove_file(&path) {
                tracing::warn!(%error, "replaced tombstones not removed");
            }
        }
        Ok(())
    }

    /// Writes a segment's tombstones anew when there are more than its file has.
    fn refresh_tombstones(
        &self,
        entry: &mut SegmentEntry,
        deleted: &[u32],
        manifest: u64,
        replaced: &mut Vec<std::path::PathBuf>,
    ) -> Result<()> {
        let content = encode_tombstones(entry.rows, deleted);
        let known = entry.tombstones_file.as_ref();
        let is_current = match known {
            None => deleted.is_empty(),
            Some(file) => file.bytes == content.len() as u64,
        };
        if is_current {
            return Ok(());
        }
        let disk = &*self.context.disk;
        let folder = segment_folder(&self.context.folder, entry.id);
        if let Some(known) = known {
            replaced.push(folder.join(&known.name));
        }
        let name = format!("tombstones-{manifest}");
        let path = folder.join(&name);
        disk.remove_file(&path)?;
        let mut file = ChecksumWriter::create(disk, &path)?;
        file.write_all(&content).map_err(|e| Error::io("write", &path, &e))?;
        let (bytes, crc32c) = file.finish()?;
        disk.sync_dir(&folder)?;
        entry.tombstones_file = Some(FileEntry { name, bytes, crc32c });
        Ok(())
    }

    /// Shows the change. Deletes that arrived while files were written are carried over first: the
    /// writer waits meanwhile, so none is missed. False when the log has failed: what the writer has
    /// applied since may never be shown.
    fn install(&self, change: &Change, sealed: Option<Arc<Sealed>>) -> bool {
        let mut writer = self.writer.lock();
        if writer.failure().is_some() {
            return false;
        }
        let mut moved: Vec<(u64, Location, Location)> = Vec::new();
        if let Some(sealed) = &sealed {
            let mut new_row = 0u32;
            for (source, taken) in change.sources.iter().zip(&change.taken) {
                for &row in taken {
                    let mark = source.mark(row);
                    let old = Location { space: source.space(), row };
                    let new = Location { space: sealed.space, row: new_row };
                    if mark != crate::segment::LIVE {
                        sealed.tombstones.delete(new_row, mark);
                    } else if old != new
                        && let Some(key) = sealed.key(new_row)
                    {
                        moved.push((key, old, new));
                    }
                    new_row += 1;
                }
            }
        }
        let position = writer.sealed.iter().position(|s| change.removed.contains(&s.id));
        writer.sealed.retain(|s| !change.removed.contains(&s.id));
        for source in &change.sources {
            writer.state.spaces.remove(&source.space());
            if let MergeSource::Frozen(view) = source {
                writer.state.frozen.retain(|frozen| frozen.view.space != view.space);
            }
        }
        if let Some(sealed) = sealed {
            writer.state.spaces.insert(sealed.space, SpaceOwner::Sealed(sealed.clone()));
            let position = position.unwrap_or(writer.sealed.len()).min(writer.sealed.len());
            writer.sealed.insert(position, sealed);
        }
        writer.show(&self.published, |keys| {
            for (key, old, new) in moved {
                if let Some(location) = keys.get_mut(&key)
                    && *location == old
                {
                    *location = new;
                }
            }
        });
        if let Some((checkpoint, _)) = change.checkpoint {
            writer.trim_log(checkpoint);
            writer.log_bytes_at_freeze = writer.log.bytes();
        }
        true
    }

    fn remove_merged(&self, change: &Change) {
        for id in &change.removed {
            let has_deleted = change.sources.iter().any(|source| source.has_deleted(*id));
            self.context.forward.remove_segment(*id, has_deleted);
            let folder = segment_folder(&self.context.folder, *id);
            if let Err(error) = self.context.disk.remove_dir(&folder) {
                tracing::warn!(%error, "merged segment not removed; the next start removes it");
            }
        }
    }
}
