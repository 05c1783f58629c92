//! Counting and checksumming what is written, on its way to the file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Directory, WritableFile};
use crate::error::{Error, Result};

/// Bytes taken at once, between two looks whether to go on.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes after which a file is synced while it is written: what is left to sync at its end, which nothing
/// can cut short, does not take long then.
const SYNC_BYTES: u64 = 32 << 20;

/// A buffered writer that knows how many bytes went through it and their CRC-32C.
pub struct ChecksumWriter {
    path: PathBuf,
    file: BufWriter<Box<dyn WritableFile>>,
    bytes: u64,
    crc32c: u32,
    /// Where it was synced last.
    synced: u64,
    stop: Option<Arc<AtomicBool>>,
}

impl ChecksumWriter {
    /// Creates the file, which must not exist yet.
    pub fn create(disk: &dyn Directory, path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, disk.create(path)?);
        let path = path.to_path_buf();
        Ok(ChecksumWriter { path, file, bytes: 0, crc32c: 0, synced: 0, stop: None })
    }

    /// Has writing fail once the flag is set.
    pub fn end_by(&mut self, stop: &Arc<AtomicBool>) {
        self.stop = Some(stop.clone());
    }

    fn check_running(&self) -> io::Result<()> {
        match self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            true => Err(io::Error::other("ended early")),
            false => Ok(()),
        }
    }

    /// Writes out and syncs everything, and returns (bytes, CRC-32C).
    pub fn finish(mut self) -> Result<(u64, u32)> {
        self.file.flush().map_err(|e| Error::io("write", &self.path, &e))?;
        self.file.get_mut().sync()?;
        Ok((self.bytes, self.crc32c))
    }
}

impl Write for ChecksumWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check_running()?;
        let written = self.file.write(&data[..data.len().min(PIECE_BYTES)])?;
        self.bytes += written as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data[..written]);
        if self.bytes - self.synced >= SYNC_BYTES {
            self.file.flush()?;
            self.file.get_mut().sync().map_err(io::Error::other)?;
            self.synced = self.bytes;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
