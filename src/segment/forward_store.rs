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
//!
//! sled's file never shrinks, and what was removed stays in it until its place is needed. So the store is
//! *renewed* when values of deleted rows were removed: an empty one takes its place, collections fill it
//! with what they have, and the old one's files are removed. The first store lies in the folder itself,
//! later ones in `store-<number>` there, of which the highest counts. The default tree has the key `clean`
//! as long as nothing of deleted rows was removed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::native::set_aside;
use crate::schema::ForwardRow;
use crate::schema::encoding::{Decoder, put_forward};

/// Rows written to sled in one batch.
const BATCH_ROWS: usize = 1_024;
/// The key of the default tree that says that nothing of deleted rows was removed.
const CLEAN: &[u8] = b"clean";
/// Live bytes up to which a store is small.
const SMALL_BYTES: u64 = 32 << 20;
/// The time after which a small store is renewed again ...
const SMALL_AFTER: Duration = Duration::from_secs(5);
/// ... and a larger one.
const LARGE_AFTER: Duration = Duration::from_secs(3_600);
/// How long a renewal waits for those who still read the old store.
const PATIENCE: Duration = Duration::from_secs(10);

/// The forward store of a data folder.
#[derive(Debug, Clone)]
pub struct ForwardStore {
    shared: Option<Arc<Shared>>,
}

/// The part of the store that belongs to one collection.
#[derive(Debug, Clone)]
pub struct ForwardTree {
    shared: Option<Arc<Shared>>,
    uuid: Arc<str>,
    /// Opened when it is needed, and given up when the store is renewed.
    opened: Arc<ArcSwapOption<OpenTree>>,
    written: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Shared {
    /// Where it lies; temporary ones lie nowhere in particular.
    folder: Option<PathBuf>,
    cache_bytes: u64,
    current: RwLock<Current>,
    /// Counts renewals in this process, from 1.
    generation: AtomicU64,
    /// Held by whoever changes values, and alone by a renewal while one store takes the other's place.
    changing: RwLock<()>,
    renewing: Mutex<Renewals>,
    trees: Mutex<Vec<Weak<ArcSwapOption<OpenTree>>>>,
    /// Something of deleted rows was removed.
    is_unclean: AtomicBool,
    /// Bytes of values that are there, roughly.
    live_bytes: AtomicU64,
    is_broken: AtomicBool,
}

#[derive(Debug)]
struct Current {
    db: sled::Db,
    /// Of the folder `store-<number>`; 0 for the store in the folder itself.
    number: u64,
}

#[derive(Debug)]
struct Renewals {
    last: Option<Instant>,
}

#[derive(Debug)]
struct OpenTree {
    tree: sled::Tree,
    generation: u64,
}

/// sled 0.34 answers some damage with a panic; here that is one more error. Its memory is counted apart.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(|| set_aside(call))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store panicked".to_string()),
    }
}

/// The folder of a store.
fn store_folder(root: &Path, number: u64) -> PathBuf {
    match number {
        0 => root.to_path_buf(),
        number => root.join(format!("store-{number}")),
    }
}

/// The number in a store folder's name; far below what could not be counted on from.
fn store_number(name: &std::ffi::OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix("store-")?.parse::<u32>().ok().map(u64::from)
}

/// What lies in the store's folder; nothing where there is none.
fn entries(root: &Path) -> Vec<std::fs::DirEntry> {
    std::fs::read_dir(root).map_or(Vec::new(), |entries| entries.flatten().collect())
}

/// Removes every store but one.
fn remove_others(root: &Path, number: u64) {
    for entry in entries(root) {
        // Whatever is not the folder of a later store belongs to the first.
        if store_number(&entry.file_name()).unwrap_or(0) == number {
            continue;
        }
        let path = entry.path();
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "part of an old forward store not removed");
        }
    }
}

