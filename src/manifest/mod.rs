//! The manifest of one collection: its schema, its sealed segments with the checksum of every file,
//! and how far the log is contained in them. Each version is a new file, `MANIFEST-<number>`, written
//! whole under a temporary name, synced and renamed; the highest number counts.
//!
//! ```text
//! file = JSON of `Manifest`, one line  "\n"  "crc32c=" 8 hex digits of the CRC-32C of that line  "\n"
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, LsnContext, RecallCurve};
use crate::storage::{Directory, checked_line, replace_file, with_checksum};

/// The format this code writes; it reads no other.
pub const FORMAT: u32 = 1;

/// A file that a manifest answers for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name within the segment's folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// CRC-32C of the content.
    pub crc32c: u32,
}

/// Minimum and maximum of something, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest.
    pub min: u64,
    /// The highest.
    pub max: u64,
}

impl Range {
    /// The range of nothing, which every `include` narrows.
    pub const EMPTY: Range = Range { min: u64::MAX, max: 0 };

    /// Widens the range to hold a number.
    pub fn include(&mut self, number: u64) {
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    /// The smallest range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What was ever inserted in a segment, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inserted {
    /// Insertions, updates included.
    pub count: u64,
    /// Document ids.
    pub doc_ids: Range,
    /// Primary keys.
    pub keys: Range,
    /// LSNs.
    pub lsns: Range,
}

impl Inserted {
    /// Nothing yet.
    pub const NOTHING: Inserted =
        Inserted { count: 0, doc_ids: Range::EMPTY, keys: Range::EMPTY, lsns: Range::EMPTY };

    /// Both together.
    pub fn union(self, other: Inserted) -> Inserted {
        Inserted {
            count: self.count + other.count,
            doc_ids: self.doc_ids.union(other.doc_ids),
            keys: self.keys.union(other.keys),
            lsns: self.lsns.union(other.lsns),
        }
    }
}

/// One sealed segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Identity; never used again within the collection. The folder is `segment-<id>`.
    pub id: u32,
    /// Rows in the files, deleted ones included.
    pub rows: u32,
    /// The rows themselves.
    pub rows_file: FileEntry,
    /// One index per index column that has one.
    #[serde(rename = "graph_files")]
    pub index_files: Vec<IndexEntry>,
    /// Rows deleted at or below the manifest's checkpoint, where there are any.
    pub tombstones_file: Option<FileEntry>,
    /// For statistics.
    pub inserted: Inserted,
}

/// The index of one index column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Position of the column in the schema.
    pub column: u32,
    /// The file.
    pub file: FileEntry,
    /// What it finds.
    #[serde(default)]
    pub recall: RecallCurve,
}

impl SegmentEntry {
    /// Every file of the segment.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        std::iter::once(&self.rows_file)
            .chain(self.index_files.iter().map(|index| &index.file))
            .chain(&self.tombstones_file)
    }
}

/// The durable state of a collection above its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of this manifest; the file's number.
    pub number: u64,
    /// The collection.
    pub schema: CollectionSchema,
    /// Every logged operation up to this sequence is contained in the segments.
    pub checkpoint: u64,
    /// A log file that existed when this was written.
    pub log_file: u64,
    /// The id the next segment gets.
    pub next_segment_id: u32,
    /// The document id the next growing segment starts at.
    pub next_doc_id: u64,
    /// The LSNs seen up to the checkpoint, for repository collections.
    pub lsn_window: Vec<LsnContext>,
    /// The sealed segments, oldest first.
    pub segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// The first manifest of a new collection.
    pub fn new(schema: CollectionSchema) -> Self {
        Manifest {
            format: FORMAT,
            number: 1,
            schema,
            checkpoint: 0,
            log_file: 0,
            next_segment_id: 0,
            next_doc_id: 0,
            lsn_window: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Writes the manifest as a new file, durable when this returns, and removes older ones.
    pub fn write(&self, disk: &dyn Directory, folder: &Path) -> Result<()> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::internal(format!("the manifest cannot be written as JSON: {e}")))?;
        replace_file(disk, &path(folder, self.number), with_checksum(&json).as_bytes())?;
        for older in numbers(disk, folder)?.into_iter().filter(|n| *n < self.number) {
            if let Err(error) = disk.remove_file(&path(folder, older)) {
                tracing::warn!(%error, "older manifest not removed");
            }
        }
        Ok(())
    }

    /// Reads the manifest that counts.
    pub fn read(disk: &dyn Directory, folder: &Path) -> Result<Self> {
        let Some(newest) = numbers(disk, folder)?.into_iter().max() else {
            return Err(Error::damaged(folder, 0, "there is no manifest in the folder"));
        };
        let path = path(folder, newest);
        let bytes = disk.read(&path)?;
        let manifest = parse(&bytes).map_err(|detail| Error::damaged(&path, 0, detail))?;
        if manifest.number != newest {
            let detail = format!("the file says it is manifest {}", manifest.number);
            return Err(Error::damaged(&path, 0, detail));
        }
        Ok(manifest)
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Manifest, String> {
    let json = checked_line(bytes)?;
    // The format is looked at before anything else is: a newer one may hold anything.
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(u64::from(FORMAT)) {
        return Err(format!("format {format:?} is not {FORMAT}, the one known here"));
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("MANIFEST-{number:012}"))
}

fn numbers(disk: &dyn Directory, folder: &Path) -> Result<Vec<u64>> {
    let names = disk.list(folder)?;
    Ok(names.iter().filter_map(|name| number(name)).collect())
}

/// The number in a manifest's file name.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("MANIFEST-")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::TestDisk;

    fn manifest(number: u64) -> Manifest {
        let schema = CollectionSchema {
            name: "images".into(),
            uuid: "0".repeat(32),
            max_docs_per_segment: u64::MAX,
            forward_columns: vec!["image_path".into()],
            forward_kinds: Default::default(),
            ttl: None,
            versions: false,
            write_times: false,
            columns: Vec::new(),
            repository: None,
        };
        Manifest { number, checkpoint: number * 10, ..Manifest::new(schema) }
    }

    #[test]
    fn the_highest_number_counts_and_older_files_go() {
        let disk = TestDisk::new();
        let folder = Path::new("/c");
        disk.create_dir(folder).unwrap();
        for n in 1..=3 {
            manifest(n).write(&disk, folder).unwrap();
        }
        assert_eq!(Manifest::read(&disk, folder).unwrap(), manifest(3));
        assert_eq!(disk.list(folder).unwrap(), ["MANIFEST-000000000003"]);
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let disk = TestDisk::new();
        let folder = Path::new("/c");
        disk.create_dir(folder).unwrap();
        manifest(1).write(&disk, folder).unwrap();
        let path = path(folder, 1);
        let length = disk.read(&path).unwrap().len();
        for at in 0..length {
            let damaged = disk.after_kill();
            damaged.damage(&path, |bytes| bytes[at] ^= 1);
            assert!(matches!(Manifest::read(&damaged, folder), Err(Error::Damaged { .. })), "{at}");
            damaged.damage(&path, |bytes| bytes.truncate(at));
            assert!(Manifest::read(&damaged, folder).is_err());
        }
    }
}
