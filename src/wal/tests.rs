//! The log against a disk that loses, tears and damages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::schema::LsnContext;
use crate::storage::TestDisk;
use crate::wal::{LogSettings, LogWriter};

const FOLDER: &str = "/wal";
const UUID: uuid::Uuid = uuid::Uuid::from_u128(7);

fn operation(n: u64) -> LogOperation {
    LogOperation::Delete { key: n, lsn: Some(LsnContext { lsn: n, context: "x".repeat(20) }) }
}

fn writer(disk: &TestDisk, file_bytes_max: u64, sync_on_commit: bool) -> LogWriter {
    disk.create_dir(Path::new(FOLDER)).unwrap();
    let settings = LogSettings { sync_on_commit, file_bytes_max };
    LogWriter::open(Arc::new(disk.clone()), FOLDER.into(), UUID, settings, 1, 1, []).unwrap()
}

fn read(disk: &TestDisk, checkpoint: u64) -> Result<(Vec<u64>, LogContents)> {
    let mut keys = Vec::new();
    let contents = read_log(disk, Path::new(FOLDER), UUID, checkpoint, 1, |record| {
        for (i, operation) in record.operations.iter().enumerate() {
            if record.first_sequence + i as u64 > checkpoint {
                match operation {
                    LogOperation::Delete { key, .. } => keys.push(*key),
                    other => panic!("{other:?} was never logged"),
                }
            }
        }
        Ok(())
    })?;
    Ok((keys, contents))
}

fn file(number: u64) -> PathBuf {
    super::super::log_path(Path::new(FOLDER), number)
}

#[test]
fn what_was_committed_is_read_back_in_order_over_many_files() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 400, true);
    for n in 1..=50 {
        log.append(&[operation(n)]).unwrap();
        log.commit().unwrap();
    }
    let (keys, contents) = read(&disk, 0).unwrap();
    assert_eq!(keys, (1..=50).collect::<Vec<_>>());
    assert!(contents.files.len() > 3);
    assert_eq!((contents.next_sequence, contents.torn_tail), (51, None));
    assert_eq!(read(&disk, 20).unwrap().0, (21..=50).collect::<Vec<_>>());

    log.trim(30);
    let (keys, _) = read(&disk, 30).unwrap();
    assert_eq!(keys, (31..=50).collect::<Vec<_>>());
}

#[test]
fn a_tail_torn_anywhere_loses_only_what_was_not_synced() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 1 << 20, true);
    log.append(&[operation(1)]).unwrap();
    log.commit().unwrap();
    let synced = disk.read(&file(1)).unwrap().len();
    log.append(&[operation(2), operation(3)]).unwrap();
    log.commit().unwrap();
    let whole = disk.read(&file(1)).unwrap();
    for length in synced..whole.len() {
        let torn = disk.after_kill();
        torn.damage(&file(1), |bytes| bytes.truncate(length));
        let (keys, contents) = read(&torn, 0).unwrap();
        assert_eq!(keys, [1]);
        assert_eq!(contents.torn_tail.is_some(), length > synced);
    }
}

#[test]
fn a_damaged_byte_is_never_read_as_something_else() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 200, true);
    for n in 1..=12 {
        log.append(&[operation(n)]).unwrap();
        log.commit().unwrap();
    }
    let files = disk.files();
    assert!(files.len() >= 3);
    for path in &files {
        let length = disk.read(path).unwrap().len();
        for at in 0..length {
            let damaged = disk.after_kill();
            damaged.damage(path, |bytes| bytes[at] ^= 0x40);
            let is_newest = path == files.last().unwrap();
            match read(&damaged, 0) {
                Err(Error::Damaged { path: named, .. }) => assert_eq!(&named, path),
                Err(other) => panic!("{other}"),
                // Only the last record of the newest file can pass for torn.
                Ok((keys, contents)) => {
                    assert!(is_newest && contents.torn_tail.is_some(), "{path:?} at {at}");
                    assert_eq!(keys, (1..=keys.len() as u64).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn damage_before_synced_records_stops_even_in_the_newest_file() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 1 << 20, true);
    for n in 1..=3 {
        log.append(&[operation(n)]).unwrap();
        log.commit().unwrap();
    }
    disk.damage(&file(1), |bytes| bytes[HEADER_BYTES + 30] ^= 1);
    assert!(matches!(read(&disk, 0), Err(Error::Damaged { offset: 48, .. })));
}

#[test]
fn trimmed_files_that_come_back_in_part_do_no_harm() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 100, true);
    for n in 1..=9 {
        log.append(&[operation(n)]).unwrap();
        log.commit().unwrap();
    }
    let before = disk.after_kill();
    let newest = disk.files().len() as u64;
    disk.remove_file(&file(2)).unwrap();
    let (keys, contents) = read(&disk, 8).unwrap();
    assert_eq!(keys, [9]);
    assert!(contents.files.iter().all(|(number, _, _)| *number > 2));
    assert_eq!(contents.files.last().unwrap().0, newest);
    assert_eq!(read(&before, 8).unwrap().0, [9]);
}

#[test]
fn a_missing_file_is_damage() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 100, true);
    for n in 1..=9 {
        log.append(&[operation(n)]).unwrap();
        log.commit().unwrap();
    }
    let without = |number: u64| {
        let disk = disk.after_kill();
        disk.remove_file(&file(number)).unwrap();
        read(&disk, 0)
    };
    assert!(matches!(without(1), Err(Error::Damaged { .. })));
    assert!(matches!(without(2), Err(Error::Damaged { .. })));
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let disk = TestDisk::new();
    let mut log = writer(&disk, 1 << 20, true);
    disk.stop_at_sync(1);
    log.append(&[operation(1)]).unwrap();
    let first = log.commit().unwrap_err().to_string();
    assert_eq!(log.append(&[operation(2)]).unwrap_err().to_string(), first);
    assert_eq!(log.commit().unwrap_err().to_string(), first);
}
