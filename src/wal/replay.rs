//! Reading a log back: every record checked, a torn tail told from damage.

use std::path::Path;

use bytes::Bytes;

use super::operation::decode_all;
use super::{
    FILE_MAGIC, FILE_VERSION, HEADER_BYTES, LogOperation, RECORD_HEADER_BYTES, RECORD_MAGIC,
    file_number, log_path,
};
use crate::error::{Error, Result};
use crate::storage::Directory;

/// One record read back.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayedRecord {
    /// Sequence of the first operation; the others follow by one each.
    pub first_sequence: u64,
    /// The operations.
    pub operations: Vec<LogOperation>,
}

/// What was found besides the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogContents {
    /// The files, oldest first: number, last sequence held, valid bytes.
    pub files: Vec<(u64, u64, u64)>,
    /// Sequence that the next operation gets.
    pub next_sequence: u64,
    /// The newest file's torn tail, if it has one: where it must be cut.
    pub torn_tail: Option<TornTail>,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// A tail that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: std::path::PathBuf,
    /// The length to cut it to; 0 when not even the header is whole, and the file is to be removed.
    pub valid_bytes: u64,
    /// What the file holds beyond that.
    pub lost_bytes: u64,
}

/// Reads every record above `checkpoint`, in order, and hands it to `apply`. `newest_known` is the
/// number of a file that must exist: the manifest saw it.
pub fn read_log(
    disk: &dyn Directory,
    folder: &Path,
    uuid: uuid::Uuid,
    checkpoint: u64,
    newest_known: u64,
    mut apply: impl FnMut(ReplayedRecord) -> Result<()>,
) -> Result<LogContents> {
    let mut numbers: Vec<u64> =
        disk.list(folder)?.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    if numbers.last().copied().unwrap_or(0) < newest_known {
        let path = log_path(folder, newest_known);
        return Err(Error::damaged(path, 0, "the log file that the manifest names is missing"));
    }
    let mut contents = LogContents { next_sequence: checkpoint + 1, ..LogContents::default() };
    let mut next_in_log: Option<u64> = None;
    for (position, &number) in numbers.iter().enumerate() {
        let path = log_path(folder, number);
        let is_newest = position + 1 == numbers.len();
        let bytes = disk.read(&path)?;
        contents.bytes += bytes.len() as u64;
        let file = LogFile { path: &path, bytes, is_newest };
        let Some(first_sequence) = file.header(uuid, number)? else {
            contents.torn_tail = Some(TornTail {
                path: path.clone(),
                valid_bytes: 0,
                lost_bytes: file.bytes.len() as u64,
            });
            break;
        };
        if position > 0 && numbers[position - 1] + 1 != number {
            if first_sequence > checkpoint + 1 {
                let missing = log_path(folder, numbers[position - 1] + 1);
                return Err(Error::damaged(missing, 0, "the log file is missing"));
            }
            // Trimmed files that a power cut brought back, though not all of them: what they hold is
            // in the segments.
            contents.files.clear();
            next_in_log = None;
        }
        let fits = match next_in_log {
            None => first_sequence <= checkpoint + 1,
            Some(next) => first_sequence == next,
        };
        if !fits {
            let expected = next_in_log.unwrap_or(checkpoint + 1);
            let detail =
                format!("the file starts at operation {first_sequence}, {expected} is next");
            return Err(Error::damaged(&path, 36, detail));
        }
        let mut next = first_sequence;
        let end = file.records(&mut next, |record| {
            contents.records += 1;
            let last = record.first_sequence + record.operations.len() as u64;
            if last > checkpoint + 1 { apply(record) } else { Ok(()) }
        })?;
        next_in_log = Some(next);
        contents.next_sequence = contents.next_sequence.max(next);
        contents.files.push((number, next.saturating_sub(1), end));
        if end < file.bytes.len() as u64 {
            contents.torn_tail = Some(TornTail {
                path: path.clone(),
                valid_bytes: end,
                lost_bytes: file.bytes.len() as u64 - end,
            });
        }
    }
    Ok(contents)
}

