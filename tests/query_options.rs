//! What queries beyond the nearest rows promise, over the real port of the real program, for every
//! element type and metric: random rows in sealed and growing segments, with deletes, beside a plain
//! model of them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use half::f16;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tonic::Code;

use support::PATIENCE;
use support::photos::Served;
use voisin::server::proto::proxima::{
    self, KeyValuePair, collection_config::IndexColumnParam,
    proxima_service_client::ProximaServiceClient,
};
use voisin::server::proto::voisin_v1::{
    ElementType, ForwardColumn, ForwardNames, Group, Hits, Metric, Operation, QueryReply,
    QueryRequest, ScoreShape, SearchParams, Value, VectorColumn, VectorNames, WaitIndexedRequest,
    WriteRequest, value::Kind,
};

const NAME: &str = "photos";
const DIMENSION: usize = 64;
/// Segments are sealed and merged all the time, large enough for codes and graphs, and keep their
/// deleted rows.
const SMALL: [(&str, &str); 3] = [
    ("VOISIN__SEGMENT__SEAL_ROWS_MAX", "1100"),
    ("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "1500"),
    ("VOISIN__SEGMENT__DELETED_SHARE_MAX", "0.9"),
];

const ELEMENTS: [(ElementType, i32); 7] = [
    (ElementType::Fp32, 23),
    (ElementType::Fp16, 22),
    (ElementType::Int16, 27),
    (ElementType::Int8, 26),
    (ElementType::Int4, 25),
    (ElementType::Binary32, 20),
    (ElementType::Binary64, 21),
];
const METRICS: [(Metric, &str); 6] = [
    (Metric::SquaredEuclidean, "SquaredEuclidean"),
    (Metric::Euclidean, "Euclidean"),
    (Metric::InnerProduct, "InnerProduct"),
    (Metric::Cosine, "Cosine"),
    (Metric::Manhattan, "Manhattan"),
    (Metric::Hamming, "Hamming"),
];

/// An index column of its own for each element type and metric.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    element: ElementType,
    data_type: i32,
    metric: Metric,
    metric_name: &'static str,
}

impl Column {
    fn is_binary(&self) -> bool {
        matches!(self.element, ElementType::Binary32 | ElementType::Binary64)
    }

    fn all() -> Vec<Column> {
        let mut columns = Vec::new();
        for (element, data_type) in ELEMENTS {
            for (metric, metric_name) in METRICS {
                let name = format!("{}_{metric_name}", element.as_str_name());
                let column = Column { name, element, data_type, metric, metric_name };
                let fits = match metric {
                    Metric::Hamming => column.is_binary(),
                    Metric::SquaredEuclidean | Metric::Euclidean => true,
                    _ => !column.is_binary(),
                };
                if fits {
                    columns.push(column);
                }
            }
        }
        columns
    }

    fn random(&self, random: &mut StdRng) -> Vec<f64> {
        let mut number = || match self.element {
            ElementType::Fp32 => f64::from(random.random_range(-1.0..1.0f32)),
            ElementType::Fp16 => f16::from_f32(random.random_range(-1.0..1.0f32)).to_f64(),
            ElementType::Int16 => f64::from(random.random_range(-300..300)),
            ElementType::Int8 => f64::from(random.random_range(-20..20)),
            ElementType::Int4 => f64::from(random.random_range(-8..8)),
            _ => f64::from(random.random_range(0..2)),
        };
        (0..DIMENSION).map(|_| number()).collect()
    }

    /// A vector as it is stored: numbers rounded to the element type and cut to its range.
    fn encode(&self, numbers: &[f64]) -> Vec<u8> {
        let whole = |x: &f64, most: f64| x.round().clamp(-most - 1.0, most) as i16;
        match self.element {
            ElementType::Fp32 => numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            ElementType::Fp16 => {
                numbers.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect()
            }
            ElementType::Int16 => {
                numbers.iter().flat_map(|x| whole(x, 32_767.0).to_le_bytes()).collect()
            }
            ElementType::Int8 => numbers.iter().map(|x| whole(x, 127.0) as u8).collect(),
            ElementType::Int4 => {
                let half = |x: &f64| whole(x, 7.0) as u8 & 0x0f;
                numbers.chunks(2).map(|pair| half(&pair[0]) | half(&pair[1]) << 4).collect()
            }
            _ => {
                let byte = |bits: &[f64]| {
                    bits.iter().enumerate().fold(0u8, |byte, (at, bit)| byte | (*bit as u8) << at)
                };
                numbers.chunks(8).map(byte).collect()
            }
        }
    }

