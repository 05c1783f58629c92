//! Acknowledged means durable: the engine against a disk that stops at every sync it ever makes, and
//! against power cuts that lose, tear or keep what was not synced.

mod engine;

use std::collections::BTreeMap;
use std::path::Path;

use engine::{NAME, busy_config, contents, declaration, open, row, runtime, write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use voisin::config::Durability;
use voisin::database::AliasChange;
use voisin::error::Error;
use voisin::schema::{Alteration, Operation};
use voisin::storage::{Directory, TestDisk, Unsynced};

/// What a client knows of each key: the versions it may have. One entry where it was told, more
/// where the answer never came; `None` stands for "not there".
#[derive(Debug, Default, Clone)]
struct Journal {
    keys: BTreeMap<u64, Vec<Option<u64>>>,
    acknowledged: u64,
    /// Forward columns that were added, the first one included.
    columns: usize,
    has_alias: bool,
}

impl Journal {
    fn may_hold(&self, key: u64) -> &[Option<u64>] {
        self.keys.get(&key).map_or(&[None], Vec::as_slice)
    }

    fn told(&mut self, key: u64, version: Option<u64>) {
        self.keys.insert(key, vec![version]);
        self.acknowledged += 1;
    }

    fn not_told(&mut self, key: u64, version: Option<u64>) {
        let known = self.may_hold(key).to_vec();
        self.keys.insert(key, known.into_iter().chain([version]).collect());
    }

    fn check(&self, found: &[(u64, u64)], when: &str) {
        let found: BTreeMap<u64, u64> = found.iter().copied().collect();
        for (key, version) in &found {
            assert!(
                self.may_hold(*key).contains(&Some(*version)),
                "{when}: key {key} has version {version}, may have {:?}",
                self.may_hold(*key)
            );
        }
        for (key, versions) in &self.keys {
            assert!(
                found.contains_key(key) || versions.contains(&None),
                "{when}: key {key} is lost, may have {versions:?}"
            );
        }
    }
}

/// Requests of a workload, unless the disk stops before.
const TURNS: u64 = 60;

/// Writes requests of inserts, updates and deletes, adding columns now and then, until all are done or the disk stops.
async fn workload(
    disk: &TestDisk,
    durability: Durability,
    seed: u64,
    turns: u64,
    journal: &mut Journal,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut config = busy_config(durability);
    // It is quiet between any two requests, so that what is deleted is removed all the time.
    config.segment.quiet_ms = 0;
    let Ok(database) = open(disk, &config) else { return };
    let created = database.create_collection(declaration(NAME)).await;
    if created.is_err() && !matches!(created, Err(Error::DuplicateCollection { .. })) {
        database.close();
        return;
    }
    let mut collection = database.collection(NAME).unwrap();
    let mut version = 0;
    for turn in 0..turns {
        if turn % 17 == 9 {
            // The declaration changes under the rows.
            let name = format!("added {}", collection.schema().forward_columns.len());
            let change = Alteration { add_forwards: vec![name.into()], ..Alteration::default() };
            let Ok(altered) = database.alter_collection(NAME, change).await else { break };
            collection = altered;
            journal.columns = collection.schema().forward_columns.len();
            let alias = AliasChange { alias: "other".into(), collection: Some(NAME.into()) };
            if database.change_aliases(vec![alias]).await.is_err() {
                break;
            }
            journal.has_alias = true;
        }
        if turn % 12 == 11 || turn % 7 == 3 {
            // Seals and merges now, so that their syncs are among those that fail.
            if turn % 7 == 3 {
                collection.tick();
            }
            collection.settle();
        }
        let mut rows = Vec::new();
        let mut touched: Vec<(u64, Option<u64>)> = Vec::new();
        while rows.len() < 8 {
            let key = rng.random_range(0..160);
            // Only keys whose state is known, each once a request: then every row must succeed.
            let [held] = journal.may_hold(key)[..] else { continue };
            if touched.iter().any(|(other, _)| *other == key) {
                continue;
            }
            version += 1;
            let (operation, after) = match held {
                None => (Operation::Insert, Some(version)),
                Some(_) if rng.random_bool(0.4) => (Operation::Delete, None),
                Some(_) => (Operation::Update, Some(version)),
            };
            rows.push(row(key, operation, version));
            touched.push((key, after));
        }
        match write(&collection, rows).await {
            Ok(outcome) => {
                assert_eq!(outcome.failures, [], "rows that must succeed");
                touched.into_iter().for_each(|(key, after)| journal.told(key, after));
            }
            Err(_) => {
                touched.into_iter().for_each(|(key, after)| journal.not_told(key, after));
                break;
            }
        }
    }
    database.close();
}

async fn found_after(
    disk: &TestDisk,
    durability: Durability,
    journal: &Journal,
) -> Option<Vec<(u64, u64)>> {
    let database = open(disk, &busy_config(durability)).unwrap();
    assert_eq!(database.unserved(), [], "a crash may stop no collection");
    let found = match database.collection(NAME) {
        Ok(collection) => {
            let columns = &collection.schema().forward_columns;
            let added = (1..columns.len()).map(|number| format!("added {number}"));
            assert!(columns[1..].iter().cloned().eq(added), "{columns:?}");
            assert!(columns.len() >= journal.columns, "a column is lost: {columns:?}");
            Some(contents(&collection).await.unwrap())
        }
        Err(_) => None,
    };
    let aliases = database.aliases();
    assert!(aliases.is_empty() || aliases.get("other").is_some_and(|name| name == NAME));
    assert!(!journal.has_alias || !aliases.is_empty(), "an alias is lost");
    database.close();
    found
}

fn how_unsynced(nth: u64) -> Unsynced {
    match nth % 3 {
        0 => Unsynced::Lost,
        1 => Unsynced::Torn((nth * 37 % 256) as u8),
        _ => Unsynced::Kept,
    }
}

#[test]
fn every_acknowledged_write_survives_a_disk_that_stops_at_any_sync() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut nth = 1;
        loop {
            let disk = TestDisk::new();
            disk.stop_at_sync(nth);
            let mut journal = Journal::default();
            workload(&disk, Durability::Power, nth, TURNS, &mut journal).await;
            let finished = !disk.has_stopped();
            for unsynced in [Unsynced::Lost, how_unsynced(nth)] {
                let after = disk.after_power_cut(unsynced);
                let found = found_after(&after, Durability::Power, &journal).await;
                let when = format!("stopped at sync {nth}, unsynced bytes {unsynced:?}");
                assert!(found.is_some() || journal.acknowledged == 0, "{when}: collection lost");
                journal.check(&found.unwrap_or_default(), &when);
            }
            if finished {
                assert!(nth > 120, "the workload makes only {nth} syncs");
                break;
            }
            nth += 1;
        }
    });
}

