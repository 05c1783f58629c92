//! The nearest are found whatever the rows and the queries are: near-duplicates, identical rows, rows of
//! unlike length, and queries that are no rows; and a reply says what is to be expected of it.

mod engine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use engine::{NAME, busy_config, column, open, runtime};
use voisin::collection::{Collection, RecallReport};
use voisin::config::{Config, Durability};
use voisin::database::Database;
use voisin::query::KnnReply;
use voisin::schema::{
    ElementType, KnnRequest, NewCollection, Operation, RawFilter, RawQueryVectors, RawRow,
    RawVector, RawVectorMeta, RawWrite, SearchParams,
};
use voisin::segment::RecallSource;
use voisin::storage::TestDisk;

const DIMENSION: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = busy_config(Durability::Process);
    config.storage.log_file_bytes = 8 << 20;
    config.segment.seal_rows_max = 20_000;
    config.segment.graph_rows_min = 2_000;
    config
}

fn normal(rng: &mut StdRng) -> f32 {
    let (radius, angle): (f32, f32) = (rng.random_range(f32::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

fn gaussian(rng: &mut StdRng, centre: &[f32], deviation: f32) -> Vec<f32> {
    centre.iter().map(|x| x + deviation * normal(rng)).collect()
}

/// A collection of these rows, whose keys are their places, with a graph.
async fn indexed(metric: &'static str, rows: &[Vec<f32>]) -> Arc<Collection> {
    let database = open(&TestDisk::new(), &config()).unwrap();
    filled(&database, metric, rows).await
}

async fn filled(
    database: &Arc<Database>,
    metric: &'static str,
    rows: &[Vec<f32>],
) -> Arc<Collection> {
    let params: &'static [(&'static str, &'static str)] =
        Vec::leak(vec![("metric_type", metric), ("index_type", "HNSW")]);
    let dimension = rows[0].len() as u32;
    let declared = NewCollection {
        name: NAME.into(),
        columns: vec![column("v", ElementType::Fp32, dimension, params)],
        ..NewCollection::default()
    };
    database.create_collection(declared).await.unwrap();
    let collection = database.collection(NAME).unwrap();
    for (batch, rows) in rows.chunks(1_000).enumerate() {
        let rows = rows.iter().enumerate().map(|(place, vector)| RawRow {
            key: (batch * 1_000 + place) as u64,
            operation: Operation::Insert,
            forward: Vec::new(),
            vectors: vec![RawVector::Bytes(engine::floats(vector))],
            lsn: None,
            condition: None,
        });
        let meta = RawVectorMeta { column: "v".into(), element: Ok(ElementType::Fp32), dimension };
        let raw =
            RawWrite { forward_names: Vec::new(), vector_metas: vec![meta], rows: rows.collect() };
        assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
    }
    let _hurry = collection.hurry();
    collection.settle();
    assert_eq!(collection.indexing().rows_waiting, 0, "all rows are in a graph");
    collection
}

async fn ask(collection: &Arc<Collection>, vector: &[f32], topk: u32, exact: bool) -> KnnReply {
    let pairs = if exact { vec![("exact".to_owned(), "true".to_owned())] } else { Vec::new() };
    let params = Some(SearchParams::from_text(&pairs));
    collection.query(KnnRequest { topk, params, ..of(vector) }).await.unwrap()
}

/// A request for what is nearest to a vector.
fn of(vector: &[f32]) -> KnnRequest {
    KnnRequest {
        column: "v".into(),
        topk: 10,
        vectors: RawQueryVectors::Bytes(engine::floats(vector)),
        batch_count: 1,
        ..KnnRequest::default()
    }
}

/// The mean share of the `topk` nearest that is found by default.
async fn recall(collection: &Arc<Collection>, queries: &[Vec<f32>], topk: u32) -> f64 {
    let mut found = 0;
    for query in queries {
        let exact = ask(collection, query, topk, true).await;
        assert!(exact.exact && exact.expected_recall == Some(1.0));
        let edge = exact.results[0].last().unwrap().score;
        let reply = ask(collection, query, topk, false).await;
        assert_eq!(reply.results[0].len(), topk as usize, "k means k");
        assert_eq!(reply.exact, reply.recall_source == RecallSource::Exact);
        found += reply.results[0].iter().filter(|hit| hit.score <= edge).count();
    }
    found as f64 / (queries.len() * topk as usize) as f64
}

async fn check(what: &str, collection: &Arc<Collection>, queries: &[Vec<f32>]) {
    check_at(what, collection, queries, [0.95; 3]).await;
}

/// The same with other shares of the 1, 10 and 100 nearest.
async fn check_at(what: &str, collection: &Arc<Collection>, queries: &[Vec<f32>], least: [f64; 3]) {
    for (topk, least) in [1, 10, 100].into_iter().zip(least) {
        let share = recall(collection, queries, topk).await;
        assert!(share >= least, "{what}: {share} of the {topk} nearest");
    }
}

#[test]
fn queries_that_are_no_rows_find_their_nearest() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(1);
        let zero = [0.0; DIMENSION];
        let centres: Vec<Vec<f32>> = (0..60).map(|_| gaussian(rng, &zero, 1.0)).collect();
        let rows: Vec<Vec<f32>> =
            (0..6_000).map(|place| gaussian(rng, &centres[place % 60], 0.15)).collect();
        for metric in ["SquaredEuclidean", "Cosine"] {
            let collection = indexed(metric, &rows).await;
            let noise: Vec<Vec<f32>> = (0..40).map(|_| gaussian(rng, &zero, 1.0)).collect();
            check("noise", &collection, &noise).await;
            let between = |place: usize| {
                let (one, other) = (&rows[place], &rows[place + 31]);
                one.iter().zip(other).map(|(a, b)| (a + b) / 2.0).collect()
            };
            let between: Vec<Vec<f32>> = (0..40).map(between).collect();
            check("between two rows", &collection, &between).await;
            let far: Vec<Vec<f32>> = (0..40).map(|_| gaussian(rng, &zero, 10.0)).collect();
            check("far away", &collection, &far).await;
        }
    });
}

