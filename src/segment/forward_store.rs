//! Forward values by segment and row, in sled, so that a reply fetches its winners and nothing else.
//!
//! Everything here is derived: `rows.arrow` of each sealed segment holds the same values under the
//! manifest's checksums. A store that is missing, damaged or behind is filled again from there, and
//! until it is, and whenever it fails, rows are read from there too.
//!
//! ```text
//! one sled tree per collection, named by its uuid
//! key   = segment id u32 big-endian, row u32 big-endian        value = crc32c u32, encoded values
//! key   = segment id u32 big-endian, u32::MAX                  value = rows u32, CRC-32C of rows.arrow u32
//! ```
//!
//! The last says that the segment is whole, and whose values these are: a power cut may leave the store
//! as it was before an id was used again, and such values must not be believed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::native::set_aside;
use crate::schema::ForwardRow;
use crate::schema::encoding::{Decoder, put_forward};

/// Rows written to sled in one batch.
const BATCH_ROWS: usize = 1_024;

/// The forward store of a data folder.
#[derive(Debug, Clone)]
pub struct ForwardStore {
    db: Option<sled::Db>,
    is_broken: Arc<AtomicBool>,
}

/// The part of the store that belongs to one collection.
#[derive(Debug, Clone)]
pub struct ForwardTree {
    tree: Option<sled::Tree>,
    is_broken: Arc<AtomicBool>,
}

/// sled 0.34 answers some damage with a panic; here that is one more error. Its memory is counted apart.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(|| set_aside(call))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store panicked".to_string()),
    }
}

impl ForwardStore {
    /// Opens the store at a folder, or a temporary one. A store that does not open is removed and
    /// begun anew: nothing in it is the only copy.
    pub fn open(folder: Option<&Path>, cache_bytes: u64) -> Result<Self> {
        let config = sled::Config::new().cache_capacity(cache_bytes).flush_every_ms(Some(500));
        let opened = match folder {
            None => guarded(|| config.temporary(true).open()),
            Some(folder) => {
                let config = config.path(folder);
                guarded(|| config.open()).or_else(|cause| {
                    tracing::warn!(path = %folder.display(), cause, "forward store rebuilt");
                    if let Err(error) = std::fs::remove_dir_all(folder) {
                        return Err(format!("{cause}; removing it failed: {error}"));
                    }
                    guarded(|| config.open())
                })
            }
        };
        let path = folder.unwrap_or(Path::new("temporary forward store"));
        let db = opened.map_err(|cause| Error::io("open forward store", path, &cause))?;
        Ok(ForwardStore { db: Some(db), is_broken: Arc::default() })
    }

    /// A store that holds nothing and keeps nothing: every row is read from its segment's file.
    pub fn disabled() -> Self {
        ForwardStore { db: None, is_broken: Arc::default() }
    }

    /// The tree of a collection.
    pub fn tree(&self, uuid: &str) -> ForwardTree {
        let tree = self.db.as_ref().and_then(|db| match guarded(|| db.open_tree(uuid)) {
            Ok(tree) => Some(tree),
            Err(cause) => {
                tracing::warn!(uuid, cause, "forward store not used");
                None
            }
        });
        ForwardTree { tree, is_broken: self.is_broken.clone() }
    }

    /// Forgets a collection.
    pub fn drop_tree(&self, uuid: &str) {
        if let Some(db) = &self.db
            && let Err(cause) = guarded(|| db.drop_tree(uuid))
        {
            tracing::warn!(uuid, cause, "forward values of a dropped collection not removed");
        }
    }

    /// Forgets every collection that is not in the list.
    pub fn retain_trees(&self, is_known: impl Fn(&str) -> bool) {
        let Some(db) = &self.db else { return };
        for name in db.tree_names() {
            match std::str::from_utf8(&name) {
                Ok("__sled__default") => {}
                Ok(uuid) if is_known(uuid) => {}
                Ok(uuid) => self.drop_tree(uuid),
                Err(_) => {}
            }
        }
    }

    /// Writes everything out.
    pub fn flush(&self) {
        if let Some(db) = &self.db
            && let Err(cause) = guarded(|| db.flush())
        {
            tracing::warn!(cause, "forward store not flushed");
        }
    }
}

/// A segment as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSegment {
    /// Identity within the collection.
    pub id: u32,
    /// Rows.
    pub rows: u32,
    /// CRC-32C of its rows file.
    pub crc32c: u32,
}

impl StoredSegment {
    fn mark(&self) -> [u8; 8] {
        key(self.rows, self.crc32c)
    }
}

fn key(segment: u32, row: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&segment.to_be_bytes());
    key[4..].copy_from_slice(&row.to_be_bytes());
    key
}

impl ForwardTree {
    fn tree(&self) -> Option<&sled::Tree> {
        self.tree.as_ref().filter(|_| !self.is_broken.load(Ordering::Relaxed))
    }

    fn broken(&self, cause: &str) {
        if !self.is_broken.swap(true, Ordering::Relaxed) {
            tracing::error!(cause, "forward store failed; values are read from segment files");
        }
    }

    /// The values of a row, if the store has them whole.
    pub fn get(&self, segment: u32, row: u32) -> Option<ForwardRow> {
        let tree = self.tree()?;
        match guarded(|| tree.get(key(segment, row))) {
            Ok(found) => decode(&found?),
            Err(cause) => {
                self.broken(&cause);
                None
            }
        }
    }

