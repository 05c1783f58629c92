//! Columns whose rows have several vectors, against a plain model of them: nearest rows, votes, max_sim
//! and min_distance, exact and by indexes, through deletes, merges, restarts and damage.

mod engine;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use engine::brute::{ELEMENTS, brute_score, close, metrics_of, random_vector};
use engine::{NAME, busy_config, column, open, runtime};
use voisin::collection::Collection;
use voisin::config::{Config, Durability};
use voisin::error::{Error, Result};
use voisin::index::RowSet;
use voisin::query::{KnnReply, RowFilter, SegmentRef};
use voisin::schema::{
    Aggregation, AggregationKind, ElementType, KnnRequest, Metric, NewCollection, Operation,
    RawFilter, RawQueryVectors, RawRow, RawVector, RawVectorMeta, RawWrite, SearchParams, Value,
};
use voisin::simd::Query;
use voisin::storage::{TestDisk, Unsynced};

/// What the rows of a collection hold, as a plain map.
struct Model {
    element: ElementType,
    metric: Metric,
    dimension: u32,
    rows: BTreeMap<u64, Vec<Bytes>>,
}

impl Model {
    fn new(element: ElementType, metric: Metric, dimension: u32) -> Self {
        Model { element, metric, dimension, rows: BTreeMap::new() }
    }

    /// One entry for each stored vector, nearest first, equal ones by key.
    fn scores(&self, asked: &[u8]) -> Vec<(f32, u64)> {
        let query = Query::new(self.element, self.metric, self.dimension, asked).unwrap();
        let rows = self.rows.iter();
        let mut scores: Vec<(f32, u64)> = rows
            .flat_map(|(key, vectors)| vectors.iter().map(move |vector| (*key, vector)))
            .map(|(key, vector)| (query.distance(vector).unwrap(), key))
            .collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        scores
    }

    /// The k nearest rows, each by its nearest vector.
    fn nearest(&self, asked: &[u8], k: usize) -> Vec<(u64, f32)> {
        let mut seen = BTreeSet::new();
        let scores = self.scores(asked).into_iter().filter(|(_, key)| seen.insert(*key));
        scores.map(|(score, key)| (key, score)).take(k).collect()
    }

    /// Rows by how many of the vectors have them among their k nearest.
    fn votes(&self, asked: &[Bytes], k: usize, topk: usize, min: u32) -> Vec<(u64, u32)> {
        let mut tally: BTreeMap<u64, (u32, f64)> = BTreeMap::new();
        for vector in asked {
            let mut seen = BTreeSet::new();
            for (score, key) in self.scores(vector).into_iter().take(k) {
                if seen.insert(key) {
                    let row = tally.entry(key).or_default();
                    *row = (row.0 + 1, row.1 + f64::from(score));
                }
            }
        }
        let mut ranked: Vec<_> = tally.into_iter().filter(|(_, row)| row.0 >= min).collect();
        ranked.sort_by(|(a, x), (b, y)| y.0.cmp(&x.0).then(x.1.total_cmp(&y.1)).then(a.cmp(b)));
        ranked.into_iter().map(|(key, row)| (key, row.0)).take(topk).collect()
    }

    /// Minus the sum of the best similarities of every row, as it is defined.
    fn max_sim(&self, asked: &[Bytes]) -> HashMap<u64, f64> {
        let mut sums: HashMap<u64, f64> = HashMap::new();
        for vector in asked {
            for (key, score) in self.nearest(vector, usize::MAX) {
                let distance = f64::from(score);
                let is_cosine = self.metric == Metric::Cosine;
                let similarity = if is_cosine { 1.0 - distance } else { -distance };
                *sums.entry(key).or_default() -= similarity;
            }
        }
        sums
    }

    /// The least distance of every row to any of the vectors.
    fn min_distance(&self, asked: &[Bytes], topk: usize) -> Vec<(u64, f32)> {
        let mut least: BTreeMap<u64, f32> = BTreeMap::new();
        for vector in asked {
            for (key, score) in self.nearest(vector, usize::MAX) {
                let known = least.entry(key).or_insert(score);
                *known = known.min(score);
            }
        }
        let mut ranked: Vec<(u64, f32)> = least.into_iter().collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        ranked.truncate(topk);
        ranked
    }
}