fn open_db(folder: Option<&Path>, cache_bytes: u64) -> std::result::Result<sled::Db, String> {
    let config = sled::Config::new().cache_capacity(cache_bytes).flush_every_ms(Some(500));
    let config = match folder {
        Some(folder) => config.path(folder),
        None => config.temporary(true),
    };
    guarded(|| {
        let db = config.open()?;
        if !db.was_recovered() {
            db.insert(CLEAN, &[])?;
        }
        Ok(db)
    })
}

impl ForwardStore {
    /// Opens the store at a folder, or a temporary one. A store that does not open is removed and
    /// begun anew: nothing in it is the only copy.
    pub fn open(folder: Option<&Path>, cache_bytes: u64) -> Result<Self> {
        let mut number = 0;
        let opened = match folder {
            None => open_db(None, cache_bytes),
            Some(root) => {
                let names = entries(root).into_iter().map(|entry| entry.file_name());
                number = names.filter_map(|name| store_number(&name)).max().unwrap_or(0);
                open_db(Some(&store_folder(root, number)), cache_bytes).or_else(|cause| {
                    tracing::warn!(path = %root.display(), cause, "forward store rebuilt");
                    number = 0;
                    if let Err(error) = std::fs::remove_dir_all(root) {
                        return Err(format!("{cause}; removing it failed: {error}"));
                    }
                    open_db(Some(root), cache_bytes)
                })
            }
        };
        let path = folder.unwrap_or(Path::new("temporary forward store"));
        let db = opened.map_err(|cause| Error::io("open forward store", path, &cause))?;
        folder.iter().for_each(|root| remove_others(root, number));
        let is_clean = guarded(|| db.contains_key(CLEAN)).unwrap_or(false);
        let live_bytes = guarded(|| db.size_on_disk()).unwrap_or(0);
        let shared = Shared {
            folder: folder.map(Path::to_path_buf),
            cache_bytes,
            current: RwLock::new(Current { db, number }),
            generation: AtomicU64::new(1),
            changing: RwLock::default(),
            renewing: Mutex::new(Renewals { last: None }),
            trees: Mutex::default(),
            is_unclean: AtomicBool::new(!is_clean),
            live_bytes: AtomicU64::new(live_bytes),
            is_broken: AtomicBool::new(false),
        };
        Ok(ForwardStore { shared: Some(Arc::new(shared)) })
    }

    /// A store that holds nothing and keeps nothing: every row is read from its segment's file.
    pub fn disabled() -> Self {
        ForwardStore { shared: None }
    }

    /// The tree of a collection.
    pub fn tree(&self, uuid: &str) -> ForwardTree {
        let opened: Arc<ArcSwapOption<OpenTree>> = Arc::default();
        if let Some(shared) = &self.shared {
            let mut trees = shared.trees.lock();
            trees.retain(|tree| tree.strong_count() > 0);
            trees.push(Arc::downgrade(&opened));
        }
        ForwardTree {
            shared: self.shared.clone(),
            uuid: uuid.into(),
            opened,
            written: Arc::default(),
        }
    }

    /// Forgets a collection.
    pub fn drop_tree(&self, uuid: &str) {
        let Some(shared) = &self.shared else { return };
        let _changing = shared.changing.read();
        let db = shared.current.read().db.clone();
        if !guarded(|| Ok(db.tree_names().iter().any(|name| name[..] == *uuid.as_bytes())))
            .unwrap_or(true)
        {
            return;
        }
        shared.note_removal();
        if let Err(cause) = guarded(|| db.drop_tree(uuid)) {
            tracing::warn!(uuid, cause, "forward values of a dropped collection not removed");
        }
    }