    /// How far vectors are from each other, computed in another way than the server does.
    fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        let sum = |of: fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of(*a, *b)).sum::<f64>();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        match self.metric {
            Metric::Euclidean => sum(|a, b| (a - b) * (a - b)).sqrt(),
            Metric::InnerProduct => -dot(a, b),
            Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
            Metric::Manhattan | Metric::Hamming => sum(|a, b| (a - b).abs()),
            _ => sum(|a, b| (a - b) * (a - b)),
        }
    }

    fn wire(&self, vectors: impl Iterator<Item = Vec<u8>>) -> VectorColumn {
        VectorColumn {
            name: self.name.clone(),
            element: self.element.into(),
            dimension: DIMENSION as u32,
            vectors: vectors.flatten().collect(),
            ..Default::default()
        }
    }
}

/// What a key holds.
#[derive(Debug, Clone)]
struct Picture {
    label: Option<Kind>,
    /// A vector in some of the columns.
    vectors: BTreeMap<String, Vec<f64>>,
}

struct Pictures {
    served: Served,
    columns: Vec<Column>,
    model: BTreeMap<u64, Picture>,
    random: StdRng,
}

impl Pictures {
    async fn start(columns: Vec<Column>, seed: u64) -> Pictures {
        let served = Served::start(&SMALL).await;
        let column = |column: &Column| IndexColumnParam {
            column_name: column.name.clone(),
            index_type: 1,
            data_type: column.data_type,
            dimension: DIMENSION as u32,
            extra_params: vec![KeyValuePair {
                key: "metric_type".into(),
                value: column.metric_name.into(),
            }],
        };
        let config = proxima::CollectionConfig {
            collection_name: NAME.into(),
            index_column_params: columns.iter().map(column).collect(),
            forward_column_names: vec!["label".into(), "number".into()],
            ..Default::default()
        };
        let mut client = ProximaServiceClient::new(served.channel.clone());
        let status = client.create_collection(config).await.expect("an answer").into_inner();
        assert_eq!(status.reason, "Success");
        let random = StdRng::seed_from_u64(seed);
        Pictures { served, columns, model: BTreeMap::new(), random }
    }

    /// Some 30 values, some of them the same in several kinds, and none.
    fn label(&mut self) -> Option<Kind> {
        let number = self.random.random_range(0..10);
        match self.random.random_range(0..5) {
            0 => None,
            1 => Some(Kind::StringValue(format!("{number}"))),
            2 => Some(Kind::Int64Value(number)),
            3 => Some(Kind::DoubleValue(number as f64)),
            _ => Some(Kind::BytesValue(format!("{number}").into_bytes().into())),
        }
    }

    async fn write(&mut self, operation: Operation, keys: Vec<u64>) {
        let mut pictures = Vec::new();
        // In a request, all rows have a vector in a column or none has.
        let missing = self.random.random_range(0..2 * self.columns.len());
        for _ in &keys {
            let vectors = self.columns.iter().enumerate().filter(|(at, _)| *at != missing);
            let vectors =
                vectors.map(|(_, column)| (column.name.clone(), column.random(&mut self.random)));
            let vectors = vectors.collect();
            pictures.push(Picture { label: self.label(), vectors });
        }
        let written = self.columns.iter().enumerate().filter(|(at, _)| *at != missing);
        let vectors = written.map(|(_, column)| {
            column
                .wire(pictures.iter().map(|picture| column.encode(&picture.vectors[&column.name])))
        });
        let value = |kind| Value { kind };
        let labels = pictures.iter().map(|picture| value(picture.label.clone())).collect();
        let numbers = keys.iter().map(|key| value(Some(Kind::Uint64Value(*key)))).collect();
        let request = WriteRequest {
            collection: NAME.into(),
            keys: keys.clone(),
            operation: operation.into(),
            vectors: vectors.collect(),
            forwards: vec![
                ForwardColumn { name: "label".into(), values: labels },
                ForwardColumn { name: "number".into(), values: numbers },
            ],
            ..Default::default()
        };
        self.served.write(request).await;
        for (key, picture) in keys.into_iter().zip(pictures) {
            match operation {
                Operation::Delete => _ = self.model.remove(&key),
                _ => _ = self.model.insert(key, picture),
            }
        }
    }

    /// Inserts, updates and deletes, anywhere among the keys.
    async fn change(&mut self, rows: usize) {
        let fresh: BTreeSet<u64> =
            (0..rows).map(|_| self.random.random_range(0..1 << 40)).collect();
        let fresh: Vec<u64> =
            fresh.into_iter().filter(|key| !self.model.contains_key(key)).collect();
        for keys in fresh.chunks(400) {
            self.write(Operation::Insert, keys.to_vec()).await;
        }
        let some = self.model.keys().copied().step_by(11).collect();
        self.write(Operation::Update, some).await;
        let some = self.model.keys().copied().skip(3).step_by(9).collect();
        self.write(Operation::Delete, some).await;
    }

