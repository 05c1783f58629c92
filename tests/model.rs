//! The engine against a plain model: random operations with restarts, exact search against brute
//! force, graph search against exact search, queries while segments swap.

mod engine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use engine::brute::{ELEMENTS, brute_score, close, metrics_of, random_vector};
use engine::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use voisin::collection::Collection;
use voisin::config::Durability;
use voisin::error::RowError;
use voisin::schema::{
    Alteration, ElementType, KnnRequest, Metric, NewCollection, Operation, RawQueryVectors, RawRow,
    RawVector, RawVectorMeta, RawWrite,
};
use voisin::storage::{TestDisk, Unsynced};

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u64, Operation)>),
    Restart {
        by_power_cut: bool,
    },
    WaitForBackground,
    /// A forward column is added.
    Alter,
}

fn any_step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => Just(Operation::Insert),
        2 => Just(Operation::Update),
        2 => Just(Operation::Delete),
        2 => Just(Operation::Upsert),
    ];
    prop_oneof![
        12 => proptest::collection::vec((0u64..120, operation), 1..40).prop_map(Step::Write),
        1 => any::<bool>().prop_map(|by_power_cut| Step::Restart { by_power_cut }),
        1 => Just(Step::WaitForBackground),
        1 => Just(Step::Alter),
    ]
}

/// What the model says of one row: `None` when it succeeds.
fn model_row(
    model: &mut BTreeMap<u64, u64>,
    key: u64,
    op: Operation,
    version: u64,
) -> Option<RowError> {
    match (op, model.contains_key(&key)) {
        (Operation::Insert, true) => return Some(RowError::DuplicateKey),
        (Operation::Update | Operation::Delete, false) => return Some(RowError::KeyNotFound),
        (Operation::Delete, true) => model.remove(&key),
        (Operation::Insert | Operation::Update | Operation::Upsert, _) => {
            model.insert(key, version)
        }
    };
    None
}

async fn run_steps(steps: Vec<Step>) {
    let config = busy_config(Durability::Power);
    let mut disk = TestDisk::new();
    let mut database = open(&disk, &config).unwrap();
    database.create_collection(declaration(NAME)).await.unwrap();
    let mut collection = database.collection(NAME).unwrap();
    let mut model = BTreeMap::new();
    let mut version = 0;
    for step in steps {
        match step {
            Step::Write(operations) => {
                let mut rows = Vec::new();
                let mut expected = Vec::new();
                for (position, (key, operation)) in operations.into_iter().enumerate() {
                    version += 1;
                    rows.push(row(key, operation, version));
                    let error = model_row(&mut model, key, operation, version);
                    expected.extend(error.map(|error| (position, key, error)));
                }
                let outcome = write(&collection, rows).await.unwrap();
                assert_eq!(outcome.failures, expected);
            }
            Step::Restart { by_power_cut } => {
                database.close();
                disk = match by_power_cut {
                    true => disk.after_power_cut(Unsynced::Lost),
                    false => disk.after_kill(),
                };
                database = open(&disk, &config).unwrap();
                collection = database.collection(NAME).unwrap();
            }
            Step::WaitForBackground => collection.settle(),
            Step::Alter => {
                let name = format!("added {}", collection.schema().forward_columns.len());
                let change =
                    Alteration { add_forwards: vec![name.into()], ..Alteration::default() };
                collection = database.alter_collection(NAME, change).await.unwrap();
            }
        }
        let found = contents(&collection).await.unwrap();
        let expected: Vec<(u64, u64)> = model.iter().map(|(k, v)| (*k, *v)).collect();
        assert_eq!(found, expected);
    }
    database.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_match_a_plain_model_across_restarts(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        runtime().block_on(run_steps(steps));
    }
}

async fn insert_vectors(
    collection: &Arc<Collection>,
    element: ElementType,
    dimension: u32,
    vectors: &[(Bytes, Vec<f64>)],
) {
    for (batch, chunk) in vectors.chunks(100).enumerate() {
        let rows = chunk.iter().enumerate().map(|(i, (bytes, _))| RawRow {
            key: (batch * 100 + i) as u64,
            operation: Operation::Insert,
            forward: Vec::new(),
            vectors: vec![RawVector::Bytes(bytes.clone())],
            lsn: None,
            condition: None,
        });
        let raw = RawWrite {
            forward_names: Vec::new(),
            vector_metas: vec![RawVectorMeta {
                column: "v".into(),
                element: Ok(element),
                dimension,
            }],
            rows: rows.collect(),
        };
        assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
    }
}

