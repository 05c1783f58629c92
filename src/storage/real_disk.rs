//! The real disk, and the lock that keeps a data folder to one process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fs4::fs_std::FileExt;

use super::{Directory, WritableFile};
use crate::error::{Error, Result};

/// The operating system's files.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

struct RealFile {
    path: PathBuf,
    file: File,
}

impl Write for RealFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WritableFile for RealFile {
    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, &e))
    }
}

fn absent_is_fine(result: io::Result<()>, operation: &'static str, path: &Path) -> Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(operation, path, &e)),
        _ => Ok(()),
    }
}

impl Directory for RealDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|e| Error::io("create", path, &e))?;
        Ok(Box::new(RealFile { path: path.to_path_buf(), file }))
    }

    fn read(&self, path: &Path) -> Result<Bytes> {
        fs::read(path).map(Bytes::from).map_err(|e| Error::io("read", path, &e))
    }

    fn map(&self, path: &Path) -> Result<Bytes> {
        crate::native::map_file(path).map_err(|e| Error::io("map", path, &e))
    }

    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|f| f.set_len(length).and_then(|()| f.sync_all()))
            .map_err(|e| Error::io("truncate", path, &e))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("list", path, &e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", path, &e))?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(|e| Error::io("create folder", path, &e))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::io("rename", from, &e))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        absent_is_fine(fs::remove_file(path), "remove", path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        absent_is_fine(fs::remove_dir_all(path), "remove folder", path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        File::open(path).and_then(|f| f.sync_all()).map_err(|e| Error::io("sync folder", path, &e))
    }

    fn forward_store_root<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        Some(path)
    }
}

/// Held for as long as a process uses a data folder; the system releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock, or says that another process has it.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("LOCK");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| Error::io("create", &path, &e))?;
        match file.try_lock_exclusive() {
            Ok(true) => Ok(FolderLock { _file: file }),
            Ok(false) => Err(Error::Locked { path: folder.to_path_buf() }),
            Err(e) => Err(Error::io("lock", &path, &e)),
        }
    }
}