    /// Writes until there are graphs, and some rows more, which are in none.
    async fn change_until_indexed(&mut self) {
        let started = Instant::now();
        for column in self.columns.clone() {
            // So few rows are scanned unless a query says how hard to search.
            let params = Some(SearchParams { ef_search: Some(64), ..SearchParams::default() });
            let asked = QueryRequest { params, ..nearest(&column, &[0.0; DIMENSION], false) };
            while self.query(asked.clone()).await.exact {
                if self.model.len() < 3_000 {
                    self.change(600).await;
                }
                // Graphs are due then, whatever was written for the rows before.
                let (collection, timeout_ms) = (asked.collection.clone(), 5_000);
                let request = WaitIndexedRequest { collection, timeout_ms };
                self.served.voisin().wait_indexed(request).await.expect("an answer");
                assert!(started.elapsed() < PATIENCE, "{}: no graph is made", column.name);
            }
        }
        // Few enough for the graphs to stay.
        let some = self.model.keys().copied().step_by(60).collect();
        self.write(Operation::Delete, some).await;
        let some = self.model.keys().copied().skip(7).step_by(60).collect();
        self.write(Operation::Update, some).await;
    }

    async fn query(&self, request: QueryRequest) -> QueryReply {
        self.served.voisin().query(request).await.expect("an answer").into_inner()
    }

    async fn refused(&self, request: QueryRequest) -> (Code, String) {
        let status = self.served.voisin().query(request).await.expect_err("it is refused");
        (status.code(), status.message().to_owned())
    }

    /// The one list of an answer.
    async fn hits(&self, request: QueryRequest) -> Hits {
        let mut reply = self.query(request).await;
        assert_eq!(reply.results.len(), 1);
        reply.results.remove(0)
    }

    /// All rows by their distance from a vector, checked against the model.
    async fn ranked(&self, column: &Column, numbers: &[f64]) -> Vec<(u64, f32)> {
        let topk = u32::MAX;
        let hits = self.hits(QueryRequest { topk, ..nearest(column, numbers, true) }).await;
        let ranked: Vec<(u64, f32)> = hits.keys.into_iter().zip(hits.scores).collect();
        let mut found = BTreeSet::new();
        for (key, score) in &ranked {
            let stored = &self.model[key].vectors[&column.name];
            let expected = column.distance(numbers, stored);
            let size = stored.iter().chain(numbers).map(|x| x * x).sum::<f64>().max(1.0);
            let off = (f64::from(*score) - expected).abs();
            assert!(off <= 1e-5 * size.max(expected.abs()), "{column:?}: {score} for {expected}");
            found.insert(*key);
        }
        let expected = self.model.iter().filter(|(_, p)| p.vectors.contains_key(&column.name));
        assert!(expected.map(|(key, _)| key).eq(&found), "{column:?}");
        assert!(ranked.is_sorted_by(|a, b| (a.1, a.0) < (b.1, b.0)), "{column:?}");
        ranked
    }
}

/// A query by a vector, for the ten nearest rows unless it is changed.
fn nearest(column: &Column, numbers: &[f64], exact: bool) -> QueryRequest {
    QueryRequest {
        collection: NAME.into(),
        vectors: Some(column.wire(std::iter::once(column.encode(numbers)))),
        topk: 10,
        params: Some(SearchParams { exact, ..Default::default() }),
        forwards: Some(ForwardNames::default()),
        ..Default::default()
    }
}

fn pairs(hits: &Hits) -> Vec<(u64, f32)> {
    hits.keys.iter().copied().zip(hits.scores.iter().copied()).collect()
}

