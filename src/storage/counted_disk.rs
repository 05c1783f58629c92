//! A disk that counts the bytes written through it.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{Directory, Disk, WritableFile};
use crate::error::Result;

/// Another disk, with a count of what is written.
#[derive(Debug)]
pub struct CountedDisk {
    disk: Disk,
    written: Arc<AtomicU64>,
}

struct CountedFile {
    file: Box<dyn WritableFile>,
    written: Arc<AtomicU64>,
}

impl CountedDisk {
    /// Counts what is written to a disk.
    pub fn new(disk: Disk, written: Arc<AtomicU64>) -> Self {
        CountedDisk { disk, written }
    }
}

impl Write for CountedFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WritableFile for CountedFile {
    fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }
}

impl Directory for CountedDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        let file = self.disk.create(path)?;
        Ok(Box::new(CountedFile { file, written: self.written.clone() }))
    }

    fn read(&self, path: &Path) -> Result<Bytes> {
        self.disk.read(path)
    }

    fn map(&self, path: &Path) -> Result<Bytes> {
        self.disk.map(path)
    }

    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        self.disk.truncate(path, length)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.disk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.disk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }

    fn forward_store_root<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.disk.forward_store_root(path)
    }
}