async fn query(collection: &Arc<Collection>, vector: &Bytes, is_linear: bool) -> Vec<(u64, f32)> {
    let request = KnnRequest {
        column: "v".into(),
        topk: 10,
        vectors: RawQueryVectors::Bytes(vector.clone()),
        batch_count: 1,
        is_linear,
        ..KnnRequest::default()
    };
    let hits = collection.query(request).await.unwrap().results.remove(0);
    hits.into_iter().map(|hit| (hit.key, hit.score)).collect()
}

/// Runs a check over a collection of 600 random vectors for every element type and metric, in
/// growing and in sealed segments with graphs.
fn for_every_type_and_metric(
    check: impl AsyncFn(&Arc<Collection>, Metric, &[(Bytes, Vec<f64>)], &(Bytes, Vec<f64>)),
) {
    let runtime = runtime();
    runtime.block_on(async {
        let mut config = busy_config(Durability::Process);
        config.segment.seal_rows_max = 250;
        let disk = TestDisk::new();
        let database = open(&disk, &config).unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        for element in ELEMENTS {
            for metric in metrics_of(element) {
                let dimension = 64;
                let vectors: Vec<_> =
                    (0..600).map(|_| random_vector(&mut rng, element, dimension)).collect();
                let declared = NewCollection {
                    name: NAME.into(),
                    columns: vec![column(
                        "v",
                        element,
                        dimension,
                        &[("metric_type", metric.name()), ("index_type", "HNSW")],
                    )],
                    ..NewCollection::default()
                };
                database.create_collection(declared).await.unwrap();
                let collection = database.collection(NAME).unwrap();
                insert_vectors(&collection, element, dimension, &vectors).await;
                collection.settle();
                for _ in 0..5 {
                    let asked = random_vector(&mut rng, element, dimension);
                    check(&collection, metric, &vectors, &asked).await;
                }
                database.drop_collection(NAME).await.unwrap();
            }
        }
        database.close();
    });
}

fn nearest_by_force(
    metric: Metric,
    vectors: &[(Bytes, Vec<f64>)],
    asked: &[f64],
) -> Vec<(u64, f64)> {
    let scores = vectors.iter().enumerate();
    let mut scores: Vec<(u64, f64)> =
        scores.map(|(key, (_, row))| (key as u64, brute_score(metric, asked, row))).collect();
    scores.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    scores
}

#[test]
fn exact_search_equals_brute_force_for_every_type_and_metric() {
    for_every_type_and_metric(async |collection, metric, vectors, asked| {
        let expected = nearest_by_force(metric, vectors, &asked.1);
        let found = query(collection, &asked.0, true).await;
        assert_eq!(found.len(), 10);
        for (place, (key, score)) in found.iter().enumerate() {
            let own = brute_score(metric, &asked.1, &vectors[*key as usize].1);
            assert!(close(*score, own), "{metric:?}: {score} is not {own}");
            assert!(close(*score, expected[place].1), "{metric:?}: place {place}");
        }
    });
}

#[test]
fn graph_search_keeps_its_recall_and_exact_scores() {
    let found_all = AtomicU64::new(0);
    let asked_all = AtomicU64::new(0);
    for_every_type_and_metric(async |collection, metric, vectors, asked| {
        let stats = collection.stats();
        assert!(stats.segments.len() >= 2, "{metric:?}: nothing was sealed: {stats:?}");
        let exact = query(collection, &asked.0, true).await;
        let found = query(collection, &asked.0, false).await;
        assert_eq!(found.len(), 10, "{metric:?}");
        for (key, score) in &found {
            let own = brute_score(metric, &asked.1, &vectors[*key as usize].1);
            assert!(close(*score, own), "{metric:?}: {score} is not {own}");
        }
        let worst = exact.last().unwrap().1;
        let good = found.iter().filter(|(_, score)| *score <= worst).count();
        found_all.fetch_add(good as u64, Ordering::Relaxed);
        asked_all.fetch_add(10, Ordering::Relaxed);
    });
    let recall = found_all.into_inner() as f64 / asked_all.into_inner() as f64;
    assert!(recall >= 0.95, "recall over all types and metrics is {recall}");
}