    /// True when the store holds all rows of just this segment.
    pub fn has_segment(&self, segment: StoredSegment) -> bool {
        let Some(tree) = self.tree() else { return false };
        let mark = guarded(|| tree.get(key(segment.id, u32::MAX)));
        matches!(mark, Ok(Some(mark)) if mark[..] == segment.mark())
    }

    /// Stores all rows of a segment, in row order, in place of whatever was stored under its id.
    pub fn put_segment(
        &self,
        segment: StoredSegment,
        values: impl Iterator<Item = ForwardRow>,
    ) -> bool {
        self.remove_segment(segment.id);
        let Some(tree) = self.tree() else { return false };
        let mut batch = sled::Batch::default();
        let mut rows = 0u32;
        let mut encoded = Vec::new();
        for value in values {
            encoded.clear();
            encoded.extend_from_slice(&[0; 4]);
            put_forward(&mut encoded, &value);
            let crc = crc32c::crc32c(&encoded[4..]);
            encoded[..4].copy_from_slice(&crc.to_le_bytes());
            set_aside(|| batch.insert(&key(segment.id, rows), &encoded[..]));
            rows += 1;
            if (rows as usize).is_multiple_of(BATCH_ROWS)
                && let Err(cause) = guarded(|| tree.apply_batch(std::mem::take(&mut batch)))
            {
                self.broken(&cause);
                return false;
            }
        }
        // Not so where the values ended early.
        if rows == segment.rows {
            batch.insert(&key(segment.id, u32::MAX), &segment.mark());
        }
        match guarded(|| tree.apply_batch(batch)) {
            Ok(()) => rows == segment.rows,
            Err(cause) => {
                self.broken(&cause);
                false
            }
        }
    }

    /// Removes all rows of a segment.
    pub fn remove_segment(&self, segment: u32) {
        let Some(tree) = self.tree() else { return };
        let result = guarded(|| {
            tree.remove(key(segment, u32::MAX))?;
            let mut batch = sled::Batch::default();
            for (count, entry) in tree.scan_prefix(segment.to_be_bytes()).keys().enumerate() {
                batch.remove(entry?);
                if count % BATCH_ROWS == BATCH_ROWS - 1 {
                    tree.apply_batch(std::mem::take(&mut batch))?;
                }
            }
            tree.apply_batch(batch)
        });
        if let Err(cause) = result {
            self.broken(&cause);
        }
    }

    /// Removes every segment that is not in the list.
    pub fn retain_segments(&self, is_known: impl Fn(u32) -> bool) {
        let Some(tree) = self.tree() else { return };
        let mut from = 0u32;
        loop {
            let found = guarded(|| tree.get_gt(key(from, 0)).or_else(|_| Ok(None)));
            let first = guarded(|| tree.get(key(from, 0)));
            let segment = match (first, found) {
                (Ok(Some(_)), _) => from,
                (_, Ok(Some((found, _)))) if found.len() == 8 => {
                    u32::from_be_bytes([found[0], found[1], found[2], found[3]])
                }
                _ => return,
            };
            if !is_known(segment) {
                self.remove_segment(segment);
            }
            match segment.checked_add(1) {
                Some(next) => from = next,
                None => return,
            }
        }
    }
}

fn decode(stored: &[u8]) -> Option<ForwardRow> {
    let (crc, values) = stored.split_at_checked(4)?;
    if crc != crc32c::crc32c(values).to_le_bytes() {
        return None;
    }
    Decoder::new(Bytes::copy_from_slice(values)).forward().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Value;

    fn stored(id: u32) -> StoredSegment {
        StoredSegment { id, rows: 2_000, crc32c: 5 }
    }

    fn row(n: i32) -> ForwardRow {
        vec![Some(Value::Int32(n)), None].into()
    }

    #[test]
    fn segments_come_and_go_whole() {
        let store = ForwardStore::open(None, 1 << 20).unwrap();
        let tree = store.tree("a");
        for segment in [0, 3, 7] {
            assert!(tree.put_segment(stored(segment), (0..2_000).map(row)));
        }
        assert!(tree.has_segment(stored(3)));
        assert!(!tree.has_segment(StoredSegment { rows: 1_999, ..stored(3) }));
        assert!(!tree.has_segment(StoredSegment { crc32c: 6, ..stored(3) }));
        assert_eq!(tree.get(3, 1_999), Some(row(1_999)));
        assert_eq!(tree.get(3, 2_000), None);
        tree.retain_segments(|segment| segment == 3);
        assert!(!tree.has_segment(stored(0)) && tree.has_segment(stored(3)));
        assert_eq!((tree.get(0, 5), tree.get(7, 5)), (None, None));
    }

    #[test]
    fn a_damaged_store_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forward.sled");
        {
            let store = ForwardStore::open(Some(&path), 1 << 20).unwrap();
            store.tree("a").put_segment(stored(0), (0..100).map(row));
            store.flush();
        }
        for entry in std::fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                std::fs::write(&file, b"not what it was").unwrap();
            }
        }
        let tree = ForwardStore::open(Some(&path), 1 << 20).unwrap().tree("a");
        assert_eq!(tree.get(0, 5), None);
        tree.put_segment(stored(0), (0..100).map(row));
        assert_eq!(tree.get(0, 5), Some(row(5)));
    }
}