/// A query over the column `v`, and how it is to be searched.
#[derive(Clone, Default)]
struct Asked {
    vectors: Vec<Bytes>,
    topk: u32,
    aggregation: Option<Aggregation>,
    exact: bool,
    radius: Option<f32>,
    filter: Option<Arc<dyn RowFilter>>,
}

fn votes(k_per_vector: u32, min_votes: u32) -> Option<Aggregation> {
    let kind = AggregationKind::Votes;
    Some(Aggregation { kind, k_per_vector: Some(k_per_vector), min_votes: Some(min_votes) })
}

fn aggregation(kind: AggregationKind) -> Option<Aggregation> {
    Some(Aggregation { kind, k_per_vector: None, min_votes: None })
}

async fn ask(collection: &Arc<Collection>, asked: &Asked) -> Result<KnnReply> {
    let request = KnnRequest {
        column: "v".into(),
        topk: asked.topk,
        vectors: RawQueryVectors::Packed(asked.vectors.concat().into()),
        radius: asked.radius,
        aggregation: asked.aggregation.map(Ok),
        params: Some(Ok(SearchParams { exact: asked.exact, ..SearchParams::default() })),
        ..KnnRequest::default()
    };
    collection.query_among(request, asked.filter.clone()).await
}

fn pairs(reply: &KnnReply, list: usize) -> Vec<(u64, f32)> {
    reply.results[list].iter().map(|hit| (hit.key, hit.score)).collect()
}

fn put(key: u64, operation: Operation, vectors: &[Bytes]) -> RawRow {
    let vectors = match operation {
        Operation::Delete => Vec::new(),
        _ => vec![RawVector::Bytes(vectors.concat().into())],
    };
    RawRow { key, operation, forward: Vec::new(), vectors, lsn: None, condition: None }
}

async fn write(collection: &Arc<Collection>, model: &Model, rows: Vec<RawRow>) -> Result<()> {
    for chunk in rows.chunks(50) {
        let (element, dimension) = (Ok(model.element), model.dimension);
        let meta = RawVectorMeta { column: "v".into(), element, dimension };
        let raw =
            RawWrite { forward_names: vec![], vector_metas: vec![meta], rows: chunk.to_vec() };
        assert_eq!(collection.write(raw, None).await?.failures, []);
    }
    Ok(())
}

fn declared(model: &Model, params: &[(&str, &str)]) -> NewCollection {
    let metric = [("metric_type", model.metric.name()), ("multi", "true")];
    let params: Vec<(&str, &str)> = metric.iter().chain(params).copied().collect();
    let columns = vec![column("v", model.element, model.dimension, &params)];
    NewCollection { name: NAME.into(), columns, ..NewCollection::default() }
}

/// Some random vectors.
fn some(model: &Model, count: usize, rng: &mut StdRng) -> Vec<Bytes> {
    (0..count).map(|_| random_vector(rng, model.element, model.dimension).0).collect()
}

/// Every kind of answer, against the model.
async fn check(collection: &Arc<Collection>, model: &Model, exact: bool, rng: &mut StdRng) {
    for (count, topk) in [(1, 1), (1, 7), (5, 7), (3, 100_000)] {
        let asked = Asked { vectors: some(model, count, rng), topk, exact, ..Asked::default() };
        let at = format!("{:?} {:?} of {count}", model.element, model.metric);
        let topk = topk as usize;

        let reply = ask(collection, &asked).await.unwrap();
        assert_eq!((reply.results.len(), reply.exact, reply.votes.len()), (count, true, 0), "{at}");
        for (list, vector) in asked.vectors.iter().enumerate() {
            assert_eq!(pairs(&reply, list), model.nearest(vector, topk), "{at}");
        }

        let k = if topk > 1_000 { 40 } else { 1 + topk };
        for min in [1, 2] {
            let voting = Asked { aggregation: votes(k as u32, min), ..asked.clone() };
            let reply = ask(collection, &voting).await.unwrap();
            let hits = reply.results[0].iter().zip(&reply.votes);
            let found: Vec<(u64, u32)> = hits.map(|(hit, votes)| (hit.key, votes.count)).collect();
            assert_eq!(found, model.votes(&asked.vectors, k, topk, min), "{at}: {k}, {min}");
            for (hit, votes) in reply.results[0].iter().zip(&reply.votes) {
                assert_eq!(hit.score, -(votes.count as f32));
                assert_eq!(votes.confidence, 100.0 * votes.count as f32 / count as f32);
            }
            assert!(reply.results.len() == 1 && reply.exact, "{at}");
        }

        let least =
            Asked { aggregation: aggregation(AggregationKind::MinDistance), ..asked.clone() };
        let reply = ask(collection, &least).await.unwrap();
        assert_eq!(pairs(&reply, 0), model.min_distance(&asked.vectors, topk), "{at}");

        let sums = Asked { aggregation: aggregation(AggregationKind::MaxSim), ..asked.clone() };
        let reply = ask(collection, &sums).await.unwrap();
        let found = pairs(&reply, 0);
        let expected = model.max_sim(&asked.vectors);
        assert!(reply.results.len() == 1 && reply.exact && reply.votes.is_empty(), "{at}");
        assert_eq!(found.len(), topk.min(expected.len()), "{at}");
        assert!(found.is_sorted_by(|a, b| (a.1, a.0) <= (b.1, b.0)), "{at}: {found:?}");
        let mut ranked: Vec<f64> = expected.values().copied().collect();
        ranked.sort_by(f64::total_cmp);
        for ((key, score), best) in found.iter().zip(ranked) {
            assert!(close(*score, expected[key]), "{at}: {score} is not {}", expected[key]);
            assert!(close(*score, best), "{at}: {score} where {best} belongs");
        }
    }
}