struct LogFile<'a> {
    path: &'a Path,
    bytes: Bytes,
    is_newest: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(array)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(array)
}

impl LogFile<'_> {
    /// The first sequence, or `None` for a newest file whose header was never finished. The header
    /// is synced before anything is logged, so nothing acknowledged can be in such a file, unless
    /// whole records follow.
    fn header(&self, uuid: uuid::Uuid, number: u64) -> Result<Option<u64>> {
        let fault = if self.bytes.len() < HEADER_BYTES {
            "the header is cut short"
        } else if u32_at(&self.bytes, 44) != crc32c::crc32c(&self.bytes[..44]) {
            "the header's checksum is wrong"
        } else if &self.bytes[..8] != FILE_MAGIC {
            return Err(Error::damaged(self.path, 0, "this is not a log file"));
        } else if u32_at(&self.bytes, 8) != FILE_VERSION {
            let version = u32_at(&self.bytes, 8);
            let detail = format!("log version {version} is not {FILE_VERSION}, the one known here");
            return Err(Error::damaged(self.path, 8, detail));
        } else if self.bytes[12..28] != *uuid.as_bytes() || u64_at(&self.bytes, 28) != number {
            return Err(Error::damaged(self.path, 12, "the file belongs to another log"));
        } else {
            return Ok(Some(u64_at(&self.bytes, 36)));
        };
        if self.is_newest && self.next_whole_record(0).is_none() {
            return Ok(None);
        }
        Err(Error::damaged(self.path, 0, fault))
    }

    /// Hands out the records and returns where they end.
    fn records(
        &self,
        next: &mut u64,
        mut apply: impl FnMut(ReplayedRecord) -> Result<()>,
    ) -> Result<u64> {
        let mut offset = HEADER_BYTES;
        while offset < self.bytes.len() {
            let Some((record, end)) = self.record(offset) else {
                self.check_torn(offset)?;
                return Ok(offset as u64);
            };
            if record.first_sequence != *next {
                let found = record.first_sequence;
                let detail = format!("operation {found} where {next} is next");
                return Err(Error::damaged(self.path, offset as u64, detail));
            }
            *next += record.operations.len() as u64;
            apply(record)?;
            offset = end;
        }
        Ok(offset as u64)
    }

    /// The record at an offset and where it ends, if it is whole.
    fn record(&self, offset: usize) -> Option<(ReplayedRecord, usize)> {
        let end = self.whole_record(offset)?;
        let payload = self.bytes.slice(offset + RECORD_HEADER_BYTES..end);
        let operations = decode_all(payload).ok()?;
        Some((ReplayedRecord { first_sequence: u64_at(&self.bytes, offset + 8), operations }, end))
    }

    fn whole_record(&self, offset: usize) -> Option<usize> {
        let header = self.bytes.get(offset..offset.checked_add(RECORD_HEADER_BYTES)?)?;
        if &header[..4] != RECORD_MAGIC {
            return None;
        }
        let end = (offset + RECORD_HEADER_BYTES).checked_add(u32_at(header, 4) as usize)?;
        let payload = self.bytes.get(offset + RECORD_HEADER_BYTES..end)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..24]), payload);
        (crc == u32_at(header, 24)).then_some(end)
    }

    /// The first whole record at or after an offset.
    fn next_whole_record(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(found) = self.bytes.get(at..)?.windows(4).position(|w| w == RECORD_MAGIC) {
            at += found;
            if self.whole_record(at).is_some() {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Refuses to take what starts at `offset` for a torn tail when it cannot be one.
    fn check_torn(&self, offset: usize) -> Result<()> {
        let damaged = |detail: &str| Err(Error::damaged(self.path, offset as u64, detail));
        if !self.is_newest {
            return damaged("the record does not check out, and newer log files follow");
        }
        let mut at = offset;
        while let Some(later) = self.next_whole_record(at) {
            if u64_at(&self.bytes, later + 16) > offset as u64 {
                return damaged("the record does not check out, though it was synced");
            }
            at = later + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