#[tokio::test]
async fn every_row_between_two_radii_is_found_and_no_other() {
    let mut pictures = Pictures::start(Column::all(), 1).await;
    for rows in [900, 700, 900] {
        pictures.change(rows).await;
        for column in pictures.columns.clone() {
            let numbers = column.random(&mut pictures.random);
            let ranked = pictures.ranked(&column, &numbers).await;
            let at =
                |pictures: &mut Pictures| ranked[pictures.random.random_range(0..ranked.len())].1;
            let (one, other) = (at(&mut pictures), at(&mut pictures));
            let (least, most) = (one.min(other), one.max(other));
            // Bounds are among what they bound; and a query may come with any number of bounds.
            let bounds = [
                (None, Some(most)),
                (Some(least), Some(most)),
                (Some(least), Some(least)),
                (None, Some(f32::INFINITY)),
                (None, Some(ranked[0].1.next_down())),
            ];
            for (radius_min, radius) in bounds {
                let range = QueryRequest { topk: 0, radius, radius_min, ..Default::default() };
                let asked = QueryRequest {
                    radius,
                    radius_min,
                    topk: 0,
                    params: None,
                    ..nearest(&column, &numbers, false)
                };
                let reply = pictures.query(asked.clone()).await;
                assert!(reply.exact, "{column:?} {range:?}");
                let is_within = |(_, score): &&(u64, f32)| {
                    radius_min.is_none_or(|least| *score >= least)
                        && radius.is_none_or(|most| *score <= most)
                };
                let within: Vec<(u64, f32)> = ranked.iter().filter(is_within).copied().collect();
                assert_eq!(pairs(&reply.results[0]), within, "{column:?} {range:?}");
                // The nearest of them, and those of a batch.
                let few = QueryRequest { topk: 7, ..asked.clone() };
                let first = &within[..within.len().min(7)];
                if radius_min.is_some() {
                    assert_eq!(pairs(&pictures.hits(few).await), first, "{column:?} {range:?}");
                }
                let other = column.random(&mut pictures.random);
                let both = [&other, &numbers].into_iter().map(|numbers| column.encode(numbers));
                let batch = QueryRequest { vectors: Some(column.wire(both)), ..asked };
                let reply = pictures.query(batch).await;
                assert_eq!(pairs(&reply.results[1]), within, "{column:?} {range:?}");
            }
            let far = QueryRequest { radius_min: Some(most), ..nearest(&column, &numbers, false) };
            let far = pairs(&pictures.hits(far).await);
            let expected = ranked.iter().filter(|(_, score)| *score >= most).take(10).copied();
            assert_eq!(far, expected.collect::<Vec<_>>(), "{column:?}");
        }
    }
}

/// The rounded avg(positives) + (avg(positives) - avg(negatives)).
fn combined(positives: &[Vec<f64>], negatives: &[Vec<f64>]) -> Vec<f64> {
    let average = |vectors: &[Vec<f64>], at: usize| {
        vectors.iter().map(|vector| vector[at]).sum::<f64>() / vectors.len() as f64
    };
    let number = |at| match negatives.is_empty() {
        true => average(positives, at),
        false => 2.0 * average(positives, at) - average(negatives, at),
    };
    (0..DIMENSION).map(number).collect()
}