    /// Forgets every collection that is not in the list.
    pub fn retain_trees(&self, is_known: impl Fn(&str) -> bool) {
        let Some(shared) = &self.shared else { return };
        let names = shared.current.read().db.tree_names();
        for name in names {
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
        let Some(shared) = &self.shared else { return };
        let db = shared.current.read().db.clone();
        if let Err(cause) = guarded(|| db.flush()) {
            tracing::warn!(cause, "forward store not flushed");
        }
    }

    /// Renews the store where that is due. Collections then find that it [lacks](ForwardTree::generation)
    /// their segments.
    pub fn renew_if_due(&self) {
        if let Some(shared) = &self.shared {
            shared.renew_if_due();
        }
    }
}

impl Shared {
    /// Remembers, beyond a restart too, that the file has values of deleted rows.
    fn note_removal(&self) {
        if !self.is_unclean.swap(true, Ordering::SeqCst) {
            let db = self.current.read().db.clone();
            if let Err(cause) = guarded(|| db.remove(CLEAN)) {
                tracing::warn!(cause, "a removal from the forward store is not noted");
            }
        }
    }

    /// A store is renewed whenever something of deleted rows was removed from it, a large one not twice in an
    /// hour: all values that live are written anew.
    fn is_renewal_due(&self, renewals: &Renewals) -> bool {
        let pause = match self.live_bytes.load(Ordering::Relaxed) {
            ..=SMALL_BYTES => SMALL_AFTER,
            _ => LARGE_AFTER,
        };
        self.is_unclean.load(Ordering::SeqCst)
            && !self.is_broken.load(Ordering::Relaxed)
            && renewals.last.is_none_or(|last| last.elapsed() >= pause)
    }

    fn renew_if_due(&self) {
        let Some(mut renewals) = self.renewing.try_lock() else { return };
        if !self.is_renewal_due(&renewals) {
            return;
        }
        renewals.last = Some(Instant::now());
        if let Err(cause) = self.renew() {
            tracing::warn!(cause, "forward store not renewed");
        }
    }

    fn renew(&self) -> std::result::Result<(), String> {
        let number = self.current.read().number + 1;
        let folder = self.folder.as_ref().map(|root| store_folder(root, number));
        let db = open_db(folder.as_deref(), self.cache_bytes)?;
        let (old, handles) = {
            let _changing = self.changing.write();
            let mut current = self.current.write();
            let old = std::mem::replace(&mut *current, Current { db, number });
            self.generation.fetch_add(1, Ordering::SeqCst);
            self.is_unclean.store(false, Ordering::SeqCst);
            self.live_bytes.store(0, Ordering::Relaxed);
            let trees = self.trees.lock();
            let opened = trees.iter().filter_map(|tree| tree.upgrade()?.swap(None));
            (old, opened.collect::<Vec<Arc<OpenTree>>>())
        };
        // sled closes a store, with its thread and its memory, when the last who uses it has gone.
        let started = Instant::now();
        while handles.iter().any(|handle| Arc::strong_count(handle) > 1)
            && started.elapsed() < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let closed = guarded(|| {
            drop(handles);
            drop(old);
            Ok(())
        });
        self.folder.iter().for_each(|root| remove_others(root, number));
        tracing::info!(number, "forward store renewed");
        closed
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
    fn usable(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref().filter(|shared| !shared.is_broken.load(Ordering::Relaxed))
    }

    fn tree(&self) -> Option<Arc<OpenTree>> {
        let shared = self.usable()?;
        if let Some(opened) = &*self.opened.load() {
            return Some(opened.clone());
        }
        // A renewal gives up what is opened while it holds this lock.
        let current = shared.current.read();
        let generation = shared.generation.load(Ordering::SeqCst);
        match guarded(|| current.db.open_tree(&*self.uuid)) {
            Ok(tree) => {
                let opened = Arc::new(OpenTree { tree, generation });
                self.opened.store(Some(opened.clone()));
                Some(opened)
            }
            Err(cause) => {
                self.broken(generation, &cause);
                None
            }
        }
    }

    /// The store of one generation failed; one whose place another has taken does not matter.
    fn broken(&self, generation: u64, cause: &str) {
        let Some(shared) = &self.shared else { return };
        if shared.generation.load(Ordering::SeqCst) == generation
            && !shared.is_broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(cause, "forward store failed; values are read from segment files");
        }
    }

    /// Bytes written so far, of keys and values.
    pub fn written(&self) -> Arc<AtomicU64> {
        self.written.clone()
    }