/// Rows with one vector, with some and with many, in every element type and metric, in growing and in
/// sealed segments with and without graphs, replaced and deleted in part.
#[test]
fn exact_answers_equal_the_model_for_every_type_and_metric() {
    runtime().block_on(async {
        let mut rng = StdRng::seed_from_u64(1);
        let mut config = busy_config(Durability::Process);
        config.segment.seal_rows_max = 400;
        config.storage.log_file_bytes = 1 << 20;
        for element in ELEMENTS {
            for metric in metrics_of(element) {
                let database = open(&TestDisk::new(), &config).unwrap();
                let mut model = Model::new(element, metric, 64);
                let index = if element == ElementType::Int8 { "FLAT" } else { "HNSW" };
                let new = declared(&model, &[("index_type", index)]);
                database.create_collection(new).await.unwrap();
                let collection = database.collection(NAME).unwrap();
                for key in 0..90 {
                    let count =
                        [1, 3, 1, 17, 5, 2][key as usize % 6] + 600 * usize::from(key == 50);
                    model.rows.insert(key, some(&model, count, &mut rng));
                }
                let rows = model.rows.iter().map(|(key, own)| put(*key, Operation::Insert, own));
                write(&collection, &model, rows.collect()).await.unwrap();
                check(&collection, &model, true, &mut rng).await;
                collection.settle();
                assert!(collection.stats().segments.len() >= 2, "something is sealed");
                for key in (0..90).step_by(7) {
                    let own = some(&model, 1 + key as usize % 4, &mut rng);
                    let row = put(key, Operation::Update, &own);
                    write(&collection, &model, vec![row]).await.unwrap();
                    model.rows.insert(key, own);
                }
                let deleted = (0..90).step_by(5).map(|key| put(key, Operation::Delete, &[]));
                write(&collection, &model, deleted.collect()).await.unwrap();
                model.rows.retain(|key, _| key % 5 != 0);
                check(&collection, &model, true, &mut rng).await;
                // The definition itself: the model scores with the engine's own kernels.
                let vectors: Vec<_> =
                    (0..2).map(|_| random_vector(&mut rng, element, 64)).collect();
                let plain =
                    Model { rows: BTreeMap::from([(0, vec![vectors[1].0.clone()])]), ..model };
                let score = plain.nearest(&vectors[0].0, 1)[0].1;
                assert!(close(score, brute_score(metric, &vectors[0].1, &vectors[1].1)));
                database.close();
            }
        }
    });
}

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u64, Operation, usize)>),
    Restart { by_power_cut: bool },
    WaitForBackground,
}

fn any_step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => Just(Operation::Insert),
        2 => Just(Operation::Update),
        2 => Just(Operation::Delete),
    ];
    let count = prop_oneof![4 => 1usize..6, 1 => 6usize..80];
    let rows = proptest::collection::vec((0u64..60, operation, count), 1..20);
    prop_oneof![
        12 => rows.prop_map(Step::Write),
        1 => any::<bool>().prop_map(|by_power_cut| Step::Restart { by_power_cut }),
        1 => Just(Step::WaitForBackground),
    ]
}