/// A query that would read more than 1 MiB waits for a search thread; one below does not.
#[test]
fn only_short_queries_run_where_they_are_received() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut config = busy_config(Durability::Process);
        config.segment.seal_rows_max = 100_000;
        let disk = TestDisk::new();
        let database = open(&disk, &config).unwrap();
        let mut rng = StdRng::seed_from_u64(9);
        for (count, is_short) in [(4_096, true), (4_097, false)] {
            let declared = NewCollection {
                name: NAME.into(),
                columns: vec![column("v", ElementType::Fp32, 64, &[])],
                ..NewCollection::default()
            };
            database.create_collection(declared).await.unwrap();
            let collection = database.collection(NAME).unwrap();
            let vectors: Vec<_> =
                (0..count).map(|_| random_vector(&mut rng, ElementType::Fp32, 64)).collect();
            insert_vectors(&collection, ElementType::Fp32, 64, &vectors).await;
            let request = |topk| KnnRequest {
                column: "v".into(),
                topk,
                vectors: RawQueryVectors::Bytes(vectors[7].0.clone()),
                batch_count: 1,
                ..KnnRequest::default()
            };
            let reply = collection.query(request(100)).await.unwrap();
            assert_eq!(reply.profile.queue.is_zero(), is_short, "{count} rows");
            assert_eq!(reply.results[0][0].key, 7);
            let many = collection.query(request(101)).await.unwrap();
            assert!(!many.profile.queue.is_zero(), "many forward values are fetched elsewhere");
            assert_eq!(many.results[0][..100], reply.results[0]);
            database.drop_collection(NAME).await.unwrap();
        }
        database.close();
    });
}

/// One client writes and looks for what it was just told is there; others query all along.
#[test]
fn queries_see_every_acknowledged_write_while_segments_swap() {
    let runtime = runtime();
    runtime.block_on(async {
        let disk = TestDisk::new();
        let mut config = busy_config(Durability::Process);
        config.segment.seal_rows_max = 100;
        let database = open(&disk, &config).unwrap();
        database.create_collection(declaration(NAME)).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (collection, is_done) = (collection.clone(), is_done.clone());
                tokio::spawn(async move {
                    let mut asked = 0u64;
                    while !is_done.load(Ordering::Relaxed) {
                        let vector = vector_of(asked * 31 % 2_000 + reader, 1);
                        let hits = nearest(&collection, &vector, 5, false).await.unwrap();
                        assert!(hits.windows(2).all(|pair| pair[0].score <= pair[1].score));
                        for hit in &hits {
                            let own = vector_of(hit.key, version_of(hit));
                            let pairs = vector.iter().zip(&own);
                            let score: f32 = pairs.map(|(x, y)| (x - y) * (x - y)).sum();
                            assert_eq!(hit.score, score, "key {} is half a row", hit.key);
                        }
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for batch in 0..100u64 {
            let keys: Vec<u64> = (batch * 20..(batch + 1) * 20).collect();
            let rows = keys.iter().map(|key| row(*key, Operation::Insert, 1)).collect();
            write(&collection, rows).await.unwrap();
            let old = batch * 7;
            let updated = write(&collection, vec![row(old, Operation::Update, 2)]).await.unwrap();
            assert_eq!(updated.rows_applied, 1);
            for (key, version) in [(keys[0], 1), (keys[19], 1), (old, 2)] {
                let version = if key == old { 2 } else { version };
                let exact = batch % 2 == 0;
                let hits = nearest(&collection, &vector_of(key, version), 1, exact).await.unwrap();
                assert_eq!((hits[0].key, hits[0].score), (key, 0.0), "not seen after its answer");
                assert_eq!(version_of(&hits[0]), version);
            }
        }
        is_done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
        collection.settle();
        let sealed = collection.stats().segments.len() - 1;
        assert!(sealed >= 1, "segments were sealed meanwhile");
        assert_eq!(contents(&collection).await.unwrap().len(), 2_000);
        database.close();
    });
}

#[test]
fn deleted_rows_are_reclaimed_and_updates_leave_one_row() {
    let runtime = runtime();
    runtime.block_on(async {
        let disk = TestDisk::new();
        let database = open(&disk, &busy_config(Durability::Process)).unwrap();
        database.create_collection(declaration(NAME)).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        for version in 1..=20 {
            let operation = if version == 1 { Operation::Insert } else { Operation::Update };
            let rows = (0..100).map(|key| row(key, operation, version)).collect();
            assert_eq!(write(&collection, rows).await.unwrap().rows_applied, 100);
        }
        let rows = (0..90).map(|key| row(key, Operation::Delete, 0)).collect();
        write(&collection, rows).await.unwrap();
        collection.settle();
        assert_eq!(contents(&collection).await.unwrap().len(), 10);
        let stats = collection.stats();
        let inserted: u64 = stats.segments.iter().map(|s| s.doc_count).sum();
        let live: u64 = stats.segments.iter().map(|s| s.live_rows).sum();
        assert_eq!((inserted <= 2_000, live), (true, 10));
        let bytes: u64 = stats.segments.iter().map(|s| s.file_bytes).sum();
        assert!(bytes < 20_000, "2,000 rows of 2,000 were replaced or deleted: {bytes} bytes left");
        database.close();
    });
}
