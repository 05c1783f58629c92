//! Indexes that a process did not outlive. What faiss opens or trains may end the process, and would end it
//! again at each start: so a marker is durable before, and removed after. A start that finds one leaves out
//! of service what it names. Graphs of our own need none: their files are checked to the last link.
//!
//! ```text
//! opening-<segment>-<column>   the index of that column is being read and probed
//! building-<column>            an index of that column is being trained, filled and measured
//! file = JSON, one line  "\n"  "crc32c=" 8 hex digits of the CRC-32C of that line  "\n"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::error::Result;
use crate::manifest::SegmentEntry;
use crate::schema::{CollectionSchema, IndexKind};
use crate::storage::{Disk, checked_line, replace_file, with_checksum};

/// Processes that may end while a column's index is built before none is built any more: a process may be
/// killed while it builds, and that says nothing of the build.
const BUILDS_MAX: u64 = 2;

/// What a marker is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Opening { segment: u32, column: usize },
    Building { column: usize },
}

impl Marker {
    fn of(name: &str) -> Option<Marker> {
        if let Some(rest) = name.strip_prefix("opening-") {
            let (segment, column) = rest.split_once('-')?;
            return Some(Marker::Opening {
                segment: segment.parse().ok()?,
                column: column.parse().ok()?,
            });
        }
        let column = name.strip_prefix("building-")?.parse().ok()?;
        Some(Marker::Building { column })
    }

    fn name(self) -> String {
        match self {
            Marker::Opening { segment, column } => format!("opening-{segment}-{column}"),
            Marker::Building { column } => format!("building-{column}"),
        }
    }
}

/// What is known of building a column's index.
#[derive(Debug, Default)]
struct Builds {
    /// Processes that ended while they built one, since the last that did not.
    died: u64,
    /// Why none is built before the next start.
    failure: Option<String>,
}

/// The indexes of a collection that are not to be touched.
#[derive(Debug)]
pub struct Suspects {
    disk: Disk,
    folder: PathBuf,
    /// Markers are written; an offline check writes none.
    is_marking: bool,
    /// Segment and column of each index that a process did not outlive opening.
    opening: BTreeSet<(u32, usize)>,
    /// What is wrong with indexes whose files are as they were written, and cannot be searched.
    unfit: Mutex<BTreeMap<(u32, usize), String>>,
    builds: Mutex<BTreeMap<usize, Builds>>,
    /// Markers of work under way.
    armed: Mutex<Vec<Marker>>,
}

/// Work on an index that the process may not outlive. Its marker is gone when this is.
#[derive(Debug)]
pub struct Trial {
    suspects: Arc<Suspects>,
    marker: Marker,
}

impl Suspects {
    /// Those that the markers in a collection's folder name.
    pub fn find(disk: &Disk, folder: &Path) -> Result<Suspects> {
        let (mut opening, mut builds) = (BTreeSet::new(), BTreeMap::<usize, Builds>::new());
        for name in disk.list(folder)? {
            match Marker::of(&name) {
                Some(Marker::Opening { segment, column }) => {
                    opening.insert((segment, column));
                }
                Some(Marker::Building { column }) => {
                    let content = disk.read(&folder.join(&name))?;
                    builds.entry(column).or_default().died = tries(&content);
                }
                None => {}
            }
        }
        Ok(Suspects {
            disk: disk.clone(),
            folder: folder.to_path_buf(),
            is_marking: true,
            opening,
            unfit: Mutex::default(),
            builds: Mutex::new(builds),
            armed: Mutex::default(),
        })
    }

    /// The same, writing nothing.
    pub fn only_read(self) -> Suspects {
        Suspects { is_marking: false, ..self }
    }

    /// True for the name of a marker that still says something.
    pub fn is_marker(name: &str, schema: &CollectionSchema, segments: &[SegmentEntry]) -> bool {
        match Marker::of(name) {
            None => false,
            Some(Marker::Opening { segment, column }) => segments.iter().any(|entry| {
                let mut indexes = entry.index_files.iter();
                entry.id == segment && indexes.any(|index| index.column as usize == column)
            }),
            Some(Marker::Building { column }) => schema
                .columns
                .get(column)
                .is_some_and(|column| matches!(column.index, IndexKind::Trained { .. })),
        }
    }

    /// Remembers what is wrong with an index, which is left out of service for it.
    pub fn note_unfit(&self, segment: u32, column: usize, fault: String) {
        self.unfit.lock().insert((segment, column), fault);
    }

    /// Why an index is left out of service, if it is.
    pub fn left_out(&self, segment: u32, column: usize) -> Option<String> {
        if let Some(fault) = self.unfit.lock().get(&(segment, column)) {
            return Some(format!(
                "index segment-{segment}/{column}.faiss is left out of service and its segment is scanned: {fault}"
            ));
        }
        self.opening.contains(&(segment, column)).then(|| {
            let marker = self.path(Marker::Opening { segment, column });
            format!(
                "index segment-{segment}/{column}.faiss is left out of service and its segment is scanned: a process ended while it was opened; remove {} to have it opened by the next start",
                marker.display()
            )
        })
    }

    /// True for a column whose index is not built any more.
    pub fn is_unbuilt(&self, column: usize) -> bool {
        let builds = self.builds.lock();
        builds.get(&column).is_some_and(|one| one.died >= BUILDS_MAX || one.failure.is_some())
    }