async fn run_steps(steps: Vec<Step>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let config = busy_config(Durability::Power);
    let mut disk = TestDisk::new();
    let mut database = open(&disk, &config).unwrap();
    let mut model = Model::new(ElementType::Fp32, Metric::SquaredEuclidean, 8);
    database.create_collection(declared(&model, &[])).await.unwrap();
    let mut collection = database.collection(NAME).unwrap();
    for step in steps {
        match step {
            Step::Write(operations) => {
                for (key, operation, count) in operations {
                    let is_there = model.rows.contains_key(&key);
                    if is_there == (operation == Operation::Insert) {
                        continue;
                    }
                    let own = some(&model, count, &mut rng);
                    let row = put(key, operation, &own);
                    write(&collection, &model, vec![row]).await.unwrap();
                    match operation {
                        Operation::Delete => model.rows.remove(&key),
                        _ => model.rows.insert(key, own),
                    };
                }
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
        }
        check(&collection, &model, true, &mut rng).await;
    }
    database.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_on_rows_of_many_vectors_match_a_plain_model(
        steps in proptest::collection::vec(any_step(), 1..40),
        seed in any::<u64>(),
    ) {
        runtime().block_on(run_steps(steps, seed));
    }
}

const DIMENSION: u32 = 24;
const PICTURES: u64 = 600;

/// The descriptors of a picture: each is one of many words, and noise.
fn picture(key: u64, count: usize, rng: &mut StdRng) -> Vec<Bytes> {
    let descriptor = |place: usize, rng: &mut StdRng| {
        let word = (key * 7 + place as u64 * 13) % 400;
        let number =
            |i: u32| (word as f32 * 0.37 * (i + 1) as f32).sin() + rng.random_range(-0.25..0.25f32);
        engine::floats(&(0..DIMENSION).map(number).collect::<Vec<f32>>())
    };
    (0..count).map(|place| descriptor(place, rng)).collect()
}

/// Lets keys through that it accepts.
struct Keys<F>(F);

impl<F: Fn(u64) -> bool + Send + Sync> RowFilter for Keys<F> {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let is_in = |row: u32| segment.key(row).is_some_and(&self.0);
        Arc::new(RowSet::from_fn(segment.rows() as u32, is_in))
    }
}

/// The share of what exact answers have that indexes find, over some queries of one kind. Rows come
/// once each, with the scores that exact answers have for them, and as many as there are to be found.
async fn recall(collection: &Arc<Collection>, asked: &Asked, rng: &mut StdRng) -> f64 {
    let (mut good, mut wanted) = (0, 0);
    for _ in 0..12 {
        let key = rng.random_range(0..PICTURES);
        let mut vectors = picture(key, 20, rng);
        if asked.aggregation.is_none() {
            vectors.truncate(1);
        }
        let asked = Asked { vectors, ..asked.clone() };
        let found = ask(collection, &asked).await.unwrap();
        let exact = ask(collection, &Asked { exact: true, ..asked.clone() }).await.unwrap();
        let all =
            ask(collection, &Asked { exact: true, topk: 100_000, ..asked.clone() }).await.unwrap();
        let (found, exact) = (pairs(&found, 0), pairs(&exact, 0));
        let keys: BTreeSet<u64> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys.len(), found.len(), "a row comes once");
        let is_voting = asked.aggregation.is_some_and(|a| a.kind == AggregationKind::Votes);
        assert!(is_voting || found.len() == exact.len(), "k means k");
        let scores: HashMap<u64, f32> = pairs(&all, 0).into_iter().collect();
        for (key, score) in &found {
            assert!(is_voting || scores[key] == *score, "scores are exact");
        }
        let Some(edge) = exact.last().map(|(_, score)| *score) else { continue };
        good += found.iter().filter(|(_, score)| *score <= edge).count().min(exact.len());
        wanted += exact.len();
    }
    good as f64 / f64::from((wanted as u32).max(1))
}

