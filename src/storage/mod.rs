//! Files, as the log, the manifest and the segments see them: a small directory trait with two
//! implementations, the real disk and a test disk that tells live bytes from durable ones.
//!
//! What is assumed of a disk: bytes written and then synced survive; a rename, creation or removal
//! survives once its folder was synced; anything else may or may not survive, in any order.

mod checked_line;
mod checksum;
mod counted_disk;
mod real_disk;
mod test_disk;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;

pub use checked_line::{checked_line, with_checksum};
pub use checksum::ChecksumWriter;
pub use counted_disk::CountedDisk;
pub use real_disk::{FolderLock, RealDisk};
pub use test_disk::{TestDisk, Unsynced};

/// A disk shared by all parts of a database.
pub type Disk = Arc<dyn Directory>;

/// The file operations the engine needs. Every path is complete; every error names it.
pub trait Directory: Send + Sync + std::fmt::Debug {
    /// Creates a file that must not exist yet, for writing from its start.
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>>;
    /// Reads a whole file into memory.
    fn read(&self, path: &Path) -> Result<Bytes>;
    /// Maps a file that will never be modified; where mapping is not to be had, reads it.
    fn map(&self, path: &Path) -> Result<Bytes>;
    /// Cuts a file to `length` bytes and syncs it.
    fn truncate(&self, path: &Path, length: u64) -> Result<()>;
    /// The names in a folder, sorted; empty when the folder does not exist.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// True when a file or folder of that path exists.
    fn exists(&self, path: &Path) -> bool;
    /// Creates a folder and its parents; no error when it exists.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// Renames a file or folder; a file in the way is replaced.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file; no error when it is gone already.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Removes a folder and all in it; no error when it is gone already.
    fn remove_dir(&self, path: &Path) -> Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Where the forward store may keep its own files, or `None` when they should be temporary.
    fn forward_store_root<'a>(&self, path: &'a Path) -> Option<&'a Path>;
}

/// A file open for writing at its end.
pub trait WritableFile: Write + Send {
    /// Makes everything written so far durable.
    fn sync(&mut self) -> Result<()>;
}

/// Writes a file under its final name only when it is whole: temporary name, sync, rename, sync of
/// the folder.
pub fn replace_file(disk: &dyn Directory, path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    disk.remove_file(&temporary)?;
    let mut file = disk.create(&temporary)?;
    file.write_all(content).map_err(|e| crate::error::Error::io("write", &temporary, &e))?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => disk.sync_dir(folder),
        None => Ok(()),
    }
}
