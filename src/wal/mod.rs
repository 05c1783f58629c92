//! The write-ahead log of one collection: what was accepted, in the order it is applied and seen.
//!
//! A log is a run of files `wal-<number>.log`. All integers are little-endian.
//!
//! ```text
//! file   = header record*
//! header = "VOISINWL"  version u32 = 1  collection uuid 16 bytes  file number u64
//!          first sequence u64  crc32c of all before u32                             (48 bytes)
//! record = "VREC"  payload length u32  first sequence u64  durable offset u64
//!          crc32c of the 20 bytes before and the payload u32                        (28 bytes)
//!          payload
//! ```
//!
//! A payload is one accepted write request: a count and its operations, numbered from the record's
//! first sequence. `durable offset` says how much of the file was known to be synced when the record
//! was written. A record that does not check out is a torn tail only if it lies in the newest file
//! and no later record claims that it was durable; anything else is damage and stops the collection.

mod operation;
mod replay;
mod writer;

use std::path::{Path, PathBuf};

pub use operation::LogOperation;
pub use replay::{LogContents, ReplayedRecord, read_log};
pub use writer::{LogSettings, LogWriter};

const FILE_MAGIC: &[u8; 8] = b"VOISINWL";
const FILE_VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const RECORD_MAGIC: &[u8; 4] = b"VREC";
const RECORD_HEADER_BYTES: usize = 28;

/// The path of a log file.
pub fn log_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("wal-{number:012}.log"))
}

/// The number in a log file's name.
pub fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()
}
