//! From a collection's folder to its state: manifest, sealed segments, log above the checkpoint.
//! Loading only reads; repairing what a crash left is a second step, so that the offline check can do
//! the first alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lsn::LsnWindow;
use super::snapshot::{Keys, Location};
use super::state::{FreezeLimits, State};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::schema::CollectionSchema;
use crate::segment::{ForwardStore, Sealed, SegmentContext, Suspects, segment_id};
use crate::storage::Disk;
use crate::wal::{LogContents, LogOperation, ReplayedRecord, file_number, log_path, read_log};

/// A collection as its folder has it.
pub(super) struct Loaded {
    pub manifest: Manifest,
    pub context: SegmentContext,
    pub uuid: uuid::Uuid,
    pub sealed: Vec<Arc<Sealed>>,
    pub state: State,
    pub keys: Keys,
    pub log: LogContents,
}

/// Rows, vectors and bytes at which a collection's growing segments are frozen.
pub(super) fn freeze_limits(
    config: &crate::config::SegmentConfig,
    schema: &CollectionSchema,
) -> FreezeLimits {
    FreezeLimits {
        rows: config.seal_rows_max.min(schema.max_docs_per_segment).max(1),
        vectors: config.seal_rows_max.max(1),
        bytes: config.seal_bytes_max,
    }
}

/// Reads a collection's folder. Changes nothing, but for the markers of `suspects`.
pub(super) fn load(
    disk: &Disk,
    folder: &Path,
    forward: &ForwardStore,
    config: &crate::config::SegmentConfig,
    suspects: Suspects,
) -> Result<Loaded> {
    let manifest = Manifest::read(&**disk, folder)?;
    let schema = Arc::new(manifest.schema.clone());
    let uuid = uuid::Uuid::try_parse(&schema.uuid)
        .map_err(|e| Error::damaged(folder, 0, format!("the manifest's uuid: {e}")))?;
    let context = SegmentContext {
        disk: disk.clone(),
        folder: folder.to_path_buf(),
        forward: forward.tree(&schema.uuid),
        schema: schema.clone(),
        filter_index_rows_min: config.filter_index_rows_min,
        suspects: Arc::new(suspects),
        stop: Arc::default(),
    };
    let mut sealed = Vec::with_capacity(manifest.segments.len());
    let mut keys = Keys::new();
    for (space, entry) in manifest.segments.iter().enumerate() {
        let segment = Sealed::open(&context, entry, space as u32)?;
        collect_keys(&segment, folder, &mut keys)?;
        sealed.push(Arc::new(segment));
    }
    let mut state = State::new(
        schema.clone(),
        freeze_limits(config, &schema),
        &sealed,
        sealed.len() as u32,
        manifest.next_doc_id,
        LsnWindow::restored(manifest.lsn_window.iter().cloned()),
    );
    let checkpoint = manifest.checkpoint;
    let log = read_log(&**disk, folder, uuid, checkpoint, manifest.log_file, |record| {
        replay(&schema, folder, &mut state, &keys, checkpoint, &record)
    })?;
    state.drain_changes(&mut keys);
    Ok(Loaded { manifest, context, uuid, sealed, state, keys, log })
}

/// Enters a segment's live rows; at most one live row may have a key.
fn collect_keys(segment: &Sealed, folder: &Path, keys: &mut Keys) -> Result<()> {
    for (first_row, rows) in segment.blocks() {
        for (place, key) in rows.keys.iter().enumerate() {
            let row = first_row + place as u32;
            if !segment.tombstones.is_live(row, 0) {
                continue;
            }
            if keys.insert(*key, Location { space: segment.space, row }).is_some() {
                let detail = format!("key {key} is live twice, again in segment {}", segment.id);
                return Err(Error::damaged(folder, 0, detail));
            }
        }
    }
    Ok(())
}

fn replay(
    schema: &CollectionSchema,
    folder: &Path,
    state: &mut State,
    keys: &Keys,
    checkpoint: u64,
    record: &ReplayedRecord,
) -> Result<()> {
    for (position, operation) in record.operations.iter().enumerate() {
        let sequence = record.first_sequence + position as u64;
        if sequence <= checkpoint {
            // Its row may have been deleted since, and is in the log all the same.
            state.has_removed = true;
            continue;
        }
        if let LogOperation::Put { key, document, .. } = operation
            && !schema.fits(document)
        {
            let detail = format!("operation {sequence} puts a row under {key} that fits no schema");
            return Err(Error::damaged(folder, 0, detail));
        }
        state.apply(operation, sequence, |key| keys.get(&key).copied());
    }
    Ok(())
}

/// Files and folders that no manifest and no log answers for: what a crash left behind.
pub(super) fn leftovers(loaded: &Loaded) -> Result<Vec<PathBuf>> {
    let folder = &loaded.context.folder;
    let disk = &loaded.context.disk;
    let mut found = Vec::new();
    for name in disk.list(folder)? {
        let is_ours = match (segment_id(&name), manifest::number(&name), file_number(&name)) {
            (Some(id), _, _) => loaded.manifest.segments.iter().any(|entry| entry.id == id),
            (_, Some(number), _) => number == loaded.manifest.number,
            (_, _, Some(number)) => loaded.log.files.iter().any(|file| file.0 == number),
            _ => {
                name == super::live::FILE
                    || Suspects::is_marker(
                        &name,
                        &loaded.manifest.schema,
                        &loaded.manifest.segments,
                    )
            }
        };
        if !is_ours {
            found.push(folder.join(name));
        }
    }
    for entry in &loaded.manifest.segments {
        let segment = crate::segment::segment_folder(folder, entry.id);
        for name in disk.list(&segment)? {
            if !entry.files().any(|file| file.name == name) {
                found.push(segment.join(name));
            }
        }
    }
    Ok(found)
}

/// Cuts the torn tail, makes durable what was replayed, removes what a crash left behind, and says
/// which number the next log file has.
///
/// A process that was killed may have written what it never synced. It was read, so it counts from
/// now on, and the next log file builds on it: it is synced before that file is begun. Older files
/// were synced when they were closed.
pub(super) fn repair(loaded: &Loaded) -> Result<u64> {
    let disk = &loaded.context.disk;
    if let Some(torn) = &loaded.log.torn_tail {
        tracing::info!(
            path = %torn.path.display(),
            valid_bytes = torn.valid_bytes,
            lost_bytes = torn.lost_bytes,
            "cutting the log's torn tail, which was never acknowledged"
        );
        if torn.valid_bytes == 0 {
            disk.remove_file(&torn.path)?;
        }
    }
    if let Some((number, _, valid_bytes)) = loaded.log.files.last() {
        disk.truncate(&log_path(&loaded.context.folder, *number), *valid_bytes)?;
        disk.sync_dir(&loaded.context.folder)?;
    }
    for path in leftovers(loaded)? {
        disk.remove_dir(&path).or_else(|_| disk.remove_file(&path))?;
    }
    Ok(loaded.log.files.last().map_or(0, |file| file.0) + 1)
}