    /// Why no index of the column of that name is built, if none is.
    pub fn unbuilt(&self, column: usize, name: &str) -> Option<String> {
        let builds = self.builds.lock();
        let known = builds.get(&column)?;
        if let Some(failure) = &known.failure {
            return Some(format!(
                "column {name:?} gets no index before the next start, and its rows are scanned: {failure}"
            ));
        }
        (known.died >= BUILDS_MAX).then(|| {
            let marker = self.path(Marker::Building { column });
            format!(
                "column {name:?} gets no index, and its rows are scanned: {} processes ended while they built one; remove {} to have it built after the next start",
                known.died,
                marker.display()
            )
        })
    }

    /// Remembers, until the next start, that a column's index cannot be built.
    pub fn note_failure(&self, column: usize, failure: String) {
        self.builds.lock().entry(column).or_default().failure = Some(failure);
    }

    /// To be held while an index is opened and probed.
    pub fn opening(self: &Arc<Self>, segment: u32, column: usize) -> Result<Trial> {
        let file = format!("segment-{segment}/{column}.faiss");
        let content = json!({ "format": 1, "opening": file });
        self.arm(Marker::Opening { segment, column }, &content)
    }

    /// To be held while an index of a column is built.
    pub fn building(self: &Arc<Self>, column: usize) -> Result<Trial> {
        let died = self.builds.lock().get(&column).map_or(0, |known| known.died);
        let content = json!({ "format": 1, "building": column, "tries": died + 1 });
        self.arm(Marker::Building { column }, &content)
    }

    /// Removes the markers of work that nobody waits for any more.
    pub fn release(&self) {
        for marker in std::mem::take(&mut *self.armed.lock()) {
            self.remove(marker);
        }
    }

    fn arm(self: &Arc<Self>, marker: Marker, content: &serde_json::Value) -> Result<Trial> {
        if self.is_marking {
            let line = with_checksum(&content.to_string());
            replace_file(&*self.disk, &self.path(marker), line.as_bytes())?;
            self.armed.lock().push(marker);
        }
        Ok(Trial { suspects: self.clone(), marker })
    }

    fn path(&self, marker: Marker) -> PathBuf {
        self.folder.join(marker.name())
    }

    /// Durably: a marker that came back would leave out an index that did no harm.
    fn remove(&self, marker: Marker) {
        let path = self.path(marker);
        let removed = self.disk.remove_file(&path).and_then(|()| self.disk.sync_dir(&self.folder));
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "marker of an index not removed");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut armed = self.suspects.armed.lock();
        let Some(place) = armed.iter().position(|marker| *marker == self.marker) else { return };
        armed.swap_remove(place);
        drop(armed);
        self.suspects.remove(self.marker);
        if let Marker::Building { column } = self.marker
            && let Some(known) = self.suspects.builds.lock().get_mut(&column)
        {
            known.died = 0;
        }
    }
}

/// The builds that a marker counts; one where it cannot be read.
fn tries(content: &[u8]) -> u64 {
    let line = checked_line(content).unwrap_or_default();
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    value.and_then(|value| value.get("tries")?.as_u64()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::TestDisk;

    const FOLDER: &str = "/collection";

    fn found(disk: &TestDisk) -> Arc<Suspects> {
        let disk: Disk = Arc::new(disk.clone());
        Arc::new(Suspects::find(&disk, Path::new(FOLDER)).expect("the folder is read"))
    }

    fn disk() -> TestDisk {
        let disk = TestDisk::default();
        let shared: Disk = Arc::new(disk.clone());
        shared.create_dir(Path::new(FOLDER)).expect("a folder");
        shared.sync_dir(Path::new("/")).expect("durable");
        disk
    }

    #[test]
    fn what_a_process_did_not_outlive_opening_is_left_out_until_its_marker_is_removed() {
        let disk = disk();
        drop(found(&disk).opening(3, 1).expect("a marker"));
        assert_eq!(found(&disk).left_out(3, 1), None, "it was outlived");
        std::mem::forget(found(&disk).opening(3, 1).expect("a marker"));
        let cut = disk.after_power_cut(crate::storage::Unsynced::Lost);
        let words = found(&cut).left_out(3, 1).expect("it was not outlived");
        assert!(words.contains("segment-3/1.faiss") && words.contains("opening-3-1"), "{words}");
        assert_eq!((found(&cut).left_out(3, 0), found(&cut).left_out(2, 1)), (None, None));
        let shared: Disk = Arc::new(cut.clone());
        shared.remove_file(&Path::new(FOLDER).join("opening-3-1")).expect("removed");
        assert_eq!(found(&cut).left_out(3, 1), None);
    }

    #[test]
    fn builds_that_no_process_outlives_are_not_tried_for_ever() {
        let disk = disk();
        for _ in 0..BUILDS_MAX {
            let suspects = found(&disk);
            assert!(!suspects.is_unbuilt(0));
            std::mem::forget(suspects.building(0).expect("a marker"));
        }
        let words = found(&disk).unbuilt(0, "v").expect("no more of them");
        assert!(words.contains("building-0") && words.contains("\"v\""), "{words}");
        assert!(found(&disk).is_unbuilt(0) && !found(&disk).is_unbuilt(1));
    }

    #[test]
    fn a_build_that_was_outlived_or_given_up_counts_for_nothing() {
        let disk = disk();
        std::mem::forget(found(&disk).building(0).expect("a marker"));
        drop(found(&disk).building(0).expect("a marker"));
        let suspects = found(&disk);
        let left_behind = suspects.building(0).expect("a marker");
        suspects.release();
        std::mem::forget(left_behind);
        assert_eq!(found(&disk).builds.lock().len(), 0);
        suspects.note_failure(0, "too few rows".into());
        let words = suspects.unbuilt(0, "v").expect("it failed");
        assert!(suspects.is_unbuilt(0) && words.contains("too few rows"), "{words}");
        assert!(!found(&disk).is_unbuilt(0));
    }
}
