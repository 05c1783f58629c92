//! The picture root: files below one folder, and nothing else of the machine. The kernel itself resolves
//! each path beneath the folder (`openat2` with `RESOLVE_BENEATH`), so that nothing can be exchanged
//! between a check and the opening.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config::ConsoleConfig;
use crate::embedding::{HEAD_BYTES, media_type};
use crate::error::{Error, Result};

/// Largest file that is shown.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Checks at the start that the configured folder is there.
pub(in crate::server) fn check_root(config: &ConsoleConfig) -> Result<()> {
    let folder = &config.picture_root;
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let opened = rustix::fs::open(folder, FOLDER, Mode::empty());
    opened.map(drop).map_err(|cause| {
        Error::io("open the folder of setting console.picture_root", folder, &cause)
    })
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// How often the kernel is asked to open a file that it cannot open just now.
const OPEN_TRIES: usize = 64;

/// The folder whose pictures are shown.
#[derive(Debug, Clone)]
pub(super) struct PictureRoot(PathBuf);

/// A file that is to be shown, open.
#[derive(Debug)]
pub(super) struct PictureFile {
    /// What of it was not read yet.
    pub(super) rest: File,
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    /// All bytes of it.
    pub(super) bytes: u64,
    pub(super) media_type: &'static str,
    /// Another one whenever the file changes.
    pub(super) tag: String,
}

/// Why a file is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotShown {
    #[error("the path leads out of the picture root (setting console.picture_root)")]
    Outside,
    #[error("there is no such file below the picture root (setting console.picture_root)")]
    Absent,
    #[error("it is no file")]
    NoFile,
    #[error("it is no picture: its first bytes are not those of JPEG, PNG, WebP, GIF or BMP")]
    NoPicture,
    #[error("it has {bytes} bytes; files of up to {FILE_BYTES_MAX} are shown")]
    TooLarge { bytes: u64 },
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl PictureRoot {
    /// `None` where none is configured.
    pub(super) fn new(config: &ConsoleConfig) -> Option<Self> {
        let folder = &config.picture_root;
        (!folder.as_os_str().is_empty()).then(|| PictureRoot(folder.clone()))
    }

    /// Opens the picture of a path relative to the root. Blocks.
    pub(super) fn open(&self, path: &str) -> std::result::Result<PictureFile, NotShown> {
        // The kernel would refuse these as well; they are refused before anything is looked up.
        let is_below = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.is_empty() || path.contains('\0') || !Path::new(path).components().all(is_below) {
            return Err(NotShown::Outside);
        }
        let unreadable = |cause: Errno| NotShown::Unreadable(cause.to_string());
        let folder = rustix::fs::open(&self.0, FOLDER, Mode::empty()).map_err(unreadable)?;
        // Without waiting: pipes would keep the opener until somebody writes.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = || rustix::fs::openat2(&folder, path, flags, Mode::empty(), resolve);
        // While anything is renamed the kernel cannot tell where `..` leads, and asks to be called again.
        let again = |opened: &std::result::Result<_, Errno>| matches!(opened, Err(Errno::AGAIN));
        let mut tries = std::iter::repeat_with(open).take(OPEN_TRIES);
        let file = tries.find(|opened| !again(opened)).unwrap_or(Err(Errno::AGAIN));
        let file = File::from(file.map_err(|cause| match cause {
            Errno::XDEV | Errno::LOOP => NotShown::Outside,
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => NotShown::Absent,
            Errno::NXIO => NotShown::NoFile,
            cause => unreadable(cause),
        })?);
        let failed = |cause: std::io::Error| NotShown::Unreadable(cause.to_string());
        let known = file.metadata().map_err(failed)?;
        if !known.is_file() {
            return Err(NotShown::NoFile);
        }
        let bytes = known.len();
        if bytes > FILE_BYTES_MAX {
            return Err(NotShown::TooLarge { bytes });
        }
        let mut head = Vec::new();
        (&file).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
        let media_type = media_type(&head).ok_or(NotShown::NoPicture)?;
        let (seconds, nanos) = (known.mtime(), known.mtime_nsec());
        let tag = format!("\"{:x}-{seconds:x}-{nanos:x}-{bytes:x}\"", known.ino());
        Ok(PictureFile { rest: file, head, bytes, media_type, tag })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;

    const PICTURE: &[u8] = b"\xff\xd8\xff\xe0 the rest of a picture, longer than its head is";

    /// A root with pictures in it, and one beside it.
    fn made() -> (TempDir, PictureRoot) {
        let folder = TempDir::new().expect("temp dir");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("inner/deep")).expect("folders");
        for path in ["root/a.jpg", "root/inner/b c.jpg", "root/inner/deep/d.jpg", "secret.jpg"] {
            std::fs::write(folder.path().join(path), PICTURE).expect("a file");
        }
        let config = ConsoleConfig { picture_root: root, ..ConsoleConfig::default() };
        check_root(&config).expect("the folder is there");
        let root = PictureRoot::new(&config).expect("one is configured");
        (folder, root)
    }

    fn refused(root: &PictureRoot, path: &str) -> NotShown {
        match root.open(path) {
            Err(why) => why,
            Ok(_) => panic!("{path:?} was opened"),
        }
    }

    #[test]
    fn pictures_below_the_root_are_opened_whole() {
        let (_folder, root) = made();
        for path in ["a.jpg", "./a.jpg", "inner/b c.jpg", "inner//deep/d.jpg"] {
            let mut file = root.open(path).expect(path);
            assert_eq!((file.bytes, file.media_type), (PICTURE.len() as u64, "image/jpeg"));
            file.rest.read_to_end(&mut file.head).expect("it can be read");
            assert_eq!(file.head, PICTURE);
        }
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        let (folder, root) = made();
        let absolute = folder.path().join("secret.jpg").display().to_string();
        let inside = folder.path().join("root/a.jpg").display().to_string();
        for path in [
            "../secret.jpg",
            "inner/../../secret.jpg",
            // It would stay inside; a path that is not plain is not taken.
            "inner/../a.jpg",
            "..",
            "",
            "/etc/passwd",
            "//etc/passwd",
            "a.jpg\0.png",
            &absolute,
            &inside,
        ] {
            assert_eq!(refused(&root, path), NotShown::Outside, "{path:?}");
        }
    }

    #[test]
    fn links_are_followed_within_the_root_only() {
        let (folder, root) = made();
        let (base, at) = (folder.path(), folder.path().join("root"));
        symlink("inner/b c.jpg", at.join("within.jpg")).expect("link");
        symlink("../a.jpg", at.join("inner/up.jpg")).expect("link");
        assert!(root.open("within.jpg").is_ok());
        assert!(root.open("inner/up.jpg").is_ok());

        symlink("../secret.jpg", at.join("out.jpg")).expect("link");
        symlink(base.join("secret.jpg"), at.join("absolute.jpg")).expect("link");
        symlink("..", at.join("parent")).expect("link");
        symlink(base, at.join("base")).expect("link");
        symlink("loop.jpg", at.join("loop.jpg")).expect("link");
        symlink("/proc/self/fd", at.join("fds")).expect("link");
        symlink("/proc/self/root", at.join("machine")).expect("link");
        for path in [
            "out.jpg",
            "absolute.jpg",
            "parent/secret.jpg",
            "base/secret.jpg",
            "loop.jpg",
            "fds/0",
            "machine/etc/passwd",
        ] {
            assert_eq!(refused(&root, path), NotShown::Outside, "{path}");
        }
    }

    #[test]
    fn a_root_that_is_itself_a_link_is_followed() {
        let (folder, _) = made();
        let link = folder.path().join("link");
        symlink("root", &link).expect("link");
        let config = ConsoleConfig { picture_root: link, ..ConsoleConfig::default() };
        check_root(&config).expect("the folder is there");
        let root = PictureRoot::new(&config).expect("one is configured");
        assert!(root.open("a.jpg").is_ok());
        assert_eq!(refused(&root, "../secret.jpg"), NotShown::Outside);
    }

    #[test]
    fn only_files_are_opened() {
        let (folder, root) = made();
        let at = folder.path().join("root");
        let _socket = UnixListener::bind(at.join("socket")).expect("a socket");
        let pipe = std::process::Command::new("mkfifo").arg(at.join("pipe")).status();
        assert!(pipe.expect("mkfifo runs").success());
        for path in ["inner", ".", "socket", "pipe"] {
            assert_eq!(refused(&root, path), NotShown::NoFile, "{path}");
        }
        let long = "x".repeat(5_000);
        for path in ["none.jpg", "a.jpg/b.jpg", "none/a.jpg", "A.JPG", &long] {
            assert_eq!(refused(&root, path), NotShown::Absent, "{path}");
        }
    }

    #[test]
    fn devices_are_no_pictures() {
        let config = ConsoleConfig { picture_root: "/dev".into(), ..ConsoleConfig::default() };
        let root = PictureRoot::new(&config).expect("one is configured");
        assert_eq!(refused(&root, "zero"), NotShown::NoFile);
        assert_eq!(refused(&root, "null"), NotShown::NoFile);
    }

    #[test]
    fn only_pictures_of_some_size_are_shown() {
        let (folder, root) = made();
        let at = folder.path().join("root");
        std::fs::write(at.join("text.jpg"), "password = secret").expect("a file");
        std::fs::write(at.join("empty.jpg"), "").expect("a file");
        std::fs::write(at.join("page.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>")
            .expect("a file");
        for path in ["text.jpg", "empty.jpg", "page.svg"] {
            assert_eq!(refused(&root, path), NotShown::NoPicture, "{path}");
        }
        let large = File::options().write(true).open(at.join("a.jpg")).expect("it is there");
        large.set_len(FILE_BYTES_MAX).expect("a sparse file");
        assert!(root.open("a.jpg").is_ok());
        large.set_len(FILE_BYTES_MAX + 1).expect("a sparse file");
        assert_eq!(refused(&root, "a.jpg"), NotShown::TooLarge { bytes: FILE_BYTES_MAX + 1 });
    }

    #[test]
    fn a_changed_file_has_another_tag() {
        let (folder, root) = made();
        let before = root.open("a.jpg").expect("a picture").tag;
        assert_eq!(root.open("a.jpg").expect("a picture").tag, before);
        std::fs::write(folder.path().join("root/a.jpg"), [PICTURE, b"!"].concat()).expect("a file");
        assert_ne!(root.open("a.jpg").expect("a picture").tag, before);
    }

    #[test]
    fn a_root_that_is_not_there_is_named_with_its_setting() {
        let (folder, _) = made();
        for path in ["none", "secret.jpg"] {
            let picture_root = folder.path().join(path);
            let config = ConsoleConfig { picture_root, ..ConsoleConfig::default() };
            let words = check_root(&config).expect_err("no folder").to_string();
            assert!(words.contains("console.picture_root") && words.contains(path), "{words}");
        }
        assert!(PictureRoot::new(&ConsoleConfig::default()).is_none());
        check_root(&ConsoleConfig::default()).expect("none is configured");
    }

    #[test]
    fn pictures_behind_links_are_opened_while_folders_are_renamed() {
        let (folder, root) = made();
        let path = |name: &str| folder.path().join("root").join(name);
        symlink("../a.jpg", path("inner/link.jpg")).expect("a link");
        std::fs::create_dir(path("one")).expect("a folder");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(path("one"), path("other")).expect("renamed");
                    std::fs::rename(path("other"), path("one")).expect("renamed back");
                }
            });
            let refused = (0..5_000).filter_map(|_| root.open("inner/link.jpg").err()).next();
            done.store(true, Ordering::Relaxed);
            assert_eq!(refused, None);
        });
    }
}