/// Every kind of query by every kind of index, of all rows and of some.
#[test]
fn indexes_find_rows_of_many_vectors_as_they_promise() {
    runtime().block_on(async {
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 16 << 20;
        config.segment.seal_rows_max = 8_000;
        let kinds: [&[(&str, &str)]; 4] = [
            &[],
            &[("index_type", "HNSW_SQ8"), ("metric_type", "Cosine")],
            &[("index_type", "IVF_FLAT"), ("nlist", "64")],
            &[("index_factory", "IVF16,PQ12x4fs")],
        ];
        for params in kinds {
            let metric = params.iter().find(|(key, _)| *key == "metric_type");
            let metric =
                metric.map_or(Metric::SquaredEuclidean, |m| Metric::from_name(m.1).unwrap());
            let model = Model::new(ElementType::Fp32, metric, DIMENSION);
            let disk = TestDisk::new();
            let mut database = open(&disk, &config).unwrap();
            database.create_collection(declared(&model, params)).await.unwrap();
            let mut collection = database.collection(NAME).unwrap();
            let mut rng = StdRng::seed_from_u64(5);
            let count = |key: u64| 10 + key as usize % 40;
            let rows = |keys: std::ops::Range<u64>, operation, rng: &mut StdRng| -> Vec<RawRow> {
                keys.map(|key| put(key, operation, &picture(key, count(key), rng))).collect()
            };
            write(&collection, &model, rows(0..400, Operation::Insert, &mut rng)).await.unwrap();
            collection.settle();
            write(&collection, &model, rows(400..PICTURES, Operation::Insert, &mut rng))
                .await
                .unwrap();
            write(&collection, &model, rows(0..60, Operation::Update, &mut rng)).await.unwrap();
            write(&collection, &model, rows(60..120, Operation::Delete, &mut rng)).await.unwrap();
            collection.settle();
            for is_reopened in [false, true] {
                if is_reopened {
                    database.close();
                    database = open(&disk, &config).unwrap();
                    collection = database.collection(NAME).unwrap();
                }
                let memory = collection.memory();
                assert!(memory.codes + memory.graphs > 0, "{params:?} has an index");
                for share in [1, 3, 30] {
                    let filter: Arc<dyn RowFilter> = Arc::new(Keys(move |key| key % share == 0));
                    let filter = (share > 1).then_some(filter);
                    let max_sim = aggregation(AggregationKind::MaxSim);
                    let kinds = [
                        None,
                        votes(10, 1),
                        // Of 540 rows, so few are proposed that not all are looked at.
                        Some(Aggregation { k_per_vector: Some(25), ..max_sim.unwrap() }),
                        aggregation(AggregationKind::MinDistance),
                    ];
                    for aggregation in kinds {
                        let filter = filter.clone();
                        let asked = Asked { topk: 10, aggregation, filter, ..Asked::default() };
                        let found = recall(&collection, &asked, &mut rng).await;
                        assert!(found >= 0.95, "{found}: {params:?}, {share}, {aggregation:?}");
                    }
                }
            }
            database.close();
        }
    });
}

/// Where all the nearest vectors are of one row, the others are looked for beyond them.
#[test]
fn k_rows_are_found_where_one_row_has_most_of_the_nearest_vectors() {
    runtime().block_on(async {
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 16 << 20;
        config.segment.seal_rows_max = 30_000;
        let database = open(&TestDisk::new(), &config).unwrap();
        let mut model = Model::new(ElementType::Fp32, Metric::SquaredEuclidean, 4);
        database.create_collection(declared(&model, &[("index_type", "HNSW")])).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(2);
        for key in 0..300u64 {
            let (count, scale) = if key == 7 { (1_500, 0.01) } else { (30, 1.0) };
            let mut vector =
                || -> Vec<f32> { (0..4).map(|_| scale * rng.random_range(-1.0..1.0f32)).collect() };
            model.rows.insert(key, (0..count).map(|_| engine::floats(&vector())).collect());
        }
        let rows = model.rows.iter().map(|(key, own)| put(*key, Operation::Insert, own));
        write(&collection, &model, rows.collect()).await.unwrap();
        collection.settle();
        let origin = engine::floats(&[0.0; 4]);
        let mut asked = Asked { vectors: vec![origin.clone()], topk: 5, ..Asked::default() };
        let reply = ask(&collection, &asked).await.unwrap();
        assert_eq!(pairs(&reply, 0), model.nearest(&origin, 5));
        // Of its 1,500 vectors, all are nearer than any other row.
        asked.aggregation = votes(1_500, 1);
        assert_eq!(pairs(&ask(&collection, &asked).await.unwrap(), 0), [(7, -1.0)]);
        // Beyond a radius nothing is looked for.
        let near = Asked { radius: Some(0.01), aggregation: None, ..asked };
        assert_eq!(pairs(&ask(&collection, &near).await.unwrap(), 0), model.nearest(&origin, 1));
        database.close();
    });
}