#[test]
fn queries_in_the_middle_of_many_rows_find_their_nearest() {
    runtime().block_on(async {
        // A few large numbers of each row tell it from others; averages of many rows have none.
        let rng = &mut StdRng::seed_from_u64(9);
        let mut number = || -rng.random_range(f32::MIN_POSITIVE..1.0).ln();
        let rows: Vec<Vec<f32>> =
            (0..8_000).map(|_| (0..DIMENSION).map(|_| number().powi(3)).collect()).collect();
        let collection = indexed("Manhattan", &rows).await;
        for many in [20, 50, 200] {
            let average = |rows: &[Vec<f32>]| {
                let sum = |at: usize| rows.iter().map(|row| row[at]).sum::<f32>() / many as f32;
                (0..DIMENSION).map(sum).collect()
            };
            let averages: Vec<Vec<f32>> = rows.chunks_exact(many).take(120).map(average).collect();
            check(&format!("averages of {many} rows"), &collection, &averages).await;
        }
    });
}

#[test]
fn near_duplicates_are_told_apart() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(2);
        let zero = [0.0; DIMENSION];
        let centre = gaussian(rng, &zero, 1.0);
        let mut rows: Vec<Vec<f32>> = (0..5_000).map(|_| gaussian(rng, &zero, 1.0)).collect();
        rows.extend((0..400).map(|_| gaussian(rng, &centre, 0.01)));
        let collection = indexed("SquaredEuclidean", &rows).await;
        let queries: Vec<Vec<f32>> = (0..40).map(|_| gaussian(rng, &centre, 0.01)).collect();
        check("near-duplicates", &collection, &queries).await;
    });
}

#[test]
fn identical_rows_hide_no_others_and_as_many_copies_are_found_as_are_wanted() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(3);
        let zero = vec![0.0; DIMENSION];
        let mut rows = vec![zero.clone(); 1_500];
        rows.extend((0..4_500).map(|_| gaussian(rng, &zero, 1.0)));
        let collection = indexed("SquaredEuclidean", &rows).await;
        let queries: Vec<Vec<f32>> = (0..40).map(|_| gaussian(rng, &zero, 1.0)).collect();
        check("beside copies", &collection, &queries).await;
        let reply = ask(&collection, &zero, 100, false).await;
        let keys: Vec<u64> = reply.results[0].iter().map(|hit| hit.key).collect();
        assert_eq!(keys, (0..100).collect::<Vec<u64>>(), "those of the lowest keys");
    });
}