    /// Which of the stores that there are one after the other this is; 0 where there is none. What was
    /// stored in another one is not there any more.
    pub fn generation(&self) -> u64 {
        self.usable().map_or(0, |shared| shared.generation.load(Ordering::Acquire))
    }

    /// Renews the store, of all collections, where that is due.
    pub fn renew_if_due(&self) {
        if let Some(shared) = self.usable() {
            shared.renew_if_due();
        }
    }

    /// True where [`ForwardTree::renew_if_due`] has something to do.
    pub fn is_renewal_due(&self) -> bool {
        let Some(shared) = self.usable() else { return false };
        shared.renewing.try_lock().is_some_and(|renewals| shared.is_renewal_due(&renewals))
    }

    /// The values of a row, if the store has them whole.
    pub fn get(&self, segment: u32, row: u32) -> Option<ForwardRow> {
        let opened = self.tree()?;
        match guarded(|| opened.tree.get(key(segment, row))) {
            Ok(found) => decode(&found?),
            Err(cause) => {
                self.broken(opened.generation, &cause);
                None
            }
        }
    }

    /// The generation of the store that holds all rows of just this segment.
    pub fn has_segment(&self, segment: StoredSegment) -> Option<u64> {
        let opened = self.tree()?;
        let mark = guarded(|| opened.tree.get(key(segment.id, u32::MAX)));
        matches!(mark, Ok(Some(mark)) if mark[..] == segment.mark()).then_some(opened.generation)
    }

    /// Stores all rows of a segment, in row order, in place of whatever was stored under its id, and tells
    /// the generation of the store that has them.
    pub fn put_segment(
        &self,
        segment: StoredSegment,
        values: impl Iterator<Item = ForwardRow>,
    ) -> Option<u64> {
        let is_same = self.has_segment(segment).is_some();
        self.remove_segment(segment.id, !is_same);
        let shared = self.usable()?;
        let _changing = shared.changing.read();
        let opened = self.tree()?;
        let mut batch = sled::Batch::default();
        let mut rows = 0u32;
        let mut bytes = 0;
        let mut encoded = Vec::new();
        let apply = |batch| {
            let applied = guarded(|| opened.tree.apply_batch(batch));
            applied.inspect_err(|cause| self.broken(opened.generation, cause)).ok()
        };
        for value in values {
            encoded.clear();
            encoded.extend_from_slice(&[0; 4]);
            put_forward(&mut encoded, &value);
            let crc = crc32c::crc32c(&encoded[4..]);
            encoded[..4].copy_from_slice(&crc.to_le_bytes());
            set_aside(|| batch.insert(&key(segment.id, rows), &encoded[..]));
            bytes += (8 + encoded.len()) as u64;
            rows += 1;
            if (rows as usize).is_multiple_of(BATCH_ROWS) {
                apply(std::mem::take(&mut batch))?;
            }
        }
        // Not so where the values ended early.
        if rows == segment.rows {
            batch.insert(&key(segment.id, u32::MAX), &segment.mark());
        }
        apply(batch)?;
        self.written.fetch_add(bytes, Ordering::Relaxed);
        shared.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        (rows == segment.rows).then_some(opened.generation)
    }

    /// Removes all rows of a segment, some of which may have been deleted.
    pub fn remove_segment(&self, segment: u32, has_deleted: bool) {
        let Some(shared) = self.usable() else { return };
        let _changing = shared.changing.read();
        let Some(opened) = self.tree() else { return };
        let tree = &opened.tree;
        let removed = guarded(|| {
            tree.remove(key(segment, u32::MAX))?;
            let mut batch = sled::Batch::default();
            let mut bytes = 0;
            for (count, entry) in tree.scan_prefix(segment.to_be_bytes()).enumerate() {
                let (key, value) = entry?;
                bytes += (key.len() + value.len()) as u64;
                batch.remove(key);
                if count % BATCH_ROWS == BATCH_ROWS - 1 {
                    tree.apply_batch(std::mem::take(&mut batch))?;
                }
            }
            tree.apply_batch(batch)?;
            Ok(bytes)
        });
        match removed {
            Ok(0) => {}
            Ok(bytes) => {
                let live = shared.live_bytes.load(Ordering::Relaxed).saturating_sub(bytes);
                shared.live_bytes.store(live, Ordering::Relaxed);
                if has_deleted {
                    shared.note_removal();
                }
            }
            Err(cause) => self.broken(opened.generation, &cause),
        }
    }

