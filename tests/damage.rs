//! Damaged and truncated files of every kind: noticed, named, and confined to their collection.

mod engine;

use std::path::{Path, PathBuf};

use engine::{busy_config, contents, declaration, open, row, runtime, write};
use voisin::config::Durability;
use voisin::error::Error;
use voisin::schema::Operation;
use voisin::storage::TestDisk;

/// A disk with two collections, each with sealed segments, a graph, tombstones and a log.
async fn two_collections() -> (TestDisk, Vec<(u64, u64)>, PathBuf) {
    let disk = TestDisk::new();
    let database = open(&disk, &busy_config(Durability::Power)).unwrap();
    for name in ["kept", "damaged"] {
        database.create_collection(declaration(name)).await.unwrap();
        let collection = database.collection(name).unwrap();
        for batch in 0..9u64 {
            let rows = (batch * 21..batch * 21 + 21).map(|key| row(key, Operation::Insert, 1));
            write(&collection, rows.collect()).await.unwrap();
        }
        collection.settle();
        // A few deletes in sealed rows, then enough rows to make the next manifest hold them.
        let rows = [3, 30, 60].map(|key| row(key, Operation::Delete, 0)).to_vec();
        write(&collection, rows).await.unwrap();
        let rows = (500..545).map(|key| row(key, Operation::Insert, 1)).collect();
        write(&collection, rows).await.unwrap();
        collection.settle();
    }
    let expected = contents(&database.collection("kept").unwrap()).await.unwrap();
    let folder = database.collection("damaged").unwrap().folder().to_path_buf();
    database.close();
    (disk.after_kill(), expected, folder)
}

#[test]
fn damage_in_any_file_is_noticed_and_stops_only_its_collection() {
    let runtime = runtime();
    runtime.block_on(async {
        let (disk, expected, folder) = two_collections().await;
        let files: Vec<PathBuf> =
            disk.files().into_iter().filter(|file| file.starts_with(&folder)).collect();
        for kind in ["MANIFEST-", "wal-", "rows.arrow", ".faiss", "tombstones-"] {
            let has = |file: &PathBuf| file.display().to_string().contains(kind);
            assert!(files.iter().any(has), "no {kind} file to damage in {files:?}");
        }
        for file in &files {
            let length = disk.after_kill();
            let mut bytes = 0;
            length.damage(file, |content| bytes = content.len());
            // The start, the end and some places between.
            let places = [0, 9, bytes / 3, bytes / 2, bytes.saturating_sub(1)];
            for place in places.into_iter().filter(|place| *place < bytes) {
                check(&disk, &expected, file, "flipped", |c| c[place] ^= 0x10).await;
            }
            for length in [0, bytes / 2, bytes.saturating_sub(1)] {
                check(&disk, &expected, file, "truncated", |c| c.truncate(length)).await;
            }
        }
    });
}

async fn check(
    disk: &TestDisk,
    expected: &[(u64, u64)],
    file: &Path,
    how: &str,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let disk = disk.after_kill();
    disk.damage(file, change);
    let database = open(&disk, &busy_config(Durability::Power)).unwrap();
    let kept = database.collection("kept").expect("the other collection is served");
    assert_eq!(contents(&kept).await.unwrap(), expected);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    match database.collection("damaged") {
        // The tail of the newest log file cannot be told from one that a crash cut.
        Ok(collection) if name.starts_with("wal-") => {
            let found = contents(&collection).await.unwrap();
            assert!(expected.starts_with(&[]) && found.len() <= expected.len());
        }
        Ok(_) => panic!("{how} {name} went unnoticed"),
        Err(Error::Unserved { cause, .. }) => {
            assert!(cause.contains(&name), "{how} {name}: the file is not named in {cause:?}");
            assert!(cause.contains("damaged"), "{cause:?}");
        }
        // The manifest is where the name is: without it only the folder is known.
        Err(Error::CollectionNotFound { .. }) if name.starts_with("MANIFEST") => {
            assert_eq!(database.unserved().len(), 1, "{how} {name}");
        }
        Err(other) => panic!("{how} {name}: {other}"),
    }
    database.close();
}

