//! A disk in memory that tells live bytes from durable ones, stops at the Nth sync, and can be
//! crashed: what was never synced is then lost, or partly there, as the caller chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Directory, WritableFile};
use crate::error::{Error, Result};

/// What becomes of bytes that were written but not synced when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// They are gone.
    Lost,
    /// This share of them, in 256ths, from the start of the unsynced part, is there.
    Torn(u8),
    /// All are there.
    Kept,
}

/// A disk in memory. Clones share the same bytes.
#[derive(Debug, Clone, Default)]
pub struct TestDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What a running process sees.
    live: BTreeMap<PathBuf, Arc<Mutex<Contents>>>,
    live_dirs: BTreeSet<PathBuf>,
    /// What is left after a crash: the entries of synced folders.
    durable: BTreeMap<PathBuf, Arc<Mutex<Contents>>>,
    durable_dirs: BTreeSet<PathBuf>,
    syncs: u64,
    stop_at: Option<u64>,
    stopped: bool,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    live: Vec<u8>,
    synced: Vec<u8>,
}

impl State {
    fn check(&self, operation: &'static str, path: &Path) -> Result<()> {
        if self.stopped {
            return Err(Error::io(operation, path, &"the disk has stopped"));
        }
        Ok(())
    }

    fn count_sync(&mut self, path: &Path) -> Result<()> {
        self.check("sync", path)?;
        self.syncs += 1;
        if self.stop_at == Some(self.syncs) {
            self.stopped = true;
        }
        self.check("sync", path)
    }
}

impl TestDisk {
    /// An empty disk that never stops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the disk at the `nth` sync from now (1 is the next): that sync and everything after it
    /// fails, and makes nothing durable.
    pub fn stop_at_sync(&self, nth: u64) {
        let mut state = self.state.lock();
        state.stop_at = Some(state.syncs + nth);
    }

    /// Syncs made so far, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// True once the disk has stopped.
    pub fn has_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// The disk as a restarted machine finds it. The old handle goes on as it was.
    pub fn after_power_cut(&self, unsynced: Unsynced) -> TestDisk {
        let state = self.state.lock();
        let mut files = BTreeMap::new();
        for (path, contents) in &state.durable {
            let contents = contents.lock();
            let mut bytes = contents.synced.clone();
            let extra = contents.live.get(bytes.len()..).unwrap_or_default();
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Torn(share) => {
                    bytes.extend_from_slice(&extra[..extra.len() * usize::from(share) / 256]);
                }
                Unsynced::Kept => bytes.extend_from_slice(extra),
            }
            let contents = Contents { live: bytes.clone(), synced: bytes };
            files.insert(path.clone(), Arc::new(Mutex::new(contents)));
        }
        Self::with(files, state.durable_dirs.clone())
    }

    /// The disk as a restarted process finds it after kill -9: everything written is there, though
    /// what was not synced still is not.
    pub fn after_kill(&self) -> TestDisk {
        let state = self.state.lock();
        let mut copies: BTreeMap<usize, Arc<Mutex<Contents>>> = BTreeMap::new();
        let mut copy = |contents: &Arc<Mutex<Contents>>| {
            let copy = copies.entry(Arc::as_ptr(contents).addr());
            copy.or_insert_with(|| Arc::new(Mutex::new(contents.lock().clone()))).clone()
        };
        let live = state.live.iter().map(|(path, c)| (path.clone(), copy(c))).collect();
        let durable = state.durable.iter().map(|(path, c)| (path.clone(), copy(c))).collect();
        let state = State {
            live,
            live_dirs: state.live_dirs.clone(),
            durable,
            durable_dirs: state.durable_dirs.clone(),
            ..State::default()
        };
        TestDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn with(files: BTreeMap<PathBuf, Arc<Mutex<Contents>>>, dirs: BTreeSet<PathBuf>) -> TestDisk {
        let state = State {
            live: files.clone(),
            live_dirs: dirs.clone(),
            durable: files,
            durable_dirs: dirs,
            ..State::default()
        };
        TestDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Every file, for tests that damage them.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().live.keys().cloned().collect()
    }

    /// Changes the bytes of a file, live and durable alike.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(contents) = self.state.lock().live.get(path) {
            let mut contents = contents.lock();
            change(&mut contents.live);
            contents.synced = contents.live.clone();
        }
    }

    fn contents(&self, operation: &'static str, path: &Path) -> Result<Arc<Mutex<Contents>>> {
        let state = self.state.lock();
        state.check(operation, path)?;
        let found = state.live.get(path).cloned();
        found.ok_or_else(|| Error::io(operation, path, &"no such file"))
    }
}

