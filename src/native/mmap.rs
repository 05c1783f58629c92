//! Whole files as read-only memory.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps a sealed file. The mapping lives as long as any clone or slice of the result, also after
/// the file is unlinked. An empty file gives empty bytes, since the system maps no empty range.
/// Fails as opening and mapping fail.
///
/// Only for files that nobody changes any more: a sealed file is replaced, never modified.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the memory is only sound to read as long as no process writes to or truncates the
    // file. Sealed files are written once, synced, and from then on only renamed over or unlinked,
    // which leaves this mapping as it is; the data folder's lock keeps other servers out.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_was_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        for content in [&b""[..], b"x", &[7; 10_000]] {
            std::fs::write(&path, content).expect("write");
            assert_eq!(map_file(&path).expect("map"), content);
        }
    }

    #[test]
    fn outlives_the_name_of_the_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"still here").expect("write");
        let bytes = map_file(&path).expect("map").slice(6..);
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(bytes, &b"here"[..]);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = map_file(&folder.path().join("none")).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
