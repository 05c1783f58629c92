//! How far an import is, in a small file, so that it goes on where it ended, however it ended.
//!
//! The file is replaced as a whole. Before rows are sent, it says up to where rows may have been sent;
//! after they were acknowledged, it says so some time later. What is in between when an import is killed
//! may be there or not: it is sent again, and keys of it that exist count as written.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};

use super::{Result, TransferError};

/// The form of the file.
const FORMAT: u32 = 1;
/// Rows beyond those being sent that are promised at once, so that the file is not written for each batch.
const AHEAD_ROWS: u64 = 100_000;
/// How long acknowledged rows may not be in the file yet.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes at both ends of a file that its checksum is of.
const CHECKED_BYTES: u64 = 64 << 10;
/// Largest file that is read; what we write is smaller.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A file that is imported, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// Where it is, from the root.
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified_ns: u64,
    /// Of its first and last bytes.
    crc32c: u32,
}

impl Source {
    pub fn of(path: &Path) -> io::Result<Source> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = metadata.len();
        let mut ends = Vec::new();
        (&mut file).take(CHECKED_BYTES).read_to_end(&mut ends)?;
        file.seek(SeekFrom::Start(bytes.saturating_sub(CHECKED_BYTES)))?;
        file.take(CHECKED_BYTES).read_to_end(&mut ends)?;
        Ok(Source {
            path: std::fs::canonicalize(path)?,
            bytes,
            modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            crc32c: crc32c::crc32c(&ends),
        })
    }
}

/// What is imported into what, and how: an import goes on only with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// The collection's name.
    pub collection: String,
    /// The collection's own mark, new for every creation.
    pub uuid: String,
    /// The flags that say which column is what.
    pub options: String,
    /// The files in order.
    pub sources: Vec<Source>,
}

/// How far an import is. Rows are counted through all files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// All rows below were dealt with, but for `refused`.
    pub acknowledged: u64,
    /// No row from here on was ever sent.
    pub sent: u64,
    /// Rows below `acknowledged` that were refused and not passed over, ascending.
    pub refused: Vec<u64>,
    /// True when all rows were dealt with.
    pub is_finished: bool,
}

impl Standing {
    /// True for what an import can have written.
    fn is_sound(&self) -> bool {
        let refused = &self.refused;
        refused.is_sorted_by(|a, b| a < b)
            && refused.last().is_none_or(|last| *last < self.acknowledged)
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    voisin_import: u32,
    job: Job,
    standing: Standing,
}

/// The file, held so that no other import uses it.
pub(super) struct Checkpoint {
    path: PathBuf,
    job: Job,
    pub standing: Standing,
    saved: Instant,
    /// Locked as long as this lives.
    lock: Option<File>,
}

impl Checkpoint {
    /// Takes up an import where it ended, or begins one. A finished import of files or into a collection
    /// that have changed since is begun anew; an unfinished one is not.
    pub fn open(path: PathBuf, job: Job) -> Result<Checkpoint> {
        let of_file =
            |words: String| TransferError::not_as_asked(format!("{}: {words}", path.display()));
        let (mut standing, mut lock) = (Standing::default(), None);
        match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(of_file(cause.to_string())),
            Ok(file) => {
                if !file.try_lock_exclusive().map_err(|cause| of_file(cause.to_string()))? {
                    return Err(of_file("another import is under way with this file".to_owned()));
                }
                let mut bytes = Vec::new();
                let read = (&file).take(FILE_BYTES_MAX).read_to_end(&mut bytes);
                read.map_err(|cause| of_file(cause.to_string()))?;
                let saved: Saved = serde_json::from_slice(&bytes).map_err(|cause| {
                    of_file(format!(
                        "not a file that an import left ({cause}); --state names another one"
                    ))
                })?;
                if saved.voisin_import != FORMAT {
                    return Err(of_file(format!("form {}, not {FORMAT}", saved.voisin_import)));
                }
                if !saved.standing.is_sound() {
                    return Err(of_file("its numbers of rows cannot be; it is damaged".to_owned()));
                }
                if saved.job == job {
                    standing = saved.standing;
                } else if !saved.standing.is_finished {
                    return Err(of_file(format!(
                        "an import that was not finished: {}; go on with that one, or remove the \
                         file to begin anew, or name another with --state",
                        difference(&saved.job, &job)
                    )));
                }
                lock = Some(file);
            }
        }
        let mut checkpoint = Checkpoint { path, job, standing, saved: Instant::now(), lock };
        // Fails now rather than after the first rows.
        checkpoint.save()?;
        Ok(checkpoint)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Called before rows up to `end` are sent.
    pub fn promise(&mut self, end: u64) -> Result<()> {
        if end > self.standing.sent {
            self.standing.sent = end.saturating_add(AHEAD_ROWS);
            self.save()?;
        }
        Ok(())
    }

    /// Called when all rows below were acknowledged.
    pub fn acknowledge(&mut self, rows: u64) -> Result<()> {
        self.standing.acknowledged = self.standing.acknowledged.max(rows);
        if self.saved.elapsed() >= SAVE_INTERVAL {
            self.save()?;
        }
        Ok(())
    }