#[test]
fn a_missing_file_is_noticed() {
    let runtime = runtime();
    runtime.block_on(async {
        let (disk, _, folder) = two_collections().await;
        for file in disk.files().into_iter().filter(|file| file.starts_with(&folder)) {
            let without = disk.after_kill();
            voisin::storage::Directory::remove_file(&without, &file).unwrap();
            let database = open(&without, &busy_config(Durability::Power)).unwrap();
            assert!(database.collection("damaged").is_err(), "{} is missing", file.display());
            assert!(database.collection("kept").is_ok());
            database.close();
        }
    });
}

/// The forward store is only a copy: without it, or with it in pieces, every value is still there.
#[test]
fn a_lost_or_damaged_forward_store_loses_nothing() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let mut config = busy_config(Durability::Power);
    config.storage.data = folder.path().to_path_buf();
    let store = folder.path().join("forward.sled");
    let expected = runtime.block_on(async {
        let database = voisin::database::Database::open(&config).unwrap();
        database.create_collection(declaration("images")).await.unwrap();
        let collection = database.collection("images").unwrap();
        for batch in 0..10u64 {
            let rows = (batch * 20..batch * 20 + 20).map(|key| row(key, Operation::Insert, 1));
            write(&collection, rows.collect()).await.unwrap();
        }
        let expected = contents(&collection).await.unwrap();
        database.close();
        expected
    });
    drop(runtime);
    let lose = |store: &Path| std::fs::remove_dir_all(store).unwrap();
    let overwrite = |store: &Path| {
        for entry in std::fs::read_dir(store).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let length = std::fs::metadata(&path).unwrap().len() as usize;
                std::fs::write(&path, vec![0xa5; length]).unwrap();
            }
        }
    };
    let truncate = |store: &Path| {
        for entry in std::fs::read_dir(store).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
        }
    };
    let harms: [&dyn Fn(&Path); 3] = [&lose, &overwrite, &truncate];
    for harm in harms {
        harm(&store);
        // A runtime and a database of its own: the one before has let go of the folder.
        let runtime = engine::runtime();
        runtime.block_on(async {
            let database = open_when_free(&config);
            let collection = database.collection("images").unwrap();
            assert_eq!(contents(&collection).await.unwrap(), expected);
            database.close();
        });
    }
}

/// Writes 80 rows of a version, lets them be sealed, and closes.
fn write_and_seal(config: &voisin::config::Config, version: u64) {
    runtime().block_on(async {
        let database = open_when_free(config);
        let collection = database.collection("images").unwrap();
        let rows = (0..80).map(|key| row(key, Operation::Insert, version)).collect();
        write(&collection, rows).await.unwrap();
        collection.settle();
        assert!(collection.stats().segments.len() > 1, "nothing was sealed");
        database.close();
    });
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

/// A power cut may leave the forward store as it was before a segment's id was used again.
#[test]
fn a_forward_store_of_other_rows_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let mut config = busy_config(Durability::Power);
    config.storage.data = place("one");
    runtime().block_on(async {
        let database = open_when_free(&config);
        database.create_collection(declaration("images")).await.unwrap();
        database.close();
    });
    copy_folder(&place("one"), &place("two"));
    write_and_seal(&config, 1);
    config.storage.data = place("two");
    write_and_seal(&config, 2);
    let store = place("two").join("forward.sled");
    std::fs::remove_dir_all(&store).unwrap();
    copy_folder(&place("one").join("forward.sled"), &store);
    runtime().block_on(async {
        let database = open_when_free(&config);
        let found = contents(&database.collection("images").unwrap()).await.unwrap();
        assert!(found.iter().all(|(_, version)| *version == 2), "{found:?}");
        database.close();
    });
}

/// Opens a folder as soon as the threads of its last user have let go of it.
fn open_when_free(config: &voisin::config::Config) -> std::sync::Arc<voisin::database::Database> {
    for _ in 0..1_000_000 {
        match voisin::database::Database::open(config) {
            Ok(database) => return database,
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the folder stays locked");
}
