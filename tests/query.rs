//! What `voisin.v1.Query` promises, over the real port of the real program: the same answers as the
//! compatible call, in columns; what it leaves out on request; and every refusal.

mod support;

use tonic::{Code, Status};

use support::photos::{DIMENSION, FP16, FP32, NAME, Served, floats, vectors};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::{
    ElementType, ForwardColumn, ForwardNames, Metric, Operation, QueryReply, QueryRequest,
    SearchParams, Value, VectorColumn, WriteRequest, value::Kind,
};

use proxima::generic_value::ValueOneof;
use proxima::query_request::{KnnQueryParam, QueryParam, knn_query_param::FeaturesValue};

impl Served {
    async fn query(&self, request: QueryRequest) -> QueryReply {
        self.voisin().query(request).await.expect("an answer").into_inner()
    }

    async fn refused(&self, request: QueryRequest) -> Status {
        self.voisin().query(request).await.expect_err("it is refused")
    }

    /// The same query over the compatible call: keys, scores and forward values.
    async fn documents(&self, knn: KnnQueryParam) -> Vec<Vec<proxima::Document>> {
        let request = proxima::QueryRequest {
            collection_name: NAME.into(),
            query_param: Some(QueryParam::KnnParam(knn)),
            ..Default::default()
        };
        let mut client = ProximaServiceClient::new(self.channel.clone());
        let answer = client.query(request).await.expect("an answer").into_inner();
        assert_eq!(answer.status.expect("a status").reason, "Success");
        answer.results.into_iter().map(|result| result.documents).collect()
    }
}

/// The ten nearest of the vectors of these keys.
fn nearest(keys: &[u64]) -> QueryRequest {
    QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors("v", keys.iter().copied())),
        topk: 10,
        ..Default::default()
    }
}

fn params(set: impl FnOnce(&mut SearchParams)) -> Option<SearchParams> {
    let mut params = SearchParams::default();
    set(&mut params);
    Some(params)
}