struct TestFile {
    path: PathBuf,
    contents: Arc<Mutex<Contents>>,
    disk: TestDisk,
}

impl Write for TestFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.disk.has_stopped() {
            return Err(io::Error::other("the disk has stopped"));
        }
        self.contents.lock().live.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WritableFile for TestFile {
    fn sync(&mut self) -> Result<()> {
        self.disk.state.lock().count_sync(&self.path)?;
        let mut contents = self.contents.lock();
        contents.synced = contents.live.clone();
        Ok(())
    }
}

impl Directory for TestDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        let mut state = self.state.lock();
        state.check("create", path)?;
        if state.live.contains_key(path) {
            return Err(Error::io("create", path, &"the file exists"));
        }
        if !path.parent().is_some_and(|folder| state.live_dirs.contains(folder)) {
            return Err(Error::io("create", path, &"no such folder"));
        }
        let contents = Arc::new(Mutex::new(Contents::default()));
        state.live.insert(path.to_path_buf(), contents.clone());
        drop(state);
        Ok(Box::new(TestFile { path: path.to_path_buf(), contents, disk: self.clone() }))
    }

    fn read(&self, path: &Path) -> Result<Bytes> {
        Ok(Bytes::from(self.contents("read", path)?.lock().live.clone()))
    }

    fn map(&self, path: &Path) -> Result<Bytes> {
        // Mapped files start on a page; so must these bytes start where vectors can be read.
        let contents = self.contents("map", path)?;
        let contents = contents.lock();
        let mut aligned = arrow_buffer::MutableBuffer::new(contents.live.len());
        aligned.extend_from_slice(&contents.live);
        Ok(Bytes::from_owner(arrow_buffer::Buffer::from(aligned)))
    }

    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        let contents = self.contents("truncate", path)?;
        contents.lock().live.truncate(length as usize);
        self.state.lock().count_sync(path)?;
        let mut contents = contents.lock();
        contents.synced = contents.live.clone();
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let state = self.state.lock();
        state.check("list", path)?;
        let children = state.live.keys().chain(&state.live_dirs);
        let names = children
            .filter(|child| child.parent() == Some(path))
            .filter_map(|child| child.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect::<BTreeSet<String>>().into_iter().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state.lock();
        state.live.contains_key(path) || state.live_dirs.contains(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.check("create folder", path)?;
        for folder in path.ancestors() {
            state.live_dirs.insert(folder.to_path_buf());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.check("rename", from)?;
        if let Some(contents) = state.live.remove(from) {
            state.live.insert(to.to_path_buf(), contents);
            return Ok(());
        }
        if !state.live_dirs.contains(from) {
            return Err(Error::io("rename", from, &"no such file or folder"));
        }
        let moved = |path: &PathBuf| path.strip_prefix(from).map(|rest| to.join(rest)).ok();
        let files = std::mem::take(&mut state.live);
        state.live = files.into_iter().map(|(path, c)| (moved(&path).unwrap_or(path), c)).collect();
        let dirs = std::mem::take(&mut state.live_dirs);
        state.live_dirs = dirs.into_iter().map(|path| moved(&path).unwrap_or(path)).collect();
        // A renamed folder takes the durable entries inside it along, once its parent is synced:
        // until then a crash finds it under the old name.
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.check("remove", path)?;
        state.live.remove(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.check("remove folder", path)?;
        state.live.retain(|file, _| !file.starts_with(path));
        state.live_dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.count_sync(path)?;
        let state = &mut *state;
        // The entries of this folder become durable as they are now: additions and removals of
        // files, and of folders. A folder that moved here brings its own durable entries, known
        // by the files' identity.
        let live_dirs: Vec<PathBuf> =
            state.live_dirs.iter().filter(|d| d.parent() == Some(path)).cloned().collect();
        let gone: Vec<PathBuf> = state
            .durable_dirs
            .iter()
            .filter(|d| d.parent() == Some(path) && !state.live_dirs.contains(*d))
            .cloned()
            .collect();
        let mut orphans: Vec<Arc<Mutex<Contents>>> = Vec::new();
        for dir in gone {
            state.durable.retain(|file, contents| {
                let keep = !file.starts_with(&dir);
                if !keep {
                    orphans.push(contents.clone());
                }
                keep
            });
            state.durable_dirs.retain(|d| !d.starts_with(&dir));
        }
        for orphan in orphans {
            let moved = state.live.iter().find(|(_, c)| Arc::ptr_eq(c, &orphan));
            if let Some((file, _)) = moved {
                state.durable.insert(file.clone(), orphan);
            }
        }
        for dir in path.ancestors() {
            state.durable_dirs.insert(dir.to_path_buf());
        }
        state.durable_dirs.extend(live_dirs);
        state.durable.retain(|file, _| file.parent() != Some(path));
        for (file, contents) in &state.live {
            if file.parent() == Some(path) {
                state.durable.insert(file.clone(), contents.clone());
            }
        }
        Ok(())
    }

    fn forward_store_root<'a>(&self, _path: &'a Path) -> Option<&'a Path> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &TestDisk, path: &str, bytes: &[u8], sync: bool) {
        let mut file = disk.create(Path::new(path)).unwrap();
        file.write_all(bytes).unwrap();
        if sync {
            file.sync().unwrap();
        }
    }

    #[test]
    fn only_what_was_synced_survives_a_power_cut() {
        let disk = TestDisk::new();
        disk.create_dir(Path::new("/d")).unwrap();
        write(&disk, "/d/synced", b"one", true);
        write(&disk, "/d/written", b"twoo", false);
        disk.sync_dir(Path::new("/d")).unwrap();
        write(&disk, "/d/unlisted", b"three", true);

        let lost = disk.after_power_cut(Unsynced::Lost);
        assert_eq!(lost.list(Path::new("/d")).unwrap(), ["synced", "written"]);
        assert_eq!(&lost.read(Path::new("/d/synced")).unwrap()[..], b"one");
        assert_eq!(&lost.read(Path::new("/d/written")).unwrap()[..], b"");
        let torn = disk.after_power_cut(Unsynced::Torn(128));
        assert_eq!(&torn.read(Path::new("/d/written")).unwrap()[..], b"tw");
        let killed = disk.after_kill();
        assert_eq!(&killed.read(Path::new("/d/unlisted")).unwrap()[..], b"three");
    }

    #[test]
    fn a_renamed_folder_is_durable_under_its_new_name_after_the_parent_is_synced() {
        let disk = TestDisk::new();
        disk.create_dir(Path::new("/d/a.tmp")).unwrap();
        write(&disk, "/d/a.tmp/file", b"x", true);
        disk.sync_dir(Path::new("/d/a.tmp")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(Path::new("/d/a.tmp"), Path::new("/d/a")).unwrap();
        assert!(disk.after_power_cut(Unsynced::Lost).exists(Path::new("/d/a.tmp/file")));
        disk.sync_dir(Path::new("/d")).unwrap();
        let after = disk.after_power_cut(Unsynced::Lost);
        assert!(after.exists(Path::new("/d/a/file")) && !after.exists(Path::new("/d/a.tmp")));
    }

    #[test]
    fn a_stopped_disk_does_nothing_more() {
        let disk = TestDisk::new();
        disk.create_dir(Path::new("/d")).unwrap();
        disk.stop_at_sync(2);
        write(&disk, "/d/a", b"x", true);
        assert!(disk.sync_dir(Path::new("/d")).is_err());
        assert!(disk.create(Path::new("/d/b")).is_err());
        assert!(disk.has_stopped());
    }
}