/// Columns of one vector for each row take aggregations as well.
#[test]
fn single_vectors_are_aggregated_too() {
    runtime().block_on(async {
        let database = open(&TestDisk::new(), &busy_config(Durability::Process)).unwrap();
        let mut model = Model::new(ElementType::Fp32, Metric::InnerProduct, 8);
        let columns = vec![column("v", ElementType::Fp32, 8, &[("metric_type", "InnerProduct")])];
        let new = NewCollection { name: NAME.into(), columns, ..NewCollection::default() };
        database.create_collection(new).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        model.rows = (0..200).map(|key| (key, some(&model, 1, &mut rng))).collect();
        let rows = model.rows.iter().map(|(key, own)| put(*key, Operation::Insert, own));
        write(&collection, &model, rows.collect()).await.unwrap();
        for _ in 0..2 {
            check(&collection, &model, true, &mut rng).await;
            collection.settle();
        }
        let two = RawVector::Bytes(some(&model, 2, &mut rng).concat().into());
        let row = RawRow { vectors: vec![two], ..put(999, Operation::Insert, &[]) };
        let refused = write(&collection, &model, vec![row]).await.unwrap_err();
        assert!(refused.to_string().contains("64 bytes where 32 belong"), "{refused}");
        database.close();
    });
}

#[test]
fn what_does_not_fit_a_row_is_refused_by_name_value_and_limit() {
    runtime().block_on(async {
        let mut config = busy_config(Durability::Process);
        config.limits.row_vectors_max = 9;
        config.limits.query_results_max = 100;
        let database = open(&TestDisk::new(), &config).unwrap();
        let mut rng = StdRng::seed_from_u64(4);
        let model = Model::new(ElementType::Fp32, Metric::SquaredEuclidean, 2);
        let bad: [(&[(&str, &str)], &str); 5] = [
            (&[("multi", "maybe")], "multi is \"maybe\"; it must be true or false"),
            (&[("multi_max", "3")], "multi_max goes with multi=true only"),
            (&[("multi", "false"), ("multi_max", "3")], "multi_max goes with multi=true only"),
            (&[("multi", "true"), ("multi_max", "0")], "multi_max is \"0\"; it must be"),
            (&[("multi", "true"), ("multi_max", "x")], "multi_max is \"x\"; it must be"),
        ];
        for (params, words) in bad {
            let columns = vec![column("v", ElementType::Fp32, 2, params)];
            let new = NewCollection { name: NAME.into(), columns, ..NewCollection::default() };
            let refused = database.create_collection(new).await.unwrap_err();
            assert!(matches!(refused, Error::InvalidColumn { .. }), "{refused}");
            assert!(refused.to_string().contains(words), "{refused}");
        }
        for (max, most) in [(None, 9), (Some("6"), 6), (Some("60"), 9)] {
            let params: Vec<_> = max.map(|max| ("multi_max", max)).into_iter().collect();
            database.create_collection(declared(&model, &params)).await.unwrap();
            let collection = database.collection(NAME).unwrap();
            let fitting = vec![put(1, Operation::Insert, &some(&model, most, &mut rng))];
            write(&collection, &model, fitting).await.unwrap();
            let more = some(&model, most + 1, &mut rng);
            let refused = write(&collection, &model, vec![put(2, Operation::Insert, &more)]).await;
            let refused = refused.unwrap_err().to_string();
            let words = match most {
                6 => "7 vectors, the column's multi_max is 6".to_string(),
                _ => "number of vectors of a row in one column is 10, above the limit of 9 (setting limits.row_vectors_max)".to_string(),
            };
            assert!(refused.contains(&words), "{refused}");
            for (raw, words) in [
                (RawVector::Bytes(Bytes::new()), "0 bytes where one or more times 8 belong"),
                (RawVector::Bytes(vec![0; 12].into()), "12 bytes where one or more times 8 belong"),
                (RawVector::Text("[]".into()), "0 numbers where one or more times 2 belong"),
                (RawVector::Text("[[1,2],[3]]".into()), "vector 1 has 1 numbers where 2 belong"),
                (RawVector::Text("[1,2,3]".into()), "3 numbers where one or more times 2 belong"),
                (RawVector::Bytes(engine::floats(&[0.0, 0.0, 0.0, f32::NAN])), "NaN at element 3"),
            ] {
                let row = RawRow { vectors: vec![raw], ..put(3, Operation::Insert, &[]) };
                let refused = write(&collection, &model, vec![row]).await.unwrap_err();
                assert!(refused.to_string().contains(words), "{refused}");
            }
            let text = RawVector::Text("[[1,2],[3,4]]".into());
            let row = RawRow { vectors: vec![text], ..put(4, Operation::Insert, &[]) };
            write(&collection, &model, vec![row]).await.unwrap();
            let vectors = vec![engine::floats(&[3.0, 4.0])];
            let asked = Asked { vectors, topk: 1, ..Asked::default() };
            assert_eq!(pairs(&ask(&collection, &asked).await.unwrap(), 0), [(4, 0.0)]);
            // Votes are bounded before anything is taken for them: there are more vectors than rows.
            let vectors = some(&model, 40, &mut rng);
            let too_many = Asked { vectors, topk: 1, aggregation: votes(8, 1), ..Asked::default() };
            let refused = ask(&collection, &too_many).await.unwrap_err().to_string();
            assert!(refused.contains("times query vectors is 320, above the limit of 100"), "{refused}");
            assert!(refused.contains("limits.query_results_max"), "{refused}");
            let fitting = Asked { aggregation: votes(2, 1), ..too_many };
            assert_eq!(ask(&collection, &fitting).await.unwrap().results.len(), 1);
            let none = Asked { vectors: Vec::new(), ..fitting };
            assert_eq!(ask(&collection, &none).await.unwrap().results, [vec![]]);
            database.drop_collection(NAME).await.unwrap();
        }
        database.close();
    });
}