#[test]
fn the_largest_products_of_rows_of_unlike_length_are_found() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(4);
        let zero = [0.0; DIMENSION];
        let row = |_| {
            let length = (0.4 * normal(rng)).exp();
            gaussian(rng, &zero, length)
        };
        let rows: Vec<Vec<f32>> = (0..6_000).map(row).collect();
        let collection = indexed("InnerProduct", &rows).await;
        let queries: Vec<Vec<f32>> = (0..40).map(|_| gaussian(rng, &zero, 1.0)).collect();
        check("products", &collection, &queries).await;
    });
}

#[test]
fn the_largest_products_with_a_few_numbers_are_found() {
    runtime().block_on(async {
        // Those of one number are on a side of the cube, with nothing else in common.
        let rng = &mut StdRng::seed_from_u64(8);
        let rows: Vec<Vec<f32>> =
            (0..12_000).map(|_| (0..8).map(|_| rng.random::<f32>()).collect()).collect();
        let collection = indexed("InnerProduct", &rows).await;
        let one = |place: usize| (0..8).map(|at| f32::from(u8::from(at == place % 8))).collect();
        let queries: Vec<Vec<f32>> = (0..8).map(one).collect();
        check("products with one number", &collection, &queries).await;
    });
}

/// What was found of queries that were asked, once that was measured.
async fn live(collection: &Arc<Collection>) -> RecallReport {
    let began = Instant::now();
    loop {
        let report = collection.recall().remove(0);
        if report.live.is_some() {
            return report;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is measured: {report:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn queries_that_were_asked_are_measured_and_survive_a_restart() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(6);
        let zero = [0.0; DIMENSION];
        let rows: Vec<Vec<f32>> = (0..4_000).map(|_| gaussian(rng, &zero, 1.0)).collect();
        let disk = TestDisk::new();
        let database = open(&disk, &config()).unwrap();
        let collection = filled(&database, "SquaredEuclidean", &rows).await;
        let before = collection.recall().remove(0);
        assert!(before.expected.is_some_and(|share| share >= 0.95), "{before:?}");
        assert_eq!((before.live, before.live_queries), (None, 0));
        for _ in 0..40 {
            ask(&collection, &gaussian(rng, &zero, 1.0), 10, false).await;
        }
        let measured = live(&collection).await;
        assert!(measured.live.is_some_and(|share| share >= 0.95), "{measured:?}");
        assert!((24..=40).contains(&measured.live_queries), "{measured:?}");
        drop(collection);
        database.close();
        drop(database);

        let database = open(&disk, &config()).unwrap();
        let again = live(&database.collection(NAME).unwrap()).await;
        assert!((24..=40).contains(&again.live_queries), "those of before are measured again");
        database.close();

        let mut config = config();
        config.compute.live_recall_percent = 0;
        let database = open(&disk, &config).unwrap();
        let collection = database.collection(NAME).unwrap();
        for _ in 0..40 {
            ask(&collection, &gaussian(rng, &zero, 1.0), 10, false).await;
            collection.tick();
        }
        assert_eq!(collection.recall().remove(0).live, None, "it is switched off");
    });
}

#[test]
fn queries_with_filters_are_measured() {
    runtime().block_on(async {
        // Enough of them for a walk to be quicker than looking at each.
        let rng = &mut StdRng::seed_from_u64(7);
        let zero = [0.0; 400];
        let centres: Vec<Vec<f32>> = (0..200).map(|_| gaussian(rng, &zero, 1.0)).collect();
        let mut near = |place: usize| gaussian(rng, &centres[place % 200], 0.15);
        let rows: Vec<Vec<f32>> = (0..11_500).map(&mut near).collect();
        let disk = TestDisk::new();
        let database = open(&disk, &config()).unwrap();
        let collection = filled(&database, "SquaredEuclidean", &rows).await;
        let asked = |vector: &[f32], least: u64| KnnRequest {
            filter: Some(Ok(RawFilter { text: format!("_key >= {least}"), params: Vec::new() })),
            ..of(vector)
        };
        let reply = collection.query(asked(&rows[0], 50)).await.unwrap();
        assert_eq!((reply.recall_source, reply.expected_recall), (RecallSource::Unmeasured, None));
        // Few are looked at one by one.
        let reply = collection.query(asked(&rows[0], 11_000)).await.unwrap();
        assert_eq!((reply.recall_source, reply.expected_recall), (RecallSource::Exact, Some(1.0)));
        let began = Instant::now();
        while collection.recall()[0].filtered.is_none() {
            for least in 0..8 {
                collection.query(asked(&near(least), least as u64)).await.unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "nothing is measured");
        }
        let report = collection.recall().remove(0);
        assert!(report.filtered_queries >= 24, "{report:?}");
        assert!(report.filtered.is_some_and(|share| share >= 0.95), "{report:?}");
        let reply = collection.query(asked(&rows[0], 50)).await.unwrap();
        assert!(reply.expected_recall.is_some_and(|share| share >= 0.95));
        assert_ne!(reply.recall_source, RecallSource::Unmeasured);
        drop(collection);
        database.close();
        drop(database);

        let database = open(&disk, &config()).unwrap();
        let again = database.collection(NAME).unwrap();
        let began = Instant::now();
        while again.recall()[0].filtered.is_none() {
            assert!(began.elapsed() < PATIENCE, "those of before are not measured again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        database.close();
    });
}

#[test]
fn rows_around_a_query_that_may_not_be_found_hide_no_others() {
    runtime().block_on(async {
        // A few far outside, by which nothing else is far.
        let rng = &mut StdRng::seed_from_u64(9);
        let zero = [0.0; 64];
        let centres: Vec<Vec<f32>> = (0..200).map(|_| gaussian(rng, &zero, 1.0)).collect();
        let mut rows: Vec<Vec<f32>> =
            (0..20_000).map(|place| gaussian(rng, &centres[place % 200], 0.4)).collect();
        for row in rows.iter_mut().step_by(90) {
            let times = rng.random_range(10.0..100.0);
            row.iter_mut().for_each(|number| *number *= times);
        }
        // Keys are in order of the distance from a row, so that a bound leaves a hole around it.
        let place = rows[1].clone();
        let distance =
            |row: &[f32]| -> f32 { row.iter().zip(&place).map(|(a, b)| (a - b).powi(2)).sum() };
        rows.sort_by(|one, other| distance(one).total_cmp(&distance(other)));
        let collection = indexed("SquaredEuclidean", &rows).await;
        for topk in [1, 10, 100] {
            let mut found = 0;
            for turn in 0..40 {
                let (one, other) = (&rows[turn * 8], &rows[turn * 7 + 3]);
                let middle: Vec<f32> = one.iter().zip(other).map(|(a, b)| (a + b) / 2.0).collect();
                let request = |exact: bool| KnnRequest {
                    topk,
                    filter: Some(Ok(RawFilter { text: "_key >= 2000".into(), params: Vec::new() })),
                    params: Some(Ok(SearchParams { exact, ..SearchParams::default() })),
                    ..of(&middle)
                };
                let exact = collection.query(request(true)).await.unwrap();
                let edge = exact.results[0].last().unwrap().score;
                let reply = collection.query(request(false)).await.unwrap();
                found += reply.results[0].iter().filter(|hit| hit.score <= edge).count();
            }
            let share = found as f64 / f64::from(40 * topk);
            assert!(share >= 0.95, "{share} of the {topk} nearest");
        }
    });
}

#[test]
fn a_reply_says_what_is_expected_of_it() {
    runtime().block_on(async {
        let rng = &mut StdRng::seed_from_u64(5);
        let zero = [0.0; DIMENSION];
        let rows: Vec<Vec<f32>> = (0..8_000).map(|_| gaussian(rng, &zero, 1.0)).collect();
        let collection = indexed("SquaredEuclidean", &rows).await;
        let reply = ask(&collection, &rows[0], 10, false).await;
        match reply.recall_source {
            RecallSource::Exact => assert!(reply.exact && reply.effort == 0),
            source => {
                assert_eq!(source, RecallSource::Sample);
                assert!(reply.expected_recall.is_some_and(|share| share >= 0.95));
                assert!(reply.effort > 0 && !reply.exact);
            }
        }
        let asked = vec![("ef_search".to_owned(), "12".to_owned())];
        let request = KnnRequest {
            column: "v".into(),
            topk: 10,
            vectors: RawQueryVectors::Bytes(engine::floats(&rows[1])),
            batch_count: 1,
            params: Some(SearchParams::from_text(&asked)),
            ..KnnRequest::default()
        };
        let reply = collection.query(request).await.unwrap();
        assert_eq!((reply.recall_source, reply.effort), (RecallSource::Sample, 12));
        assert!(reply.expected_recall.is_some_and(|share| share < 0.95));
    });
}
