//! The offline check of a data folder: every checksum, every file's form, and the invariants that
//! recovery relies on. Changes nothing.

use std::path::Path;
use std::sync::Arc;

use crate::collection::Collection;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::storage::{Disk, FolderLock, RealDisk};

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// One entry per collection folder.
    pub collections: Vec<CollectionReport>,
    /// What is wrong with the data folder itself.
    pub faults: Vec<String>,
}

/// What the check found in one collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionReport {
    /// The name, or "" where it cannot be read.
    pub name: String,
    /// The folder.
    pub folder: String,
    /// Sealed segments.
    pub segments: u64,
    /// Live rows.
    pub rows: u64,
    /// Records in the log.
    pub log_records: u64,
    /// Bytes whose checksum was verified.
    pub bytes_checked: u64,
    /// What is wrong; the collection would not be served, or without some of its indexes.
    pub faults: Vec<String>,
    /// What a crash left behind; the next start clears it away.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// True when nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.collections.iter().all(|c| c.faults.is_empty())
    }
}

/// Checks a data folder that no process uses.
pub fn verify(data: &Path) -> Result<VerifyReport> {
    if !data.is_dir() {
        return Err(Error::io("open", data, &"there is no such folder"));
    }
    let _lock = FolderLock::take(data)?;
    let disk: Disk = Arc::new(RealDisk);
    let mut report = VerifyReport::default();
    if disk.exists(&data.join("VERSION")) {
        report.faults.extend(super::check_version(&*disk, data).err().map(|e| e.to_string()));
    } else {
        report.faults.push(format!("{} has no VERSION file", data.display()));
    }
    report.faults.extend(super::aliases::read(&*disk, data).err().map(|e| e.to_string()));
    let root = data.join("collections");
    for name in disk.list(&root)? {
        let folder = root.join(&name);
        if uuid::Uuid::try_parse(&name).is_err() {
            continue;
        }
        report.collections.push(check(&disk, &folder));
    }
    Ok(report)
}

fn check(disk: &Disk, folder: &Path) -> CollectionReport {
    let folder_name = folder.display().to_string();
    match Collection::check_folder(disk, folder, &Config::default()) {
        Ok(found) => CollectionReport {
            name: found.name,
            folder: folder_name,
            segments: found.segments,
            rows: found.rows,
            log_records: found.log_records,
            bytes_checked: found.bytes_checked,
            faults: found.faults,
            notes: found.notes,
        },
        Err(error) => CollectionReport {
            folder: folder_name,
            faults: vec![error.to_string()],
            ..CollectionReport::default()
        },
    }
}
