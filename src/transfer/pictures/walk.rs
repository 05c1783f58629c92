//! The pictures below a folder.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::WalkDir;

/// Names of pictures end so, unless globs say otherwise.
const ENDINGS: &str = "*.{jpg,jpeg,jpe,jfif,png,webp,gif,bmp,dib,tif,tiff}";

/// A picture's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The file.
    pub file: PathBuf,
    /// Its path below the folder, with `/` between.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was changed last, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// What is looked for.
#[derive(Debug)]
pub(super) struct Walk {
    wanted: GlobSet,
    unwanted: GlobSet,
    /// Follow symbolic links to folders and files. Without, no path leads out of the folder, and none in
    /// circles.
    pub follow: bool,
}

/// Pictures, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub found: Vec<Found>,
    /// Path and reason.
    pub problems: Vec<(String, String)>,
}

fn globs(texts: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        let glob = GlobBuilder::new(text).case_insensitive(true).literal_separator(true).build();
        set.add(glob.map_err(|error| error.to_string())?);
    }
    set.build().map_err(|error| error.to_string())
}

impl Walk {
    /// Globs are of paths below the folder; one without `/` is of file names.
    pub(super) fn new(
        wanted: &[String],
        unwanted: &[String],
        follow: bool,
    ) -> Result<Self, String> {
        let anywhere = |texts: &[String]| -> Vec<String> {
            let text = |text: &String| match text.contains('/') {
                true => text.clone(),
                false => format!("**/{text}"),
            };
            texts.iter().map(text).collect()
        };
        let wanted = match wanted {
            [] => anywhere(&[ENDINGS.to_owned()]),
            given => anywhere(given),
        };
        Ok(Walk { wanted: globs(&wanted)?, unwanted: globs(&anywhere(unwanted))?, follow })
    }

    /// Walks, in the order of names.
    pub(super) fn run(&self, root: &Path) -> Walked {
        let mut walked = Walked::default();
        for entry in WalkDir::new(root).follow_links(self.follow).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path =
                        error.path().map_or_else(String::new, |path| path.display().to_string());
                    walked.problems.push((path, error.to_string()));
                    continue;
                }
            };
            if !entry.file_type().is_file() {
                continue;
            }
            let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
            if !self.wanted.is_match(below) || self.unwanted.is_match(below) {
                continue;
            }
            match found(entry.path(), below) {
                Ok(found) => walked.found.push(found),
                Err(reason) => walked.problems.push((below.display().to_string(), reason)),
            }
        }
        walked
    }
}

fn found(file: &Path, below: &Path) -> Result<Found, String> {
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let parts = parts.ok_or("its name is not text in UTF-8")?;
    let data = std::fs::metadata(file).map_err(|error| error.to_string())?;
    let modified = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Ok(Found {
        file: file.to_owned(),
        path: parts.join("/"),
        bytes: data.len(),
        modified_ms: modified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(walk: &Walk, root: &Path) -> Vec<String> {
        walk.run(root).found.into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn pictures_are_found_by_name_and_links_are_not_followed_unasked() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("photos");
        std::fs::create_dir_all(root.join("a/b")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("outside")).expect("a folder");
        for name in ["one.JPG", "a/two.png", "a/b/three.tiff", "a/notes.txt", "../outside/four.gif"]
        {
            std::fs::write(root.join(name), name).expect("a file");
        }
        std::os::unix::fs::symlink(folder.path().join("outside"), root.join("link"))
            .expect("a link");
        std::os::unix::fs::symlink(&root, root.join("a/circle")).expect("a link");
        let walk = |wanted: &[&str], unwanted: &[&str], follow| {
            let own =
                |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Walk::new(&own(wanted), &own(unwanted), follow).expect("good globs")
        };
        assert_eq!(
            paths(&walk(&[], &[], false), &root),
            ["a/b/three.tiff", "a/two.png", "one.JPG"]
        );
        assert_eq!(
            paths(&walk(&["*.png", "a/b/*"], &[], false), &root),
            ["a/b/three.tiff", "a/two.png"]
        );
        assert_eq!(paths(&walk(&[], &["a/**"], false), &root), ["one.JPG"]);
        let followed = walk(&[], &[], true).run(&root);
        let found: Vec<&str> = followed.found.iter().map(|found| &found.path[..]).collect();
        assert_eq!(found, ["a/b/three.tiff", "a/two.png", "link/four.gif", "one.JPG"]);
        assert!(followed.problems[0].1.contains("loop"), "{:?}", followed.problems);
        let missing = walk(&[], &[], false).run(&root.join("missing"));
        assert_eq!((missing.found.len(), missing.problems.len()), (0, 1));
        assert!(Walk::new(&["[".to_owned()], &[], false).is_err());
    }
}
