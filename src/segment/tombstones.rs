//! Which rows of a segment are deleted, and since when.
//!
//! Each row carries the sequence of the operation that deleted it, or [`LIVE`]. A snapshot at
//! sequence S sees a row when its mark is above S: later deletes change the mark, never what an
//! earlier snapshot sees.
//!
//! ```text
//! file = "VOISINTB"  version u32 = 1  rows u32  count u32  row u32 * count, ascending
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::schema::encoding::{DecodeError, Decoder};

/// The mark of a row that nobody deleted.
pub const LIVE: u64 = u64::MAX;

const MAGIC: &[u8; 8] = b"VOISINTB";
const VERSION: u32 = 1;

/// Delete marks of a run of rows. Only the collection's writer sets them.
#[derive(Debug, Default)]
pub struct Tombstones {
    marks: Vec<AtomicU64>,
    deleted: AtomicU64,
}

impl Tombstones {
    /// Marks for rows that are all live.
    pub fn all_live(rows: usize) -> Self {
        Self::from_marks((0..rows).map(|_| LIVE))
    }

    /// Marks as given.
    pub fn from_marks(marks: impl IntoIterator<Item = u64>) -> Self {
        let marks: Vec<AtomicU64> = marks.into_iter().map(AtomicU64::new).collect();
        let deleted = marks.iter().filter(|mark| mark.load(Ordering::Relaxed) != LIVE).count();
        Tombstones { marks, deleted: AtomicU64::new(deleted as u64) }
    }

    /// The marks, for a search to read.
    pub fn marks(&self) -> &[AtomicU64] {
        &self.marks
    }

    /// The mark of a row; a row out of range was never there.
    pub fn mark(&self, row: u32) -> u64 {
        self.marks.get(row as usize).map_or(0, |mark| mark.load(Ordering::Relaxed))
    }

    /// True when a snapshot at `sequence` sees the row.
    pub fn is_live(&self, row: u32, sequence: u64) -> bool {
        self.mark(row) > sequence
    }

    /// Marks a row; false when it was marked already or is out of range. The store is ordered before
    /// the publication of the snapshot that shows it by the lock that publishing takes.
    pub fn delete(&self, row: u32, sequence: u64) -> bool {
        let Some(mark) = self.marks.get(row as usize) else { return false };
        if mark.load(Ordering::Relaxed) != LIVE {
            return false;
        }
        mark.store(sequence, Ordering::Relaxed);
        self.deleted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Rows marked so far, by whatever sequence.
    pub fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }

    /// The rows deleted at or below a sequence, ascending.
    pub fn deleted_up_to(&self, sequence: u64) -> Vec<u32> {
        let rows = self.marks.iter().enumerate();
        rows.filter(|(_, mark)| mark.load(Ordering::Relaxed) <= sequence)
            .map(|(row, _)| row as u32)
            .collect()
    }
}

/// The content of a tombstones file.
pub fn encode(rows: u32, deleted: &[u32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + deleted.len() * 4);
    out.extend_from_slice(MAGIC);
    for number in [VERSION, rows, deleted.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for row in deleted {
        out.extend_from_slice(&row.to_le_bytes());
    }
    out
}

/// Reads a tombstones file into marks: 0, below every snapshot, for each deleted row.
pub fn decode(bytes: Bytes, rows: u32) -> Result<Vec<u64>, String> {
    let text = |e: DecodeError| e.to_string();
    let mut decoder = Decoder::new(bytes);
    if &decoder.take(8).map_err(text)?[..] != MAGIC {
        return Err("this is not a tombstones file".into());
    }
    let version = decoder.u32().map_err(text)?;
    if version != VERSION {
        return Err(format!("tombstones version {version} is not {VERSION}, the one known here"));
    }
    let found_rows = decoder.u32().map_err(text)?;
    if found_rows != rows {
        return Err(format!("marks for {found_rows} rows, the segment has {rows}"));
    }
    let count = decoder.u32().map_err(text)?;
    if count as usize * 4 != decoder.left() {
        return Err(format!("{count} rows announced, {} bytes follow", decoder.left()));
    }
    let mut marks = vec![LIVE; rows as usize];
    for _ in 0..count {
        let row = decoder.u32().map_err(text)?;
        match marks.get_mut(row as usize) {
            Some(mark) => *mark = 0,
            None => return Err(format!("row {row} is deleted, the segment has {rows}")),
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_delete_changes_nothing_for_an_earlier_snapshot() {
        let tombstones = Tombstones::all_live(3);
        assert!(tombstones.delete(1, 10));
        assert!(!tombstones.delete(1, 11), "a row is deleted once");
        assert!(tombstones.is_live(1, 9) && !tombstones.is_live(1, 10));
        assert!(!tombstones.is_live(3, 0), "a row that never was is not live");
        assert_eq!((tombstones.deleted(), tombstones.deleted_up_to(9)), (1, vec![]));
    }

    #[test]
    fn files_round_trip_and_damage_is_refused() {
        let file = encode(5, &[1, 4]);
        assert_eq!(decode(file.clone().into(), 5).unwrap(), [LIVE, 0, LIVE, LIVE, 0]);
        assert!(decode(file.clone().into(), 6).is_err());
        for cut in 0..file.len() {
            assert!(decode(file[..cut].to_vec().into(), 5).is_err());
        }
        assert!(decode(encode(5, &[5]).into(), 5).is_err());
    }
}
