//! Indexes that a process did not outlive: what a start does with the markers that such a process leaves
//! behind, and what is built with few rows or with rows unlike the first.

mod engine;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{NAME, busy_config, column, open, runtime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use voisin::collection::Collection;
use voisin::config::{Config, Durability};
use voisin::schema::{
    ElementType, KnnRequest, NewCollection, Operation, RawQueryVectors, RawRow, RawVector,
    RawVectorMeta, RawWrite, SearchParams,
};
use voisin::storage::{Disk, TestDisk};

const DIMENSION: u32 = 16;
const K: u32 = 10;

fn config() -> Config {
    let mut config = busy_config(Durability::Process);
    config.storage.log_file_bytes = 1 << 20;
    config.segment.seal_rows_max = 1_500;
    config
}

fn declared(name: &str, params: &[(&str, &str)]) -> NewCollection {
    NewCollection {
        name: name.into(),
        columns: vec![column("v", ElementType::Fp32, DIMENSION, params)],
        ..NewCollection::default()
    }
}

fn vector(rng: &mut StdRng, shift: f32) -> Vec<f32> {
    (0..DIMENSION)
        .map(|_| (0..4).map(|_| rng.random_range(-1.0..1.0f32)).sum::<f32>() + shift)
        .collect()
}

async fn write(collection: &Arc<Collection>, keys: std::ops::Range<u64>, shift: f32) {
    let mut rng = StdRng::seed_from_u64(keys.start + 1);
    let rows = keys.map(|key| RawRow {
        key,
        operation: Operation::Insert,
        forward: Vec::new(),
        vectors: vec![RawVector::Bytes(engine::floats(&vector(&mut rng, shift)))],
        lsn: None,
        condition: None,
    });
    let meta =
        RawVectorMeta { column: "v".into(), element: Ok(ElementType::Fp32), dimension: DIMENSION };
    let raw =
        RawWrite { forward_names: Vec::new(), vector_metas: vec![meta], rows: rows.collect() };
    assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
}

/// Mean share of the exact answer that is found around there.
async fn recall(collection: &Arc<Collection>, shift: f32) -> f64 {
    let mut rng = StdRng::seed_from_u64(99);
    let (mut good, mut wanted) = (0, 0);
    for _ in 0..25 {
        let asked = engine::floats(&vector(&mut rng, shift));
        let request = |exact: bool| KnnRequest {
            column: "v".into(),
            topk: K,
            vectors: RawQueryVectors::Bytes(asked.clone()),
            batch_count: 1,
            params: exact.then(|| SearchParams::from_text(&[("exact".into(), "true".into())])),
            ..KnnRequest::default()
        };
        let exact = collection.query(request(true)).await.unwrap().results.remove(0);
        let found = collection.query(request(false)).await.unwrap().results.remove(0);
        assert_eq!(found.len(), exact.len(), "k means k");
        let edge = exact.last().unwrap().score;
        good += found.iter().filter(|hit| hit.score <= edge).count();
        wanted += exact.len();
    }
    good as f64 / wanted as f64
}

fn has_index(collection: &Arc<Collection>) -> bool {
    let memory = collection.memory();
    memory.codes + memory.graphs > 0
}

/// The index file of the collection, and markers in its folder.
fn files(disk: &TestDisk, folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let files = disk.files();
    let own = files.into_iter().filter(|path| path.starts_with(folder)).collect::<Vec<_>>();
    let (inner, outer): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|path| path.parent() != Some(folder));
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let is_marker =
        |path: &PathBuf| name(path).starts_with("opening-") || name(path).starts_with("building-");
    (
        inner.into_iter().filter(|path| name(path).ends_with(".faiss")).collect(),
        outer.into_iter().filter(is_marker).collect(),
    )
}

fn plant(disk: &TestDisk, path: &Path, line: &str) {
    let disk: Disk = Arc::new(disk.clone());
    let content = voisin::storage::with_checksum(line);
    voisin::storage::replace_file(&*disk, path, content.as_bytes()).unwrap();
}

const IVF: &[(&str, &str)] = &[("index_type", "IVF_SQ8"), ("nlist", "16")];

