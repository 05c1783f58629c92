//! Queries beyond the nearest rows in columns whose rows have several vectors: a row is found once, as
//! near as its nearest vector, whatever is asked for.

mod support;

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tonic::Code;

use support::photos::Served;
use voisin::server::proto::proxima::{
    self, KeyValuePair, collection_config::IndexColumnParam,
    proxima_service_client::ProximaServiceClient,
};
use voisin::server::proto::voisin_v1::{
    Aggregation, ElementType, ForwardColumn, ForwardNames, Group, Hits, Operation, QueryReply,
    QueryRequest, ScoreShape, SearchParams, Value, VectorColumn, WriteRequest,
    aggregation::Kind as AggregationKind, value::Kind,
};

const NAME: &str = "photos";
const DIMENSION: usize = 6;
const LABELS: u64 = 40;

type Vector = [f32; DIMENSION];

fn wire(vectors: &[Vector], counts: Vec<u32>) -> VectorColumn {
    VectorColumn {
        name: "v".into(),
        element: ElementType::Fp32.into(),
        dimension: DIMENSION as u32,
        vectors: vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
        counts,
    }
}

/// The squared distance, as it is summed in 64 bits.
fn far(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Rows with several vectors each, in sealed and growing segments, and what they hold.
struct Pictures {
    served: Served,
    model: BTreeMap<u64, Vec<Vector>>,
    random: StdRng,
}

impl Pictures {
    async fn start() -> Pictures {
        let settings = [("VOISIN__SEGMENT__SEAL_ROWS_MAX", "150")];
        let served = Served::start(&settings).await;
        let param = |key: &str, value: &str| KeyValuePair { key: key.into(), value: value.into() };
        let column = IndexColumnParam {
            column_name: "v".into(),
            index_type: 1,
            data_type: 23,
            dimension: DIMENSION as u32,
            extra_params: vec![param("multi", "true")],
        };
        let config = proxima::CollectionConfig {
            collection_name: NAME.into(),
            index_column_params: vec![column],
            forward_column_names: vec!["label".into()],
            ..Default::default()
        };
        let mut client = ProximaServiceClient::new(served.channel.clone());
        let status = client.create_collection(config).await.expect("an answer").into_inner();
        assert_eq!(status.reason, "Success");
        let random = StdRng::seed_from_u64(21);
        let mut pictures = Pictures { served, model: BTreeMap::new(), random };
        for first in (0..600).step_by(100) {
            pictures.write(Operation::Insert, (first..first + 100).collect()).await;
            let some = pictures.model.keys().copied().step_by(7).collect();
            pictures.write(Operation::Update, some).await;
            let some = pictures.model.keys().copied().step_by(9).collect();
            pictures.write(Operation::Delete, some).await;
        }
        pictures
    }

    fn vector(&mut self) -> Vector {
        std::array::from_fn(|_| self.random.random_range(-1.0..1.0))
    }

    async fn write(&mut self, operation: Operation, keys: Vec<u64>) {
        let mut vectors = Vec::new();
        for _ in &keys {
            let count = self.random.random_range(1..8);
            vectors.push((0..count).map(|_| self.vector()).collect::<Vec<_>>());
        }
        let label = |key: &u64| Value { kind: Some(Kind::Uint64Value(key % LABELS)) };
        let request = WriteRequest {
            collection: NAME.into(),
            keys: keys.clone(),
            operation: operation.into(),
            vectors: vec![wire(
                &vectors.concat(),
                vectors.iter().map(|own| own.len() as u32).collect(),
            )],
            forwards: vec![ForwardColumn {
                name: "label".into(),
                values: keys.iter().map(label).collect(),
            }],
            ..Default::default()
        };
        self.served.write(request).await;
        for (key, own) in keys.into_iter().zip(vectors) {
            match operation {
                Operation::Delete => _ = self.model.remove(&key),
                _ => _ = self.model.insert(key, own),
            }
        }
    }

    async fn query(&self, request: QueryRequest) -> QueryReply {
        self.served.voisin().query(request).await.expect("an answer").into_inner()
    }

    /// All rows by the distance of their nearest vector, checked against the model.
    async fn ranked(&self, vector: &Vector) -> Vec<(u64, f32)> {
        let all = QueryRequest { topk: u32::MAX, ..nearest(&[*vector]) };
        let ranked = pairs(&self.query(all).await.results[0]);
        let mut expected: Vec<(f64, u64)> = Vec::new();
        for (key, vectors) in &self.model {
            let least = vectors.iter().map(|own| far(own, vector)).fold(f64::INFINITY, f64::min);
            expected.push((least, *key));
        }
        expected.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
        assert_eq!(ranked.len(), expected.len());
        for ((key, score), (least, same)) in ranked.iter().zip(&expected) {
            assert_eq!(key, same);
            assert!((f64::from(*score) - least).abs() < 1e-5);
        }
        ranked
    }

    /// How many of the vectors have each row among their k nearest vectors that are not of `without`.
    fn votes(&self, asked: &[Vector], k: usize, without: u64) -> BTreeMap<u64, u32> {
        let mut votes = BTreeMap::new();
        for vector in asked {
            let others = self.model.iter().filter(|(key, _)| **key != without);
            let mut near: Vec<(f64, u64)> = others
                .flat_map(|(key, own)| own.iter().map(move |own| (far(own, vector), *key)))
                .collect();
            near.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
            let mut voted: Vec<u64> = near.iter().take(k).map(|(_, key)| *key).collect();
            voted.sort_unstable();
            voted.dedup();
            voted.into_iter().for_each(|key| *votes.entry(key).or_default() += 1);
        }
        votes
    }
}

fn nearest(vectors: &[Vector]) -> QueryRequest {
    QueryRequest {
        collection: NAME.into(),
        vectors: Some(wire(vectors, vec![])),
        topk: 10,
        params: Some(SearchParams { exact: true, ..Default::default() }),
        forwards: Some(ForwardNames::default()),
        ..Default::default()
    }
}

fn aggregated(kind: AggregationKind, k_per_vector: u32) -> Option<Aggregation> {
    Some(Aggregation { kind: kind.into(), k_per_vector, min_votes: 0 })
}

fn pairs(hits: &Hits) -> Vec<(u64, f32)> {
    hits.keys.iter().copied().zip(hits.scores.iter().copied()).collect()
}

#[tokio::test]
async fn a_row_is_found_once_within_a_radius_and_in_its_group() {
    let mut pictures = Pictures::start().await;
    for _ in 0..20 {
        let vector = pictures.vector();
        let ranked = pictures.ranked(&vector).await;
        let at = pictures.random.random_range(0..ranked.len());
        let within = QueryRequest { topk: 0, radius: Some(ranked[at].1), ..nearest(&[vector]) };
        assert_eq!(pairs(&pictures.query(within).await.results[0]), ranked[..=at]);

        for (topk, size) in [(5, 1), (5, 3), (100, 2)] {
            let mut groups: Vec<(u64, Vec<(u64, f32)>)> = Vec::new();
            for (key, score) in &ranked {
                let label = key % LABELS;
                match groups.iter_mut().find(|(known, _)| *known == label) {
                    Some((_, rows)) => rows.push((*key, *score)),
                    None => groups.push((label, vec![(*key, *score)])),
                }
            }
            let group = Some(Group { column: "label".into(), size });
            let asked = QueryRequest { topk, group, ..nearest(&[vector]) };
            for params in [asked.params, None] {
                let asked = QueryRequest { params, ..asked.clone() };
                let found = pictures.query(asked).await.results.remove(0);
                let expected = groups.iter().take(topk as usize);
                let expected = expected.flat_map(|(_, rows)| rows.iter().take(size as usize));
                assert_eq!(pairs(&found), expected.copied().collect::<Vec<_>>());
            }
        }
    }
}

#[tokio::test]
async fn a_row_is_queried_by_with_all_its_vectors_and_not_found_itself() {
    let pictures = Pictures::start().await;
    for (key, vectors) in pictures.model.iter().step_by(37) {
        let by_row = QueryRequest { vectors: None, positives: vec![*key], ..nearest(&[]) };
        let lists = pictures.query(by_row.clone()).await.results;
        assert_eq!(lists.len(), vectors.len());
        for (hits, vector) in lists.iter().zip(vectors) {
            let mut ranked = pictures.ranked(vector).await;
            assert_eq!(ranked.remove(0), (*key, 0.0));
            assert_eq!(pairs(hits), ranked[..10]);
        }
        for k in [1, 4, 15] {
            let aggregation = aggregated(AggregationKind::Votes, k);
            let voting = QueryRequest { aggregation, topk: u32::MAX, ..by_row.clone() };
            let found = pictures.query(voting).await.results.remove(0);
            let votes: BTreeMap<u64, u32> = found.keys.into_iter().zip(found.votes).collect();
            assert_eq!(votes, pictures.votes(vectors, k as usize, *key));
        }
        for kind in [AggregationKind::MaxSim, AggregationKind::MinDistance] {
            let all =
                QueryRequest { aggregation: aggregated(kind, 0), topk: u32::MAX, ..by_row.clone() };
            let found = pictures.query(all).await.results.remove(0).keys;
            assert!(found.len() == pictures.model.len() - 1 && !found.contains(key));
            let same = QueryRequest {
                vectors: Some(wire(vectors, vec![])),
                positives: vec![],
                aggregation: aggregated(kind, 0),
                topk: u32::MAX,
                ..by_row.clone()
            };
            let mut same = pictures.query(same).await.results.remove(0).keys;
            same.retain(|other| other != key);
            assert_eq!(found, same);
        }
    }
}

#[tokio::test]
async fn the_least_distance_may_have_another_shape() {
    let mut pictures = Pictures::start().await;
    let vectors = [pictures.vector(), pictures.vector()];
    let aggregation = aggregated(AggregationKind::MinDistance, 0);
    let plain = QueryRequest { aggregation, ..nearest(&vectors) };
    let shaped = QueryRequest { score: ScoreShape::Elasticsearch.into(), ..plain.clone() };
    let plain = pairs(&pictures.query(plain).await.results[0]);
    let shaped = pairs(&pictures.query(shaped).await.results[0]);
    assert_eq!(shaped.len(), 10);
    for ((key, score), (same, distance)) in shaped.iter().zip(&plain) {
        assert_eq!(key, same);
        assert!((score - 1.0 / (1.0 + distance.sqrt())).abs() < 1e-6);
    }
}

#[tokio::test]
async fn what_makes_no_sense_of_several_vectors_is_refused_with_the_reason() {
    let mut pictures = Pictures::start().await;
    let plain = nearest(&[pictures.vector()]);
    let keys: Vec<u64> = pictures.model.keys().copied().take(2).collect();
    let voting =
        QueryRequest { aggregation: aggregated(AggregationKind::Votes, 0), ..plain.clone() };
    let group = Some(Group { column: "label".into(), size: 1 });
    let shape = ScoreShape::Milvus.into();
    let cases: [(QueryRequest, &[&str]); 7] = [
        (QueryRequest { radius_min: Some(0.1), ..plain.clone() }, &["radius_min", "several"]),
        (QueryRequest { vectors: None, positives: keys.clone(), ..plain.clone() }, &["several"]),
        (QueryRequest { positives: keys[..1].to_vec(), ..plain.clone() }, &["several"]),
        (QueryRequest { topk: 0, radius: Some(1.0), ..voting.clone() }, &["topk 0", "votes"]),
        (QueryRequest { group, ..voting.clone() }, &["group", "votes"]),
        (QueryRequest { score: shape, ..voting.clone() }, &["score", "votes"]),
        (
            QueryRequest {
                score: shape,
                aggregation: aggregated(AggregationKind::MaxSim, 0),
                ..plain.clone()
            },
            &["score", "max_sim"],
        ),
    ];
    for (request, words) in cases {
        let refused = pictures.served.voisin().query(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(words.iter().all(|word| refused.message().contains(word)), "{words:?}: {refused}");
    }
}
