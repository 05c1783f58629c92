//! A file as the library is shown it: as it is on disk, but for some bytes. The library knows the format
//! up to HDF5 1.14; what 2.0 writes otherwise is put into the form that it knows, and links that lead to
//! nothing in the file are left out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_pure::{FormatError, Source};

use super::super::{Fault, Read};

/// What links of a group are, in files of old: one that names a path instead of a place.
const SOFT_LINK: u32 = 2;
/// Bytes of an entry of a group besides its two addresses.
const ENTRY_BYTES: usize = 24;

/// Bytes that the library is shown instead of those on disk.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By their place.
    pub bytes: BTreeMap<u64, u8>,
    /// Bytes behind the end of the file.
    pub behind: Vec<u8>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.behind.is_empty()
    }

    /// Shows these bytes at a place.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes.extend(bytes.iter().zip(at..).map(|(byte, at)| (at, *byte)));
    }
}

/// A file with its changes.
pub(super) struct View {
    file: fs::File,
    /// Bytes on disk.
    pub bytes: u64,
    changes: Changes,
    /// Where the library looked for object headers, in order.
    headers: Mutex<Vec<u64>>,
}

impl View {
    pub fn open(path: &Path, changes: Changes) -> Read<Arc<View>> {
        let file = fs::File::open(path).map_err(Fault::new)?;
        let bytes = file.metadata().map_err(Fault::new)?.len();
        Ok(Arc::new(View { file, bytes, changes, headers: Mutex::default() }))
    }

    /// The last object header that the library looked for since this was asked.
    pub fn last_header(&self) -> Option<u64> {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *headers).pop()
    }

    /// Bytes of the file, which must all be there.
    pub fn read(&self, at: u64, bytes: usize) -> Read<Vec<u8>> {
        self.read_exact_at(at, bytes).map_err(Fault::new)
    }
}

/// The library's handle of a view.
pub(super) struct Shown(pub Arc<View>);

impl Source for View {
    fn len(&self) -> u64 {
        self.bytes + self.changes.behind.len() as u64
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        let cut = || FormatError::UnexpectedEof {
            expected: usize::try_from(at).unwrap_or(usize::MAX).saturating_add(buffer.len()),
            available: usize::try_from(self.len()).unwrap_or(usize::MAX),
        };
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.len());
        let end = end.ok_or_else(cut)?;
        let on_disk = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let (on_disk, behind) = buffer.split_at_mut(on_disk.min(buffer.len()));
        if !on_disk.is_empty() {
            let read = self.file.read_exact_at(on_disk, at);
            read.map_err(|cause| FormatError::Source(cause.to_string()))?;
        }
        if !behind.is_empty() {
            let start = usize::try_from(at.max(self.bytes) - self.bytes).unwrap_or(usize::MAX);
            let found = self.changes.behind.get(start..start.saturating_add(behind.len()));
            behind.copy_from_slice(
                found.ok_or_else(|| FormatError::Source("beyond the end".into()))?,
            );
        }
        for (place, byte) in self.changes.bytes.range(at..end) {
            buffer[(place - at) as usize] = *byte;
        }
        Ok(())
    }

    fn read_metadata_at(&self, at: u64, bytes: usize) -> Result<Vec<u8>, FormatError> {
        let mut found = self.read_exact_at(at, bytes)?;
        if found.starts_with(b"SNOD") {
            leave_out_soft_links(&mut found);
        }
        Ok(found)
    }
}

impl Source for Shown {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        // The library does not tell where objects are. It looks at the first four bytes of their headers,
        // and at so few bytes of nothing else.
        if buffer.len() == 4 {
            self.0.headers.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        }
        self.0.read_at(at, buffer)
    }

    fn read_metadata_at(&self, at: u64, bytes: usize) -> Result<Vec<u8>, FormatError> {
        self.0.read_metadata_at(at, bytes)
    }
}

/// Takes the links that name paths out of a node of a group, whose addresses the library would follow.
fn leave_out_soft_links(node: &mut [u8]) {
    let [_, _, _, _, _, _, low, high, entries @ ..] = node else { return };
    let count = usize::from(u16::from_le_bytes([*low, *high]));
    if count == 0 || !entries.len().is_multiple_of(count) {
        return;
    }
    let each = entries.len() / count;
    let Some(cache_type) = each.checked_sub(ENTRY_BYTES).filter(|addresses| *addresses > 0) else {
        return;
    };
    let is_soft = |entry: &[u8]| {
        let bytes = entry.get(cache_type..).and_then(|bytes| bytes.first_chunk());
        bytes.is_some_and(|bytes| u32::from_le_bytes(*bytes) == SOFT_LINK)
    };
    let kept: Vec<u8> =
        entries.chunks_exact(each).filter(|entry| !is_soft(entry)).flatten().copied().collect();
    // No more than there were.
    let [now_low, now_high] = ((kept.len() / each) as u16).to_le_bytes();
    (*low, *high) = (now_low, now_high);
    entries[..kept.len()].copy_from_slice(&kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_name_paths_are_left_out() {
        let entry = |number: u8, kind: u8| {
            let mut entry = vec![number; 16];
            entry.extend([kind, 0, 0, 0]);
            entry.resize(40, 0);
            entry
        };
        let node = |entries: &[Vec<u8>]| {
            let mut node = b"SNOD\x01\0".to_vec();
            node.extend((entries.len() as u16).to_le_bytes());
            node.extend(entries.concat());
            node
        };
        let mut mixed = node(&[entry(1, 0), entry(2, 2), entry(3, 1), entry(4, 2)]);
        leave_out_soft_links(&mut mixed);
        let expected = node(&[entry(1, 0), entry(3, 1)]);
        assert_eq!(mixed[..expected.len()], expected);
        for odd in [&b"SNOD\x01\0\0\0"[..], b"SNOD", b"SNOD\x01\0\x03\0abcd", b"SNOD\x01\0\x01\0ab"]
        {
            let mut same = odd.to_vec();
            leave_out_soft_links(&mut same);
            assert_eq!(same, odd);
        }
    }

    #[test]
    fn changed_bytes_are_shown_and_none_beyond_the_end() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        fs::write(file.path(), b"abcdef").expect("written");
        let mut changes = Changes { behind: b"XYZ".to_vec(), ..Changes::default() };
        changes.put(2, b"CD");
        let view = View::open(file.path(), changes).expect("it is there");
        assert_eq!((view.bytes, view.len()), (6, 9));
        for start in 0..=9usize {
            for end in start..=9 {
                let found = view.read(start as u64, end - start).expect("it is there");
                assert_eq!(found, b"abCDefXYZ"[start..end]);
            }
        }
        assert!(view.read(9, 1).is_err() && view.read(8, 2).is_err());
        assert!(view.read(u64::MAX, 1).is_err());
    }
}
