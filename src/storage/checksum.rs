//! Counting and checksumming what is written, on its way to the file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Directory, WritableFile};
use crate::error::{Error, Result};

/// A buffered writer that knows how many bytes went through it and their CRC-32C.
pub struct ChecksumWriter {
    path: PathBuf,
    file: BufWriter<Box<dyn WritableFile>>,
    bytes: u64,
    crc32c: u32,
}

impl ChecksumWriter {
    /// Creates the file, which must not exist yet.
    pub fn create(disk: &dyn Directory, path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, disk.create(path)?);
        Ok(ChecksumWriter { path: path.to_path_buf(), file, bytes: 0, crc32c: 0 })
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
        let written = self.file.write(data)?;
        self.bytes += written as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