#[tokio::test]
async fn queries_by_rows_find_what_their_average_finds_but_not_these_rows() {
    let is_chosen = |column: &Column| {
        matches!(column.metric, Metric::SquaredEuclidean | Metric::Cosine) || column.is_binary()
    };
    let columns = Column::all().into_iter().filter(is_chosen).collect();
    let mut pictures = Pictures::start(columns, 2).await;
    let mut by_graphs = 0;
    for rows in [1_200, 0] {
        match rows {
            0 => pictures.change_until_indexed().await,
            rows => pictures.change(rows).await,
        }
        for column in pictures.columns.clone() {
            let with_vector: Vec<u64> = {
                let having = pictures.model.iter();
                having.filter(|(_, p)| p.vectors.contains_key(&column.name)).map(|(k, _)| *k)
            }
            .collect();
            for (positives, negatives, vectors) in
                [(1, 0, 0), (1, 0, 1), (3, 0, 0), (2, 2, 0), (1, 3, 2), (0, 1, 1)]
            {
                let several = positives + negatives + vectors > 1;
                let mut choose = |count: usize| -> Vec<u64> {
                    (0..count).map(|_| *with_vector.choose(&mut pictures.random).unwrap()).collect()
                };
                let (positives, negatives) = (choose(positives), choose(negatives));
                let given: Vec<Vec<f64>> =
                    (0..vectors).map(|_| column.random(&mut pictures.random)).collect();
                let request = QueryRequest {
                    positives: positives.clone(),
                    negatives: negatives.clone(),
                    vectors: match vectors {
                        0 => Some(VectorColumn { name: column.name.clone(), ..Default::default() }),
                        _ => Some(column.wire(given.iter().map(|v| column.encode(v)))),
                    },
                    topk: 12,
                    ..nearest(&column, &[], true)
                };
                if several && column.is_binary() {
                    let (code, words) = pictures.refused(request).await;
                    assert_eq!(code, Code::InvalidArgument);
                    assert!(words.contains("bits have no average"), "{words}");
                    continue;
                }
                let stored = |keys: &[u64]| -> Vec<Vec<f64>> {
                    keys.iter()
                        .map(|key| pictures.model[key].vectors[&column.name].clone())
                        .collect()
                };
                let (like, unlike) = (stored(&positives), stored(&negatives));
                let asked: Vec<Vec<f64>> = match vectors {
                    0 => vec![combined(&like, &unlike)],
                    _ => {
                        let beside = |own: &Vec<f64>| {
                            combined(&[&like[..], std::slice::from_ref(own)].concat(), &unlike)
                        };
                        given.iter().map(beside).collect()
                    }
                };
                let is_example = |key: &u64| positives.contains(key) || negatives.contains(key);
                let reply = pictures.query(request.clone()).await;
                assert_eq!(reply.results.len(), asked.len());
                for (hits, numbers) in reply.results.iter().zip(&asked) {
                    let all = QueryRequest { topk: u32::MAX, ..nearest(&column, numbers, true) };
                    let all = pairs(&pictures.hits(all).await);
                    let others = all.into_iter().filter(|(key, _)| !is_example(key));
                    let expected: Vec<(u64, f32)> = others.take(12).collect();
                    assert_eq!(pairs(hits), expected, "{column:?} {positives:?} {negatives:?}");
                }
                // k means k by an index too, and as many as there are.
                let params = Some(SearchParams { ef_search: Some(64), ..Default::default() });
                let by_index = QueryRequest { params, ..request.clone() };
                let reply = pictures.query(by_index).await;
                by_graphs += usize::from(!reply.exact);
                for hits in &reply.results {
                    assert!(hits.keys.len() == 12 && !hits.keys.iter().any(is_example));
                }
                let all = QueryRequest { topk: u32::MAX, ..request };
                let examples: BTreeSet<u64> = positives.iter().chain(&negatives).copied().collect();
                for hits in &pictures.query(all).await.results {
                    assert_eq!(hits.keys.len(), with_vector.len() - examples.len());
                }
            }
        }
    }
    assert!(by_graphs > 0, "{by_graphs} queries went through graphs");
}

/// Labels of equal worth have equal names.
fn label_name(label: &Option<Kind>, key: u64) -> String {
    match label {
        None => format!("row {key}"),
        Some(Kind::Int64Value(number)) => format!("number {number}"),
        Some(Kind::DoubleValue(number)) => format!("number {number}"),
        Some(other) => format!("{other:?}"),
    }
}

#[tokio::test]
async fn the_nearest_rows_of_the_nearest_groups_are_found() {
    let columns = Column::all();
    let some = [
        "FP32_Euclidean",
        "FP32_Cosine",
        "FP16_InnerProduct",
        "INT8_Manhattan",
        "BINARY64_Hamming",
    ];
    let chosen =
        columns.into_iter().filter(|column| some.iter().any(|name| column.name.ends_with(name)));
    let mut pictures = Pictures::start(chosen.collect(), 3).await;
    assert_eq!(pictures.columns.len(), some.len());
    let mut by_graphs = 0;
    for rows in [900, 1_200, 0] {
        match rows {
            0 => pictures.change_until_indexed().await,
            rows => pictures.change(rows).await,
        }
        for column in pictures.columns.clone() {
            for (topk, size) in
                [(1, 1), (2, 1), (5, 1), (12, 4), (31, 2), (100, 3), (100_000, 1), (100_000, 2)]
            {
                let numbers = column.random(&mut pictures.random);
                let ranked = pictures.ranked(&column, &numbers).await;
                let radius = match pictures.random.random_range(0..3) {
                    0 => Some(ranked[pictures.random.random_range(0..ranked.len())].1),
                    _ => None,
                };
                let mut groups: Vec<(String, Vec<(u64, f32)>)> = Vec::new();
                for (key, score) in &ranked {
                    if radius.is_some_and(|radius| *score > radius) {
                        break;
                    }
                    let name = label_name(&pictures.model[key].label, *key);
                    match groups.iter().position(|(known, _)| *known == name) {
                        Some(at) if groups[at].1.len() < size => groups[at].1.push((*key, *score)),
                        None if groups.len() < topk => groups.push((name, vec![(*key, *score)])),
                        _ => {}
                    }
                }
                let request = QueryRequest {
                    topk: topk as u32,
                    radius,
                    group: Some(Group { column: "label".into(), size: size as u32 }),
                    forwards: Some(ForwardNames { names: vec!["label".into()] }),
                    ..nearest(&column, &numbers, true)
                };
                let hits = pictures.hits(request.clone()).await;
                let expected: Vec<(u64, f32)> =
                    groups.iter().flat_map(|(_, rows)| rows.clone()).collect();
                assert_eq!(pairs(&hits), expected, "{column:?} {topk} {size}");
                let sizes = groups.iter().map(|(_, rows)| rows.len() as u32);
                assert_eq!(hits.group_rows, sizes.collect::<Vec<_>>(), "{column:?} {topk} {size}");

                // An index finds as many, and rows of a group share its value. Left alone, few rows are scanned.
                let params =
                    (size > 1).then(|| SearchParams { ef_search: Some(64), ..Default::default() });
                let mut reply = pictures.query(QueryRequest { params, ..request }).await;
                by_graphs += usize::from(!reply.exact);
                let hits = reply.results.remove(0);
                assert_eq!(hits.group_rows.len(), groups.len(), "{column:?} {topk} {size}");
                let mut rows = hits.keys.iter().zip(&hits.forwards[0].values);
                let mut seen = BTreeSet::new();
                for count in &hits.group_rows {
                    let names: BTreeSet<String> = rows
                        .by_ref()
                        .take(*count as usize)
                        .map(|(key, value)| {
                            assert_eq!(value.kind, pictures.model[key].label);
                            label_name(&value.kind, *key)
                        })
                        .collect();
                    assert_eq!(names.len(), 1, "{column:?} {topk} {size}");
                    assert!(seen.insert(names), "a group comes twice");
                }
                assert_eq!(rows.next(), None);
            }
        }
    }
    assert!(by_graphs > 0, "{by_graphs} queries went through graphs");
}

