//! Appending to the log: requests are gathered, then committed together by one write and, when the
//! durability asks for it, one sync. The first failure is final.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use super::operation::encode_all;
use super::{
    FILE_MAGIC, FILE_VERSION, HEADER_BYTES, LogOperation, RECORD_HEADER_BYTES, RECORD_MAGIC,
    log_path,
};
use crate::error::{Error, Result};
use crate::storage::{Disk, WritableFile};

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Sync before a commit returns (survives power loss), or only write (survives the process).
    pub sync_on_commit: bool,
    /// Size at which a file is closed and the next one opened.
    pub file_bytes_max: u64,
}

/// The writing end of one collection's log.
pub struct LogWriter {
    disk: Disk,
    folder: PathBuf,
    uuid: uuid::Uuid,
    settings: LogSettings,
    file: Box<dyn WritableFile>,
    number: u64,
    /// Bytes in the current file, and how many of them are known to be durable.
    length: u64,
    durable: u64,
    /// Gathered since the last commit.
    pending: Vec<u8>,
    next_sequence: u64,
    /// Bytes of all operations gathered since the log was opened.
    gathered_bytes: u64,
    /// Closed files with the last sequence each holds, oldest first.
    closed: VecDeque<ClosedFile>,
    failure: Option<Error>,
}

#[derive(Debug, Clone, Copy)]
struct ClosedFile {
    number: u64,
    last_sequence: u64,
    bytes: u64,
}

impl LogWriter {
    /// Opens a new file `number`, to hold operations from `next_sequence` on. `older` are the files
    /// replayed, each with the last sequence it holds and its size.
    pub fn open(
        disk: Disk,
        folder: PathBuf,
        uuid: uuid::Uuid,
        settings: LogSettings,
        number: u64,
        next_sequence: u64,
        older: impl IntoIterator<Item = (u64, u64, u64)>,
    ) -> Result<Self> {
        let file = start_file(&disk, &folder, uuid, number, next_sequence)?;
        let closed = older
            .into_iter()
            .map(|(number, last_sequence, bytes)| ClosedFile { number, last_sequence, bytes })
            .collect();
        Ok(LogWriter {
            disk,
            folder,
            uuid,
            settings,
            file,
            number,
            length: HEADER_BYTES as u64,
            durable: HEADER_BYTES as u64,
            pending: Vec::new(),
            next_sequence,
            gathered_bytes: 0,
            closed,
            failure: None,
        })
    }

    /// The sequence the next operation gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of the file being written.
    pub fn file_number(&self) -> u64 {
        self.number
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.length + self.closed.iter().map(|file| file.bytes).sum::<u64>()
    }

    /// Bytes of all operations gathered since the log was opened.
    pub fn gathered_bytes(&self) -> u64 {
        self.gathered_bytes
    }

    /// Bytes in this log's record of the operations, before it is appended.
    pub const fn record_bytes_max() -> usize {
        u32::MAX as usize
    }

    /// Gathers the operations of one request as one record and returns the sequence of the first.
    /// Nothing is written before [`LogWriter::commit`].
    pub fn append(&mut self, operations: &[LogOperation]) -> Result<u64> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let first_sequence = self.next_sequence;
        let start = self.pending.len();
        self.pending.resize(start + RECORD_HEADER_BYTES, 0);
        encode_all(operations, &mut self.pending);
        let payload_bytes = self.pending.len() - start - RECORD_HEADER_BYTES;
        let Ok(payload_bytes) = u32::try_from(payload_bytes) else {
            self.pending.truncate(start);
            return Err(Error::internal("a write request is larger than a log record can be"));
        };
        let (header, payload) = self.pending[start..].split_at_mut(RECORD_HEADER_BYTES);
        header[0..4].copy_from_slice(RECORD_MAGIC);
        header[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
        header[8..16].copy_from_slice(&first_sequence.to_le_bytes());
        header[16..24].copy_from_slice(&self.durable.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..24]), payload);
        header[24..28].copy_from_slice(&crc.to_le_bytes());
        self.next_sequence += operations.len() as u64;
        self.gathered_bytes += u64::from(payload_bytes);
        Ok(first_sequence)
    }

    /// Writes what was gathered, and syncs it where the durability asks for it. After a failure
    /// nothing is ever written again: what reached the disk is not known.
    pub fn commit(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.write_pending();
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    fn write_pending(&mut self) -> Result<()> {
        let path = log_path(&self.folder, self.number);
        self.file.write_all(&self.pending).map_err(|e| Error::io("write", path, &e))?;
        self.length += self.pending.len() as u64;
        self.pending.clear();
        if self.pending.capacity() > 16 << 20 {
            self.pending = Vec::new();
        }
        if self.settings.sync_on_commit {
            self.file.sync()?;
            self.durable = self.length;
        }
        if self.length >= self.settings.file_bytes_max {
            self.rotate()?;
        }
        Ok(())
    }

    /// Closes the current file, synced, and opens the next.
    fn rotate(&mut self) -> Result<()> {
        self.file.sync()?;
        let number = self.number + 1;
        let file = start_file(&self.disk, &self.folder, self.uuid, number, self.next_sequence)?;
        self.closed.push_back(ClosedFile {
            number: self.number,
            last_sequence: self.next_sequence - 1,
            bytes: self.length,
        });
        self.file = file;
        self.number = number;
        self.length = HEADER_BYTES as u64;
        self.durable = self.length;
        Ok(())
    }

    /// Makes everything committed durable, whatever the durability.
    pub fn sync(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.file.sync();
        match &result {
            Ok(()) => self.durable = self.length,
            Err(failure) => self.failure = Some(failure.clone()),
        }
        result
    }

    /// Begins a new file, so that the one before can be [trimmed](LogWriter::trim) however small it is. Call
    /// only when everything gathered is committed.
    pub fn begin_file(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.length == HEADER_BYTES as u64 {
            return Ok(());
        }
        let result = self.rotate();
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    /// Removes the files whose every operation is at or below the checkpoint. A file that cannot be
    /// removed is only in the way: it is tried again at the next restart.
    pub fn trim(&mut self, checkpoint: u64) {
        while let Some(file) = self.closed.front()
            && file.last_sequence <= checkpoint
        {
            let path = log_path(&self.folder, file.number);
            if let Err(error) = self.disk.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "log file not removed");
                return;
            }
            self.closed.pop_front();
        }
    }
}

/// Creates a log file with its header, durable before anything is logged in it.
fn start_file(
    disk: &Disk,
    folder: &std::path::Path,
    uuid: uuid::Uuid,
    number: u64,
    first_sequence: u64,
) -> Result<Box<dyn WritableFile>> {
    let path = log_path(folder, number);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(FILE_MAGIC);
    header.extend_from_slice(&FILE_VERSION.to_le_bytes());
    header.extend_from_slice(uuid.as_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    let mut file = disk.create(&path)?;
    file.write_all(&header).map_err(|e| Error::io("write", &path, &e))?;
    file.sync()?;
    disk.sync_dir(folder)?;
    Ok(file)
}