/// Crash after crash on the same data: what one recovery leaves, the next must still read.
#[test]
fn a_power_cut_tears_only_what_was_not_acknowledged() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut rng = StdRng::seed_from_u64(7);
        let mut disk = TestDisk::new();
        let mut journal = Journal::default();
        for round in 0..40 {
            disk.stop_at_sync(rng.random_range(1..120));
            workload(&disk, Durability::Power, 1_000 + round, TURNS, &mut journal).await;
            disk = disk.after_power_cut(how_unsynced(rng.random_range(0..300)));
            let found = found_after(&disk, Durability::Power, &journal).await.unwrap_or_default();
            journal.check(&found, &format!("round {round}"));
            // What was open is settled now.
            let found: BTreeMap<u64, u64> = found.into_iter().collect();
            for (key, versions) in &mut journal.keys {
                *versions = vec![found.get(key).copied()];
            }
        }
        assert!(journal.acknowledged > 1_000);
    });
}

/// A process that died between a write and its sync leaves bytes that the next process reads but no
/// sync ever covered. What that next process builds on them must not fall with them.
#[test]
fn a_power_cut_after_a_kill_loses_nothing_acknowledged() {
    let runtime = runtime();
    runtime.block_on(async {
        for durability in [Durability::Power, Durability::Process] {
            for nth in 3..60 {
                let disk = TestDisk::new();
                let mut journal = Journal::default();
                disk.stop_at_sync(nth);
                workload(&disk, durability, nth, TURNS, &mut journal).await;
                let killed = disk.after_kill();
                let found = found_after(&killed, durability, &journal).await.unwrap_or_default();
                let found: BTreeMap<u64, u64> = found.into_iter().collect();
                for (key, versions) in &mut journal.keys {
                    *versions = vec![found.get(key).copied()];
                }
                let again = killed.after_kill();
                let mut second = journal.clone();
                workload(&again, Durability::Power, 100 + nth, 3, &mut second).await;
                let cut = again.after_power_cut(Unsynced::Lost);
                let found =
                    found_after(&cut, Durability::Power, &journal).await.unwrap_or_default();
                second.check(&found, &format!("{durability:?}, stopped at sync {nth}"));
            }
        }
    });
}