#[tokio::test]
async fn vectors_come_with_the_hits_as_they_were_written() {
    let mut pictures = Pictures::start(Column::all(), 4).await;
    pictures.change(1_300).await;
    let columns = pictures.columns.clone();
    for _ in 0..20 {
        let column = columns.choose(&mut pictures.random).unwrap().clone();
        let numbers = column.random(&mut pictures.random);
        let request = QueryRequest {
            return_vectors: Some(VectorNames { names: vec!["*".into()] }),
            ..nearest(&column, &numbers, false)
        };
        let hits = pictures.hits(request.clone()).await;
        assert_eq!(hits.keys.len(), 10);
        assert_eq!(hits.vectors.len(), columns.len());
        for (column, got) in columns.iter().zip(&hits.vectors) {
            let expected: Vec<Option<&Vec<f64>>> =
                hits.keys.iter().map(|key| pictures.model[key].vectors.get(&column.name)).collect();
            let bytes: Bytes = expected.iter().flatten().flat_map(|v| column.encode(v)).collect();
            assert_eq!((&got.name, &got.vectors), (&column.name, &bytes));
            assert_eq!((got.element, got.dimension), (column.element.into(), DIMENSION as u32));
            let counts: Vec<u32> = expected.iter().map(|v| u32::from(v.is_some())).collect();
            let is_left_out = got.counts.is_empty() && counts.iter().all(|count| *count == 1);
            assert!(is_left_out || got.counts == counts);
        }
        let two = [columns[3].name.clone(), columns[1].name.clone()];
        let named = VectorNames { names: two.to_vec() };
        let some = pictures.hits(QueryRequest { return_vectors: Some(named), ..request }).await;
        let names: Vec<&String> = some.vectors.iter().map(|column| &column.name).collect();
        assert_eq!(names, [&two[0], &two[1]]);
        assert_eq!(some.vectors[1], hits.vectors[1]);
    }
}