    /// Removes every segment that is not in the list.
    pub fn retain_segments(&self, is_known: impl Fn(u32) -> bool) {
        let mut from = 0u32;
        loop {
            let Some(opened) = self.tree() else { return };
            let found = guarded(|| opened.tree.get_gt(key(from, 0)).or_else(|_| Ok(None)));
            let first = guarded(|| opened.tree.get(key(from, 0)));
            drop(opened);
            let segment = match (first, found) {
                (Ok(Some(_)), _) => from,
                (_, Ok(Some((found, _)))) if found.len() == 8 => {
                    u32::from_be_bytes([found[0], found[1], found[2], found[3]])
                }
                _ => return,
            };
            if !is_known(segment) {
                self.remove_segment(segment, true);
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
            assert_eq!(tree.put_segment(stored(segment), (0..2_000).map(row)), Some(1));
        }
        assert_eq!(tree.has_segment(stored(3)), Some(1));
        assert_eq!(tree.has_segment(StoredSegment { rows: 1_999, ..stored(3) }), None);
        assert_eq!(tree.has_segment(StoredSegment { crc32c: 6, ..stored(3) }), None);
        assert_eq!(tree.get(3, 1_999), Some(row(1_999)));
        assert_eq!(tree.get(3, 2_000), None);
        tree.retain_segments(|segment| segment == 3);
        assert_eq!((tree.has_segment(stored(0)), tree.has_segment(stored(3))), (None, Some(1)));
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

    fn bytes_of(path: &Path) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
            if entry.file_type().is_file() {
                all.extend(std::fs::read(entry.path()).unwrap());
            }
        }
        all
    }

    fn text(secret: &str) -> impl Fn(u32) -> ForwardRow {
        move |row| vec![Some(Value::String(format!("{secret}{row}")))].into()
    }

    #[test]
    fn nothing_that_was_removed_is_left_by_a_renewal_or_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forward.sled");
        let open = || ForwardStore::open(Some(&path), 1 << 20).unwrap();
        let has = |secret: &str| {
            bytes_of(&path).windows(secret.len()).any(|window| window == secret.as_bytes())
        };
        let store = open();
        let tree = store.tree("a");
        tree.put_segment(stored(0), (0..2_000).map(text("secret")));
        tree.put_segment(stored(1), (0..2_000).map(text("public")));
        tree.remove_segment(0, false);
        assert!(!tree.is_renewal_due(), "nothing of deleted rows was removed");
        tree.put_segment(stored(0), (0..2_000).map(text("secret")));
        tree.remove_segment(0, true);
        store.flush();
        assert!(has("secret1999") && has("public1999"));
        drop((store, tree));

        let store = open();
        let tree = store.tree("a");
        assert_eq!((tree.is_renewal_due(), tree.generation()), (true, 1), "known after a restart");
        store.renew_if_due();
        assert_eq!((tree.is_renewal_due(), tree.generation()), (false, 2));
        assert_eq!((tree.get(1, 5), tree.has_segment(stored(1))), (None, None));
        assert_eq!(tree.put_segment(stored(1), (0..2_000).map(text("public"))), Some(2));
        store.flush();
        assert!(!has("secret") && has("public1999"));
        assert_eq!(tree.get(1, 1_999), Some(text("public")(1_999)));
        drop((store, tree));

        let store = open();
        let tree = store.tree("a");
        assert_eq!(tree.has_segment(stored(1)), Some(1), "the later store is the one");
        tree.remove_segment(1, true);
        store.renew_if_due();
        store.flush();
        assert!(!has("public"));
    }
}