/// A row may leave out its vectors in one column while it has some in another.
#[test]
fn rows_without_vectors_are_not_found_by_them() {
    runtime().block_on(async {
        let database = open(&TestDisk::new(), &busy_config(Durability::Process)).unwrap();
        let model = Model::new(ElementType::Int8, Metric::SquaredEuclidean, 2);
        let mut new = declared(&model, &[("index_type", "HNSW")]);
        new.columns.push(column("w", ElementType::Int8, 2, &[("multi", "True")]));
        new.forward_columns.push("name".into());
        database.create_collection(new).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        for key in 0..120u64 {
            let own = vec![1 + (key % 100) as u8; 2 * (1 + key as usize % 3)];
            let meta = RawVectorMeta {
                column: if key % 2 == 0 { "v" } else { "w" }.into(),
                element: Ok(ElementType::Int8),
                dimension: 2,
            };
            let row = RawRow {
                forward: vec![Some(Value::UInt64(key))],
                vectors: vec![RawVector::Bytes(own.into())],
                ..put(key, Operation::Insert, &[])
            };
            let forward_names = vec!["name".into()];
            let raw = RawWrite { forward_names, vector_metas: vec![meta], rows: vec![row] };
            assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
        }
        for exact in [true, false, true] {
            let vectors = vec![Bytes::from_static(&[0, 0])];
            let asked = Asked { vectors, topk: 1_000, exact, ..Asked::default() };
            let reply = ask(&collection, &asked).await.unwrap();
            let found: BTreeSet<u64> = reply.results[0].iter().map(|hit| hit.key).collect();
            assert_eq!(found, (0..120).step_by(2).collect());
            for hit in &reply.results[0] {
                assert_eq!(hit.forward[..], [Some(Value::UInt64(hit.key))]);
            }
            let kind = AggregationKind::MaxSim;
            let sums = Asked { aggregation: aggregation(kind), ..asked };
            assert_eq!(ask(&collection, &sums).await.unwrap().results[0].len(), 60);
            collection.settle();
        }
        database.close();
    });
}