#[test]
fn an_index_that_a_start_did_not_outlive_is_left_out_and_its_rows_are_scanned() {
    runtime().block_on(async {
        let disk = TestDisk::new();
        let database = open(&disk, &config()).unwrap();
        for name in [NAME, "other"] {
            database.create_collection(declared(name, IVF)).await.unwrap();
            let collection = database.collection(name).unwrap();
            write(&collection, 0..3_000, 0.0).await;
            collection.settle();
            assert!(has_index(&collection));
            assert_eq!(collection.unindexed(), Vec::<String>::new());
        }
        let folder = database.collection(NAME).unwrap().folder().to_path_buf();
        database.close();
        let (indexes, markers) = files(&disk, &folder);
        assert_eq!(markers, Vec::<PathBuf>::new(), "nothing is under way");
        let index = indexes.last().unwrap();
        let segment = index.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let segment = segment.strip_prefix("segment-").unwrap();
        let marker = folder.join(format!("opening-{segment}-0"));
        plant(&disk, &marker, r#"{"format":1}"#);
        // The file is not even looked at, though its checksum must be right.
        for _ in 0..2 {
            let database = open(&disk, &config()).unwrap();
            let collection = database.collection(NAME).unwrap();
            let reasons = collection.unindexed();
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            let words = [&format!("segment-{segment}/0.faiss"), &*marker.to_string_lossy()];
            assert!(words.iter().all(|word| reasons[0].contains(*word)), "{reasons:?}");
            assert_eq!(recall(&collection, 0.0).await, 1.0, "a scan finds everything");
            collection.settle();
            assert!(!collection.unindexed().is_empty(), "and it stays so");
            let other = database.collection("other").unwrap();
            assert!(has_index(&other) && other.unindexed().is_empty());
            database.close();
        }
        // Merged with rows that come later, they get an index anew.
        let kept = disk.after_kill();
        let database = open(&disk, &config()).unwrap();
        let collection = database.collection(NAME).unwrap();
        write(&collection, 3_000..6_000, 0.0).await;
        collection.settle();
        assert!(recall(&collection, 0.0).await >= 0.95);
        database.close();
        // Without the marker it is in service again.
        let shared: Disk = Arc::new(kept.clone());
        shared.remove_file(&marker).unwrap();
        let database = open(&kept, &config()).unwrap();
        let collection = database.collection(NAME).unwrap();
        assert!(has_index(&collection) && collection.unindexed().is_empty());
        database.close();
    });
}

#[test]
fn a_build_that_no_process_outlives_is_given_up_and_its_rows_are_scanned() {
    runtime().block_on(async {
        let disk = TestDisk::new();
        let database = open(&disk, &config()).unwrap();
        database.create_collection(declared(NAME, IVF)).await.unwrap();
        let folder = database.collection(NAME).unwrap().folder().to_path_buf();
        database.close();
        let marker = folder.join("building-0");
        // Killed once: that may have had any reason.
        plant(&disk, &marker, r#"{"format":1,"building":0,"tries":1}"#);
        let once = disk.after_kill();
        let database = open(&once, &config()).unwrap();
        let collection = database.collection(NAME).unwrap();
        write(&collection, 0..3_000, 0.0).await;
        collection.settle();
        assert!(has_index(&collection) && collection.unindexed().is_empty());
        assert_eq!(files(&once, &folder).1, Vec::<PathBuf>::new());
        database.close();
        // Killed twice.
        plant(&disk, &marker, r#"{"format":1,"building":0,"tries":2}"#);
        let database = open(&disk, &config()).unwrap();
        let collection = database.collection(NAME).unwrap();
        write(&collection, 0..3_000, 0.0).await;
        collection.settle();
        let reasons = collection.unindexed();
        assert!(reasons.len() == 1 && reasons[0].contains("building-0"), "{reasons:?}");
        assert_eq!(files(&disk, &folder).0, Vec::<PathBuf>::new(), "no index was built");
        assert_eq!(collection.indexing().rows_waiting, 0, "nothing is waited for");
        assert_eq!(recall(&collection, 0.0).await, 1.0);
        database.close();
    });
}

#[test]
fn few_rows_are_trained_with_when_no_more_come_and_told_when_they_are_too_few() {
    runtime().block_on(async {
        let params = [("index_type", "IVF_PQ"), ("nlist", "8"), ("m", "8")];
        let database = open(&TestDisk::new(), &config()).unwrap();
        database.create_collection(declared(NAME, &params)).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        write(&collection, 0..200, 0.0).await;
        let settle = || {
            for _ in 0..4 {
                collection.tick();
            }
            collection.settle();
        };
        settle();
        let reasons = collection.unindexed();
        assert!(reasons.len() == 1 && reasons[0].contains("takes 256"), "{reasons:?}");
        assert_eq!(recall(&collection, 0.0).await, 1.0);
        // 9,984 are wanted; 256 will do.
        write(&collection, 200..1_000, 0.0).await;
        settle();
        assert_eq!(collection.unindexed(), Vec::<String>::new());
        assert_eq!(collection.indexing().rows_waiting, 0);
        assert!(recall(&collection, 0.0).await >= 0.95);
        let few = collection.memory().codes;
        assert!(few > 0);
        // What was trained with few is trained anew with more.
        write(&collection, 1_000..5_000, 8.0).await;
        settle();
        assert!(recall(&collection, 8.0).await >= 0.95);
        assert!(recall(&collection, 0.0).await >= 0.95);
        database.close();
    });
}

#[test]
fn an_index_whose_new_rows_are_unlike_the_first_is_trained_anew() {
    runtime().block_on(async {
        let cases: [&[(&str, &str)]; 2] = [IVF, &[("index_factory", "IVF16,SQ8")]];
        for params in cases {
            let database = open(&TestDisk::new(), &config()).unwrap();
            database.create_collection(declared(NAME, params)).await.unwrap();
            let collection = database.collection(NAME).unwrap();
            write(&collection, 0..3_000, 0.0).await;
            collection.settle();
            for step in 1..4 {
                write(&collection, step * 3_000..(step + 1) * 3_000, 6.0).await;
                collection.settle();
                assert!(recall(&collection, 6.0).await >= 0.95, "{params:?} step {step}");
                assert!(recall(&collection, 0.0).await >= 0.95, "{params:?} step {step}");
            }
            database.close();
        }
    });
}