/// Rows get graphs soon, and queries by them are not short of rows.
const GRAPHS: [(&str, &str); 2] =
    [("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "500"), ("VOISIN__SEGMENT__SEAL_ROWS_MAX", "1000")];

#[tokio::test]
async fn both_calls_find_the_same_rows_with_the_same_scores_and_values() {
    let served = Served::with_photos(3_000, &GRAPHS).await;
    served.indexed().await;
    // Some rows are in graphs, some are not.
    served.insert(3_000..3_100).await;
    let asked = [7, 1_500, 3_050, 5_000];
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let cases = [
        (QueryRequest::default(), vec![]),
        (
            QueryRequest { params: params(|p| p.ef_search = Some(30)), ..Default::default() },
            vec![pair("ef_search", "30")],
        ),
        (
            QueryRequest {
                params: params(|p| {
                    (p.recall_target, p.refine_k) = (Some(0.9), Some(4.0));
                }),
                ..Default::default()
            },
            vec![pair("recall_target", "0.9"), pair("refine_k", "4")],
        ),
        (
            QueryRequest { params: params(|p| p.nprobe = Some(8)), ..Default::default() },
            vec![pair("nprobe", "8")],
        ),
        (
            QueryRequest { params: params(|p| p.exact = true), ..Default::default() },
            vec![pair("exact", "true")],
        ),
        (
            QueryRequest { metric: Metric::Cosine.into(), ..Default::default() },
            vec![pair("metric_type", "Cosine")],
        ),
        (
            QueryRequest { metric: Metric::SquaredEuclidean.into(), ..Default::default() },
            vec![pair("metric_type", "SquaredEuclidean")],
        ),
    ];
    for (how, extra_params) in cases {
        for radius in [None, Some(9_000.0)] {
            let is_exact =
                extra_params.iter().any(|(key, value)| key == "exact" || value == "Cosine");
            let request = QueryRequest { radius, ..nearest(&asked) };
            let request = QueryRequest { params: how.params, metric: how.metric, ..request };
            let pairs = extra_params.iter().cloned();
            let documents = served.documents(KnnQueryParam {
                column_name: "v".into(),
                topk: 10,
                features_value: Some(FeaturesValue::Features(floats(asked.into_iter()))),
                batch_count: asked.len() as u32,
                dimension: DIMENSION,
                data_type: FP32,
                radius: radius.unwrap_or(0.0),
                extra_params: pairs
                    .map(|(key, value)| proxima::KeyValuePair { key, value })
                    .collect(),
                ..Default::default()
            });
            let (documents, reply) = (documents.await, served.query(request).await);
            assert_eq!((reply.exact, reply.rows), (is_exact, 3_100), "{extra_params:?}");
            assert_eq!(reply.results.len(), asked.len());
            for (hits, documents) in reply.results.iter().zip(&documents) {
                let keys: Vec<u64> = documents.iter().map(|d| d.primary_key).collect();
                let scores: Vec<f32> = documents.iter().map(|d| d.score).collect();
                assert_eq!((&hits.keys, &hits.scores), (&keys, &scores), "{extra_params:?}");
                assert!(radius.is_some() || keys.len() == 10);
                for (position, document) in documents.iter().enumerate() {
                    for (column, pair) in hits.forwards.iter().zip(&document.forward_column_values)
                    {
                        assert_eq!(column.name, pair.key);
                        let value = pair.value.clone().and_then(|value| value.value_oneof);
                        let expected = value.map(|value| match value {
                            ValueOneof::StringValue(text) => Kind::StringValue(text),
                            ValueOneof::Uint64Value(number) => Kind::Uint64Value(number),
                            other => panic!("nothing such was written: {other:?}"),
                        });
                        assert_eq!(column.values[position].kind, expected);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn forward_values_come_for_all_columns_for_those_named_or_not_at_all() {
    let served = Served::with_photos(20, &[]).await;
    let ask = async |forwards: Option<&[&str]>| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let forwards = forwards.map(|all| ForwardNames { names: names(all) });
        let reply = served.query(QueryRequest { forwards, ..nearest(&[4]) }).await;
        assert_eq!((reply.results[0].keys[0], reply.results[0].keys.len()), (4, 10));
        reply.results.into_iter().next().expect("one query vector")
    };
    let all = ask(None).await;
    let names: Vec<&str> = all.forwards.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["path", "size"]);
    assert_eq!(all.forwards[0].values[0].kind, Some(Kind::StringValue("4.jpg".into())));
    let sizes = all.keys.iter().map(|key| (key % 2 == 0).then_some(Kind::Uint64Value(*key)));
    assert!(sizes.eq(all.forwards[1].values.iter().map(|value| value.kind.clone())));

    let turned = ask(Some(&["size", "path"])).await;
    assert_eq!(turned.forwards, [all.forwards[1].clone(), all.forwards[0].clone()]);
    assert_eq!(ask(Some(&["size"])).await.forwards, [all.forwards[1].clone()]);
    assert_eq!(ask(Some(&[])).await.forwards, []);

    let unknown = ForwardNames { names: vec!["path".into(), "colour".into()] };
    let refused = served.refused(QueryRequest { forwards: Some(unknown), ..nearest(&[4]) }).await;
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("colour"), "{refused}");
    let twice = ForwardNames { names: vec!["path".into(), "path".into()] };
    let refused = served.refused(QueryRequest { forwards: Some(twice), ..nearest(&[4]) }).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("path"), "{refused}");
}

#[tokio::test]
async fn an_answer_says_whether_it_is_exact_of_how_many_rows_and_how_long_it_took() {
    let served = Served::with_photos(3_000, &GRAPHS).await;
    served.indexed().await;
    let by_graph = served.query(nearest(&[5])).await;
    assert!(!by_graph.exact && by_graph.rows == 3_000 && by_graph.elapsed_us > 0);
    assert!(by_graph.queue_us <= by_graph.elapsed_us);
    let recall = params(|p| p.recall_target = Some(1.0));
    let scanned = served.query(QueryRequest { params: recall, ..nearest(&[5]) }).await;
    assert!(scanned.exact && scanned.results[0].keys[0] == 5);
    let most = served.query(QueryRequest { topk: 2_000, ..nearest(&[5]) }).await;
    assert!(most.exact && most.results[0].keys.len() == 2_000);
    served
        .write(WriteRequest {
            collection: NAME.into(),
            keys: vec![5],
            operation: Operation::Delete as i32,
            ..Default::default()
        })
        .await;
    let without = served.query(nearest(&[5])).await;
    assert_eq!(without.rows, 2_999);
    assert!(!without.results[0].keys.contains(&5));
}

#[tokio::test]
async fn the_name_of_an_only_column_may_be_left_out() {
    let served = Served::with_photos(20, &[]).await;
    let mut unnamed = nearest(&[3]);
    unnamed.vectors.as_mut().expect("there are vectors").name.clear();
    assert_eq!(served.query(unnamed.clone()).await.results[0].keys[0], 3);
    served.create("two", &[("image", FP32), ("text", FP32)], &[]).await;
    unnamed.collection = "two".into();
    let refused = served.refused(unnamed).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    for word in ["image", "text"] {
        assert!(refused.message().contains(word), "{refused}");
    }
}

#[tokio::test]
async fn floats_are_taken_for_half_floats_and_nothing_else_is() {
    let served = Served::start(&[]).await;
    served.create(NAME, &[("h", FP16)], &[]).await;
    let keys = 0..10;
    let rows = WriteRequest {
        collection: NAME.into(),
        keys: keys.clone().collect(),
        operation: Operation::Insert as i32,
        vectors: vec![vectors("h", keys)],
        ..Default::default()
    };
    served.write(rows).await;
    let mut request = nearest(&[6, 2]);
    request.vectors.as_mut().expect("there are vectors").name = "h".into();
    let reply = served.query(request.clone()).await;
    let first: Vec<_> = reply.results.iter().map(|hits| (hits.keys[0], hits.scores[0])).collect();
    assert_eq!(first, [(6, 0.0), (2, 0.0)]);
    // The bytes of one FP32 vector are those of two FP16 vectors: only the type tells.
    request.vectors.as_mut().expect("there are vectors").element = ElementType::Fp16.into();
    assert_eq!(served.query(request.clone()).await.results.len(), 4);
    request.vectors.as_mut().expect("there are vectors").element = ElementType::Int16.into();
    let refused = served.refused(request).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("FP16") && refused.message().contains("INT16"), "{refused}");
}

#[tokio::test]
async fn nothing_to_ask_and_nothing_to_find_have_empty_answers() {
    let served = Served::with_photos(0, &[]).await;
    let reply = served.query(nearest(&[1, 2])).await;
    assert_eq!((reply.results.len(), reply.rows, reply.exact), (2, 0, true));
    assert!(reply.results.iter().all(|hits| hits.keys.is_empty() && hits.scores.is_empty()));
    served.insert(0..5).await;
    assert_eq!(served.query(nearest(&[])).await.results, []);
    let few = served.query(QueryRequest { topk: u32::MAX, ..nearest(&[1]) }).await;
    assert_eq!(few.results[0].keys.len(), 5);
    let near = QueryRequest { radius: Some(0.0), ..nearest(&[1]) };
    assert_eq!(served.query(near).await.results[0].keys, [1]);
}

#[tokio::test]
async fn a_radius_below_zero_holds_for_inner_products() {
    let served = Served::with_photos(20, &[]).await;
    let by_product = QueryRequest { metric: Metric::InnerProduct.into(), ..nearest(&[3]) };
    let all = served.query(by_product.clone()).await.results.remove(0);
    assert!(all.scores[4] < 0.0 && all.scores[4] < all.scores[5]);
    let within = QueryRequest { radius: Some(all.scores[4]), ..by_product };
    assert_eq!(served.query(within).await.results[0].keys, all.keys[..5]);
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_the_reason() {
    let served = Served::with_photos(20, &[]).await;
    let of = |change: &dyn Fn(&mut VectorColumn)| {
        let mut request = nearest(&[1]);
        change(request.vectors.as_mut().expect("there are vectors"));
        request
    };
    let with = |set: &dyn Fn(&mut SearchParams)| QueryRequest {
        params: params(|params| set(params)),
        ..nearest(&[1])
    };
    let number = |value: f32| {
        of(&|vectors| {
            let mut bytes = vectors.vectors.to_vec();
            bytes[8..12].copy_from_slice(&value.to_le_bytes());
            vectors.vectors = bytes.into();
        })
    };
    let long = "x".repeat(100_000);
    use Code::{InvalidArgument, NotFound};
    let cases: Vec<(QueryRequest, Code, &[&str])> = vec![
        (QueryRequest { collection: "nobody's".into(), ..nearest(&[1]) }, NotFound, &["nobody's"]),
        (QueryRequest { collection: String::new(), ..nearest(&[1]) }, NotFound, &[]),
        (QueryRequest { collection: long, ..nearest(&[1]) }, NotFound, &["xxx"]),
        (of(&|v| v.name = "w".into()), NotFound, &["\"w\"", NAME]),
        (QueryRequest { vectors: None, ..nearest(&[1]) }, InvalidArgument, &["query vectors"]),
        (of(&|v| v.vectors = v.vectors.slice(1..)), InvalidArgument, &["95", "96"]),
        (of(&|v| v.vectors = [&v.vectors[..], b"x"].concat().into()), InvalidArgument, &["97"]),
        (of(&|v| v.dimension = 0), InvalidArgument, &["dimension"]),
        (of(&|v| v.dimension = 12), InvalidArgument, &["dimension", "12", "24"]),
        (of(&|v| v.dimension = u32::MAX), InvalidArgument, &["dimension", "4294967295"]),
        (of(&|v| v.element = 0), InvalidArgument, &["FP32", "no element type"]),
        (of(&|v| v.element = 99), InvalidArgument, &["99"]),
        (of(&|v| v.element = ElementType::Fp16.into()), InvalidArgument, &["FP32", "FP16"]),
        (number(f32::NAN), InvalidArgument, &["NaN", "vector 0", "element 2"]),
        (number(f32::INFINITY), InvalidArgument, &["inf"]),
        (QueryRequest { topk: 0, ..nearest(&[1]) }, InvalidArgument, &["topk"]),
        (QueryRequest { radius: Some(f32::NAN), ..nearest(&[1]) }, InvalidArgument, &["radius"]),
        (QueryRequest { metric: 99, ..nearest(&[1]) }, InvalidArgument, &["99"]),
        (
            QueryRequest { metric: Metric::Hamming.into(), ..nearest(&[1]) },
            InvalidArgument,
            &["Hamming", "FP32"],
        ),
        (with(&|p| p.ef_search = Some(0)), InvalidArgument, &["ef_search is 0", "65536"]),
        (with(&|p| p.ef_search = Some(65_537)), InvalidArgument, &["ef_search is 65537"]),
        (with(&|p| p.nprobe = Some(0)), InvalidArgument, &["nprobe is 0", "65536"]),
        (with(&|p| p.nprobe = Some(65_537)), InvalidArgument, &["nprobe is 65537"]),
        (with(&|p| p.refine_k = Some(0.5)), InvalidArgument, &["refine_k is 0.5", "100"]),
        (with(&|p| p.refine_k = Some(f32::NAN)), InvalidArgument, &["refine_k is NaN"]),
        (with(&|p| p.recall_target = Some(0.0)), InvalidArgument, &["recall_target is 0"]),
        (with(&|p| p.recall_target = Some(1.5)), InvalidArgument, &["recall_target is 1.5"]),
        (with(&|p| p.recall_target = Some(f32::NAN)), InvalidArgument, &["recall_target is NaN"]),
        (
            with(&|p| (p.ef_search, p.recall_target) = (Some(10), Some(0.9))),
            InvalidArgument,
            &["ef_search", "recall_target", "exclude"],
        ),
    ];
    for (request, code, words) in cases {
        let refused = served.refused(request).await;
        assert_eq!(refused.code(), code, "{refused}");
        assert!(words.iter().all(|word| refused.message().contains(word)), "{words:?}: {refused}");
        assert!(refused.message().len() <= 1_024, "a caller's words come back in part");
    }
    // All of it left the connection, and the collection, as they were.
    assert_eq!(served.query(nearest(&[1])).await.results[0].keys[0], 1);
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_refused_with_the_setting() {
    let served = Served::with_photos(
        20,
        &[
            ("VOISIN__LIMITS__QUERY_VECTORS_MAX", "5"),
            ("VOISIN__LIMITS__QUERY_RESULTS_MAX", "60"),
            ("VOISIN__LIMITS__REPLY_BYTES_MAX", "65536"),
            ("VOISIN__LIMITS__MESSAGE_BYTES_MAX", "65536"),
        ],
    )
    .await;
    let none = || Some(ForwardNames::default());
    let beyond = async |request: QueryRequest, setting: &str| {
        let refused = served.refused(request).await;
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        assert!(refused.message().contains(setting), "{refused}");
    };
    let bare = |keys: &[u64], topk| QueryRequest { topk, forwards: none(), ..nearest(keys) };
    assert_eq!(served.query(bare(&[1, 2, 3], 20)).await.results.len(), 3);
    beyond(bare(&[1, 2, 3, 4], 20), "limits.query_results_max").await;
    beyond(bare(&[1, 2, 3, 4], u32::MAX), "limits.query_results_max").await;
    assert_eq!(served.query(bare(&[1, 2, 3, 4, 5], 1)).await.results.len(), 5);
    beyond(bare(&[1, 2, 3, 4, 5, 6], 1), "limits.query_vectors_max").await;
    for key in [1, 2] {
        let path = Value { kind: Some(Kind::StringValue("x".repeat(40_000))) };
        let update = WriteRequest {
            collection: NAME.into(),
            keys: vec![key],
            operation: Operation::Update as i32,
            vectors: vec![vectors("v", key..key + 1)],
            forwards: vec![ForwardColumn { name: "path".into(), values: vec![path] }],
            ..Default::default()
        };
        served.write(update).await;
    }
    beyond(QueryRequest { topk: 20, ..nearest(&[1]) }, "limits.reply_bytes_max").await;
    // Without these values the same hits are within the limit.
    let sizes = Some(ForwardNames { names: vec!["size".into()] });
    let slim = QueryRequest { topk: 20, forwards: sizes, ..nearest(&[1]) };
    assert_eq!(served.query(slim).await.results[0].keys.len(), 20);
    let keys: Vec<u64> = (0..1_000).collect();
    beyond(bare(&keys, 1), "limits.message_bytes_max").await;
}
