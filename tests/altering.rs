//! Altering that fails leaves everything as it was: queries, writes and work in the background go on.

mod engine;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{NAME, busy_config, contents, declaration, row, runtime, write};
use voisin::config::Durability;
use voisin::database::Database;
use voisin::error::{Error, Result};
use voisin::schema::{Alteration, Operation};
use voisin::storage::{Directory, TestDisk, WritableFile};

/// A disk on which no file can be renamed for a while, and so no manifest be written.
#[derive(Debug, Default)]
struct Sticky {
    disk: TestDisk,
    is_stuck: AtomicBool,
}

impl Directory for Sticky {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        self.disk.create(path)
    }
    fn read(&self, path: &Path) -> Result<Bytes> {
        self.disk.read(path)
    }
    fn map(&self, path: &Path) -> Result<Bytes> {
        self.disk.map(path)
    }
    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        self.disk.truncate(path, length)
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.disk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        match self.is_stuck.load(Ordering::SeqCst) {
            true => Err(Error::io("rename", from, &"the disk is stuck")),
            false => self.disk.rename(from, to),
        }
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }
    fn forward_store_root<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.disk.forward_store_root(path)
    }
}

#[test]
fn work_goes_on_after_an_alteration_or_a_drop_that_fails() {
    runtime().block_on(async {
        let disk = Arc::new(Sticky::default());
        let config = busy_config(Durability::Process);
        let database = Database::open_on(disk.clone(), &config, None).expect("it opens");
        database.create_collection(declaration(NAME)).await.expect("it is created");
        let collection = database.collection(NAME).expect("it is there");
        let insert = |keys: std::ops::Range<u64>| {
            let rows = keys.map(|key| row(key, Operation::Insert, 1)).collect();
            write(&collection, rows)
        };
        insert(0..30).await.expect("rows are written");

        disk.is_stuck.store(true, Ordering::SeqCst);
        let change =
            || Alteration { add_forwards: vec!["tag".to_owned().into()], ..Alteration::default() };
        let refused = database.alter_collection(NAME, change()).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        let refused = database.drop_collection(NAME).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        disk.is_stuck.store(false, Ordering::SeqCst);

        // It is sealed and indexed by what begins by itself.
        insert(30..120).await.expect("writes go on");
        let began = Instant::now();
        while !collection.indexing().is_settled || collection.stats().segments.len() < 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", collection.stats());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(contents(&collection).await.expect("rows").len(), 120);
        database.alter_collection(NAME, change()).await.expect("it is altered");
        database.drop_collection(NAME).await.expect("it is dropped");
        database.close();
    });
}