#[tokio::test]
async fn scores_have_the_shape_asked_for_and_hits_stay_nearest_first() {
    let mut pictures = Pictures::start(Column::all(), 5).await;
    pictures.change(1_300).await;
    for column in pictures.columns.clone() {
        let numbers = column.random(&mut pictures.random);
        let plain = nearest(&column, &numbers, false);
        let distances = pairs(&pictures.hits(plain.clone()).await);
        let radius = distances[6].1;
        for shape in [ScoreShape::Elasticsearch, ScoreShape::Milvus] {
            // A radius is a distance in every shape.
            let asked = QueryRequest { score: shape.into(), radius: Some(radius), ..plain.clone() };
            let scored = pairs(&pictures.hits(asked).await);
            assert!(scored.len() >= 7);
            for ((key, score), (same_key, _)) in scored.iter().zip(&distances) {
                assert_eq!(key, same_key, "{column:?}");
                let far = column.distance(&numbers, &pictures.model[key].vectors[&column.name]);
                let expected = match (shape, column.metric) {
                    (ScoreShape::Elasticsearch, Metric::Cosine) => 2.0 - far,
                    (ScoreShape::Elasticsearch, Metric::InnerProduct) => {
                        1.0 / (1.0 + std::f64::consts::E.powf(far))
                    }
                    (ScoreShape::Elasticsearch, Metric::SquaredEuclidean) => {
                        1.0 / (1.0 + far.sqrt())
                    }
                    (ScoreShape::Elasticsearch, Metric::Hamming) => {
                        (DIMENSION as f64 - far) / DIMENSION as f64
                    }
                    (ScoreShape::Elasticsearch, _) => 1.0 / (1.0 + far),
                    (_, Metric::Cosine) => 1.0 - far,
                    (_, Metric::InnerProduct) => -far,
                    (_, Metric::Euclidean) => far * far,
                    _ => far,
                };
                let off = (f64::from(*score) - expected).abs();
                assert!(
                    off <= 1e-5 * expected.abs().max(1.0),
                    "{column:?} {shape:?}: {score} for {expected}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_asked_together_is_refused_with_the_reason() {
    let column = Column::all().remove(0);
    let bits = Column::all().pop().expect("a column of bits");
    let mut pictures = Pictures::start(vec![column.clone(), bits.clone()], 6).await;
    pictures.change(40).await;
    let plain = nearest(&column, &[0.0; DIMENSION], false);
    let live = *pictures.model.keys().next().expect("a row");
    let gone = (0..).find(|key| !pictures.model.contains_key(key)).expect("a free key");
    // A row that has no vector in a column.
    let bare = u64::MAX - 1;
    let write = WriteRequest {
        collection: NAME.into(),
        keys: vec![bare],
        operation: Operation::Insert.into(),
        vectors: vec![bits.wire(std::iter::once(bits.encode(&[1.0; DIMENSION])))],
        ..Default::default()
    };
    pictures.served.write(write).await;
    let by_rows = |positives: &[u64], negatives: &[u64]| QueryRequest {
        positives: positives.to_vec(),
        negatives: negatives.to_vec(),
        vectors: Some(VectorColumn { name: column.name.clone(), ..Default::default() }),
        ..plain.clone()
    };
    let group = |name: &str| Some(Group { column: name.into(), size: 1 });
    let names = |names: &[&str]| {
        Some(VectorNames { names: names.iter().map(|name| (*name).to_owned()).collect() })
    };
    let (name, gone_words) = (column.name.as_str(), format!("key {gone}"));
    let (gone_words, twice) = ([gone_words.as_str()], [name, "twice"]);
    let without = ["18446744073709551614", "no vector", name];
    use Code::{InvalidArgument, NotFound};
    let cases: Vec<(QueryRequest, Code, &[&str])> = vec![
        (QueryRequest { topk: 0, ..plain.clone() }, InvalidArgument, &["topk is 0", "radius"]),
        (
            QueryRequest { topk: 0, radius_min: Some(1.0), ..plain.clone() },
            InvalidArgument,
            &["topk is 0", "radius"],
        ),
        (
            QueryRequest { topk: 0, radius: Some(1.0), group: group("label"), ..plain.clone() },
            InvalidArgument,
            &["topk is 0", "groups"],
        ),
        (
            QueryRequest { radius_min: Some(f32::NAN), ..plain.clone() },
            InvalidArgument,
            &["radius_min is not a number"],
        ),
        (
            QueryRequest { radius: Some(1.0), radius_min: Some(1.5), ..plain.clone() },
            InvalidArgument,
            &["radius_min is 1.5", "radius, which is 1"],
        ),
        (QueryRequest { group: group("v"), ..plain.clone() }, NotFound, &["\"v\""]),
        (QueryRequest { group: group(""), ..plain.clone() }, NotFound, &["\"\""]),
        (QueryRequest { score: 77, ..plain.clone() }, InvalidArgument, &["score 77 is unknown"]),
        (QueryRequest { return_vectors: names(&["w"]), ..plain.clone() }, NotFound, &["\"w\""]),
        (
            QueryRequest { return_vectors: names(&[name, name]), ..plain.clone() },
            InvalidArgument,
            &twice,
        ),
        (by_rows(&[live, gone], &[]), NotFound, &gone_words),
        (by_rows(&[live], &[gone]), NotFound, &gone_words),
        (by_rows(&[bare], &[]), InvalidArgument, &without),
        (by_rows(&[], &[live]), InvalidArgument, &["negatives", "positives"]),
        (by_rows(&[], &[]), InvalidArgument, &["dimension"]),
        (QueryRequest { vectors: None, ..by_rows(&[live], &[]) }, InvalidArgument, &["not named"]),
        (QueryRequest { vectors: None, ..by_rows(&[], &[]) }, InvalidArgument, &["query vectors"]),
    ];
    for (request, code, words) in cases {
        let (got, message) = pictures.refused(request).await;
        assert_eq!(got, code, "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    }
    // By one row of bits, as it is.
    let by_bits = QueryRequest {
        vectors: Some(VectorColumn { name: bits.name.clone(), ..Default::default() }),
        ..by_rows(&[bare], &[])
    };
    assert_eq!(pictures.hits(by_bits).await.keys.len(), 10);
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_refused_with_the_setting() {
    use support::photos::{FP32, vectors};
    let settings = [
        ("VOISIN__LIMITS__QUERY_RESULTS_MAX", "60"),
        ("VOISIN__LIMITS__QUERY_VECTORS_MAX", "4"),
        ("VOISIN__LIMITS__REPLY_BYTES_MAX", "65536"),
    ];
    let served = Served::start(&settings).await;
    served.create(NAME, &[("v", FP32)], &["path", "size"]).await;
    // Fewer than the vectors that there are: no two are the same.
    served.insert(0..100).await;
    let asked = |queries: u64| QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors("v", 0..queries)),
        forwards: Some(ForwardNames::default()),
        ..Default::default()
    };
    let keys = async |request: QueryRequest| {
        let reply = served.voisin().query(request).await.expect("an answer").into_inner();
        reply.results.iter().map(|hits| hits.keys.len()).collect::<Vec<usize>>()
    };
    let beyond = async |request: QueryRequest, words: &[&str]| {
        let refused = served.voisin().query(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(words.iter().all(|word| refused.message().contains(word)), "{refused}");
    };
    // As many as there may be, and one more.
    let all = QueryRequest { topk: 60, ..asked(1) };
    let reply = served.voisin().query(all).await.expect("an answer").into_inner();
    let radius = |at: usize| Some(reply.results[0].scores[at]);
    let within = |queries, radius| QueryRequest { radius, ..asked(queries) };
    assert_eq!(keys(within(1, radius(59))).await.len(), 1);
    let results_max = "limits.query_results_max";
    let just_beyond = Some(reply.results[0].scores[59] * 1.5);
    beyond(within(1, just_beyond), &[results_max, "61", "60", "radius"]).await;
    beyond(within(1, Some(f32::INFINITY)), &[results_max]).await;
    beyond(within(4, radius(50)), &[results_max]).await;
    assert_eq!(keys(within(4, radius(0))).await.len(), 4);

    let groups = |topk, size| QueryRequest {
        topk,
        group: Some(Group { column: "size".into(), size }),
        ..asked(1)
    };
    assert_eq!(keys(groups(60, 1)).await, [60]);
    assert!(keys(groups(20, 3)).await[0] >= 20);
    beyond(groups(61, 1), &[results_max, "61"]).await;
    beyond(groups(20, 4), &[results_max, "80", "group"]).await;
    beyond(groups(u32::MAX, u32::MAX), &[results_max, "100"]).await;

    let by_rows = |positives, negatives| QueryRequest {
        positives,
        negatives,
        topk: 5,
        vectors: None,
        ..asked(0)
    };
    assert_eq!(keys(by_rows(vec![1, 2], vec![3, 4])).await, [5]);
    beyond(by_rows(vec![1, 2, 3], vec![4, 5]), &["limits.query_vectors_max", "5", "4"]).await;

    // 60 vectors of 96 bytes fit, and 40 times as many do not.
    let wide = |names: &[&str]| QueryRequest {
        topk: 60,
        return_vectors: Some(VectorNames {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }),
        ..asked(1)
    };
    assert_eq!(keys(wide(&["v"])).await, [60]);
    let columns: Vec<String> = (0..40).map(|at| format!("v{at}")).collect();
    let declared: Vec<(&str, i32)> = columns.iter().map(|name| (name.as_str(), FP32)).collect();
    served.create("wide", &declared, &[]).await;
    let write = WriteRequest {
        collection: "wide".into(),
        keys: (0..60).collect(),
        operation: Operation::Insert.into(),
        vectors: columns.iter().map(|name| vectors(name, 0..60)).collect(),
        ..Default::default()
    };
    served.write(write).await;
    let wide = QueryRequest {
        collection: "wide".into(),
        vectors: Some(vectors("v7", 0..1)),
        ..wide(&["*"])
    };
    assert_eq!(keys(QueryRequest { topk: 10, ..wide.clone() }).await, [10]);
    beyond(wide, &["limits.reply_bytes_max", "65536"]).await;
}