/// Rows whose vectors are many lie in smaller batches: what filters let through, and what is known of the
/// values of their columns, goes by these.
#[test]
fn filters_let_through_rows_of_many_vectors_in_any_batch() {
    runtime().block_on(async {
        const DIMENSION: u32 = 256;
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 64 << 20;
        config.segment.seal_rows_max = 3_000;
        config.segment.filter_index_rows_min = 0;
        let database = open(&TestDisk::new(), &config).unwrap();
        let mut model = Model::new(ElementType::Fp32, Metric::SquaredEuclidean, DIMENSION);
        let mut new = declared(&model, &[("index_type", "FLAT")]);
        new.forward_columns = vec!["n".into()];
        database.create_collection(new).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(8);
        let number = |key: u64| (key * key) as i64 % 997 + (key / 500) as i64 * 1_000;
        model.rows =
            (0..5_000).map(|key| (key, some(&model, 1 + key as usize % 5, &mut rng))).collect();
        for keys in (0..5_000).collect::<Vec<u64>>().chunks(500) {
            let meta = RawVectorMeta {
                column: "v".into(),
                element: Ok(ElementType::Fp32),
                dimension: DIMENSION,
            };
            let rows = keys.iter().map(|key| RawRow {
                forward: vec![Some(Value::Int64(number(*key)))],
                ..put(*key, Operation::Insert, &model.rows[key])
            });
            let raw = RawWrite {
                forward_names: vec!["n".into()],
                vector_metas: vec![meta],
                rows: rows.collect(),
            };
            assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
        }
        let asked = some(&model, 1, &mut rng);
        for _ in 0..3 {
            collection.settle();
            for (low, high) in [
                (0, 10_000),
                (3_200, 3_300),
                (4_990, 5_010),
                (6_100, 6_900),
                (9_000, 9_999),
                (500, 501),
            ] {
                let text = format!("n >= {low} and n < {high}");
                let request = KnnRequest {
                    column: "v".into(),
                    topk: 100_000,
                    vectors: RawQueryVectors::Packed(asked[0].clone()),
                    filter: Some(Ok(RawFilter { text, params: Vec::new() })),
                    ..KnnRequest::default()
                };
                let reply = collection.query(request).await.unwrap();
                let is_in = |key: &u64| (low..high).contains(&number(*key));
                let expected = model.nearest(&asked[0], usize::MAX);
                let expected: Vec<_> = expected.into_iter().filter(|(key, _)| is_in(key)).collect();
                assert_eq!(pairs(&reply, 0), expected, "{low} to {high}");
            }
            // What filters asked for is made.
            collection.tick();
        }
        let largest = collection.stats().segments.iter().map(|segment| segment.live_rows).max();
        assert!(largest >= Some(4_000), "several batches: {largest:?}");
        database.close();
    });
}

/// Damage in the files of rows with many vectors is noticed, and nothing worse happens.
#[test]
fn damaged_files_of_many_vectors_are_noticed() {
    runtime().block_on(async {
        let config: Config = busy_config(Durability::Power);
        let disk = TestDisk::new();
        let database = open(&disk, &config).unwrap();
        let mut model = Model::new(ElementType::Fp32, Metric::SquaredEuclidean, 4);
        database.create_collection(declared(&model, &[("index_type", "HNSW")])).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(6);
        model.rows =
            (0..50).map(|key| (key, some(&model, 1 + key as usize % 5, &mut rng))).collect();
        let rows = model.rows.iter().map(|(key, own)| put(*key, Operation::Insert, own));
        write(&collection, &model, rows.collect()).await.unwrap();
        collection.settle();
        let folder = collection.folder().to_path_buf();
        database.close();
        let disk = disk.after_kill();
        let database = open(&disk, &config).unwrap();
        check(&database.collection(NAME).unwrap(), &model, true, &mut rng).await;
        database.close();
        let is_sealed =
            |file: &PathBuf| file.starts_with(&folder) && file.parent() != Some(&folder);
        let files: Vec<PathBuf> = disk.files().into_iter().filter(is_sealed).collect();
        assert!(files.iter().any(|file| file.ends_with("rows.arrow")), "{files:?}");
        assert!(files.iter().any(|file| file.ends_with("0.faiss")), "{files:?}");
        for file in files {
            for place in [0, 1, 2, 3, 5, 8, 13] {
                let harmed = disk.after_kill();
                harmed.damage(&file, |bytes| {
                    let place = place * bytes.len() / 14;
                    bytes[place] ^= 0x40;
                });
                let database = open(&harmed, &config).unwrap();
                let refused = database.collection(NAME).unwrap_err();
                assert!(matches!(refused, Error::Unserved { .. }), "{refused}");
                database.close();
            }
        }
    });
}