#[test]
fn process_durability_survives_the_end_of_the_process() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut disk = TestDisk::new();
        let mut journal = Journal::default();
        for round in 0..10 {
            workload(&disk, Durability::Process, 2_000 + round, TURNS, &mut journal).await;
            disk = disk.after_kill();
            let found = found_after(&disk, Durability::Process, &journal).await.unwrap();
            journal.check(&found, &format!("round {round}"));
        }
    });
}

/// Without power durability a power cut may lose the newest writes, but nothing older than the last
/// seal, no row may be half there, and no collection may be damaged.
#[test]
fn process_durability_leaves_whole_rows_after_a_power_cut() {
    let runtime = runtime();
    runtime.block_on(async {
        for nth in 0..30 {
            let disk = TestDisk::new();
            disk.stop_at_sync(5 + nth * 3);
            let mut journal = Journal::default();
            workload(&disk, Durability::Process, nth, TURNS, &mut journal).await;
            let after = disk.after_power_cut(how_unsynced(nth));
            // Each row is checked to be whole.
            found_after(&after, Durability::Process, &journal).await;
        }
    });
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let runtime = runtime();
    runtime.block_on(async {
        let disk = TestDisk::new();
        let database = open(&disk, &busy_config(Durability::Power)).unwrap();
        database.create_collection(declaration(NAME)).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        write(&collection, vec![row(1, Operation::Insert, 1)]).await.unwrap();
        disk.stop_at_sync(1);
        for key in 2..5 {
            let answer = write(&collection, vec![row(key, Operation::Insert, 1)]).await;
            assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
        }
        assert_eq!(contents(&collection).await.unwrap(), [(1, 1)], "reads go on, unchanged");
        database.close();
    });
}

#[test]
fn a_creation_or_removal_cut_short_leaves_all_or_nothing() {
    let runtime = runtime();
    runtime.block_on(async {
        for nth in 1..12 {
            let disk = TestDisk::new();
            let config = busy_config(Durability::Power);
            let database = open(&disk, &config).unwrap();
            disk.stop_at_sync(nth);
            let created = database.create_collection(declaration(NAME)).await.is_ok();
            let dropped = created && database.drop_collection(NAME).await.is_ok();
            database.close();
            let after = disk.after_power_cut(Unsynced::Lost);
            let database = open(&after, &config).unwrap();
            assert_eq!(database.unserved(), []);
            let is_there = database.collection(NAME).is_ok();
            assert!(!dropped || !is_there, "sync {nth}: a removal was undone");
            database.close();
            let left = after.list(Path::new("/data/collections")).unwrap();
            assert_eq!(left.len(), usize::from(is_there), "sync {nth}: {left:?}");
        }
    });
}