    /// Called when nothing is under way: what was sent is what was acknowledged.
    pub fn settle(&mut self) -> Result<()> {
        self.standing.sent = self.standing.acknowledged;
        self.save()
    }

    /// Writes the file.
    pub fn save(&mut self) -> Result<()> {
        let saved =
            Saved { voisin_import: FORMAT, job: self.job.clone(), standing: self.standing.clone() };
        let written = self.replace(&saved);
        self.saved = Instant::now();
        written.map_err(|cause| {
            TransferError::not_as_asked(format!(
                "how far the import is cannot be kept in {}: {cause}; --state names another file",
                self.path.display()
            ))
        })
    }

    fn replace(&mut self, saved: &Saved) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new)?;
        if !file.try_lock_exclusive()? {
            return Err(io::Error::other("another import is under way with it"));
        }
        serde_json::to_writer_pretty(&file, saved)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        // What is promised before rows are sent must be there after a loss of power, too.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        self.lock = Some(file);
        Ok(())
    }
}

/// What makes one import another, in words.
fn difference(old: &Job, new: &Job) -> String {
    if old.collection != new.collection {
        return format!("into collection {:?}", old.collection);
    }
    if old.uuid != new.uuid {
        return format!("collection {:?} was made anew since", old.collection);
    }
    if old.options != new.options {
        return format!("with {}, not with {}", old.options, new.options);
    }
    let changed = old.sources.iter().zip(&new.sources).find(|(old, new)| old != new);
    match changed {
        Some((old, new)) if old.path == new.path => {
            format!("{} has changed since", old.path.display())
        }
        Some((old, _)) => format!("of {}", old.path.display()),
        None => format!("of {} files", old.sources.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(folder: &Path, options: &str) -> Job {
        let path = folder.join("rows.npy");
        Job {
            collection: "photos".into(),
            uuid: "u".into(),
            options: options.into(),
            sources: vec![Source::of(&path).expect("the file is there")],
        }
    }

    #[test]
    fn an_import_goes_on_with_the_same_files_and_flags_only() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("rows.npy"), [1; 200_000]).expect("written");
        let path = folder.path().join("state");
        let open = |options: &str| Checkpoint::open(path.clone(), job(folder.path(), options));
        let mut checkpoint = open("a").expect("begun");
        assert_eq!(checkpoint.standing, Standing::default());
        checkpoint.promise(500).expect("saved");
        checkpoint.acknowledge(300).expect("kept");
        let error = open("a").err().expect("in use").to_string();
        assert!(error.contains("under way"), "{error}");
        checkpoint.save().expect("saved");
        drop(checkpoint);
        let error = open("b").err().expect("other flags").to_string();
        assert!(error.contains("with a, not with b"), "{error}");
        let mut checkpoint = open("a").expect("taken up");
        assert_eq!(checkpoint.standing.acknowledged, 300);
        assert_eq!(checkpoint.standing.sent, 500 + AHEAD_ROWS);
        checkpoint.settle().expect("saved");
        drop(checkpoint);
        assert_eq!(open("a").expect("taken up").standing.sent, 300);
        std::fs::write(folder.path().join("rows.npy"), [2; 200_000]).expect("written");
        let error = open("a").err().expect("another file").to_string();
        assert!(error.contains("rows.npy has changed since"), "{error}");
    }

    #[test]
    fn a_finished_import_does_not_stop_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("rows.npy"), "x").expect("written");
        let path = folder.path().join("state");
        let open = |options: &str| Checkpoint::open(path.clone(), job(folder.path(), options));
        let mut checkpoint = open("a").expect("begun");
        checkpoint.standing.is_finished = true;
        checkpoint.settle().expect("saved");
        drop(checkpoint);
        assert!(open("a").expect("taken up").standing.is_finished);
        assert!(!open("b").expect("begun").standing.is_finished);
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("rows.npy"), "x").expect("written");
        let path = folder.path().join("state");
        for other in ["", "{}", "my diary", "{\"voisin_import\": 1}"] {
            std::fs::write(&path, other).expect("written");
            let error = Checkpoint::open(path.clone(), job(folder.path(), "a"));
            let error = error.err().expect("refused").to_string();
            assert!(error.contains("not a file that an import left"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), other);
        }
        std::fs::remove_file(&path).expect("removed");
        drop(Checkpoint::open(path.clone(), job(folder.path(), "a")).expect("begun"));
        let begun = std::fs::read_to_string(&path).expect("there");
        for refused in ["[0]", "[7, 5]", "[5, 5]"] {
            let damaged = begun.replace("\"refused\": []", &format!("\"refused\": {refused}"));
            assert_ne!(damaged, begun);
            std::fs::write(&path, damaged).expect("written");
            let error = Checkpoint::open(path.clone(), job(folder.path(), "a"));
            let error = error.err().expect("refused").to_string();
            assert!(error.contains("it is damaged"), "{error}");
        }
        let nowhere = folder.path().join("none").join("state");
        let error = Checkpoint::open(nowhere, job(folder.path(), "a")).err().expect("no folder");
        assert!(error.to_string().contains("--state names another file"), "{error}");
    }
}
