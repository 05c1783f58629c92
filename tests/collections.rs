//! What the calls for collections promise, over the real port of the real program: declarations, their
//! changes under running writes and queries, other names, versions of rows, and conditions of writes.

mod support;

use std::collections::HashMap;

use tonic::Code;

use support::photos::{DIMENSION, NAME, Served, vectors};
use voisin::server::proto::voisin_v1::alter_collection_request::Expiry;
use voisin::server::proto::voisin_v1::{
    AliasChange, AlterCollectionRequest, ChangeAliasesRequest, CollectionInfo, CountRequest,
    CreateCollectionRequest, DescribeCollectionRequest, DropCollectionRequest, ElementType,
    ForwardColumn, ForwardColumnInfo, GetRequest, ListCollectionsRequest, Metric, Operation,
    ParamChange, QueryRequest, RowFailureCode, Ttl, Value, ValueType, VectorColumnInfo, WriteAck,
    WriteRequest, value::Kind,
};

fn forward(name: &str, value_type: ValueType) -> ForwardColumnInfo {
    ForwardColumnInfo { name: name.into(), r#type: value_type.into() }
}

fn declaration(name: &str) -> CreateCollectionRequest {
    CreateCollectionRequest {
        name: name.into(),
        vectors: vec![VectorColumnInfo {
            name: "v".into(),
            element: ElementType::Fp32.into(),
            dimension: DIMENSION,
            metric: Metric::Cosine.into(),
            params: HashMap::from([("ef_search".into(), "77".into())]),
        }],
        forwards: vec![forward("path", ValueType::Unspecified), forward("size", ValueType::Int64)],
        ..Default::default()
    }
}

fn values(name: &str, kinds: Vec<Option<Kind>>) -> ForwardColumn {
    let values = kinds.into_iter().map(|kind| Value { kind }).collect();
    ForwardColumn { name: name.into(), values }
}

fn rows(operation: Operation, keys: std::ops::Range<u64>) -> WriteRequest {
    WriteRequest {
        collection: NAME.into(),
        keys: keys.clone().collect(),
        operation: operation.into(),
        vectors: vec![vectors("v", keys)],
        ..Default::default()
    }
}

/// The calls of these tests, each by what it is asked.
struct Calls(Served);

impl Calls {
    async fn start(declared: CreateCollectionRequest) -> Calls {
        let settings = [("VOISIN__SEGMENT__SEAL_ROWS_MAX", "500")];
        let calls = Calls(Served::start(&settings).await);
        calls.0.voisin().create_collection(declared).await.expect("it is created");
        calls
    }

    async fn send(&self, request: WriteRequest) -> WriteAck {
        let stream = self.0.voisin().write_stream(futures::stream::iter([request])).await;
        let ack = stream.expect("the stream opens").into_inner().message().await;
        ack.expect("the stream goes on").expect("an acknowledgement")
    }

    async fn describe(&self, name: &str) -> CollectionInfo {
        let request = DescribeCollectionRequest { name: name.into() };
        self.0.voisin().describe_collection(request).await.expect("a description").into_inner()
    }

    async fn alter(&self, request: AlterCollectionRequest) -> CollectionInfo {
        self.0.voisin().alter_collection(request).await.expect("it is altered").into_inner()
    }

    async fn not_altered(&self, request: AlterCollectionRequest) -> (Code, String) {
        let status = self.0.voisin().alter_collection(request).await.expect_err("it is refused");
        (status.code(), status.message().to_owned())
    }

    async fn alias(&self, changes: &[(&str, &str)]) -> Result<HashMap<String, String>, Code> {
        let change = |(alias, collection): &(&str, &str)| AliasChange {
            alias: (*alias).into(),
            collection: (*collection).into(),
        };
        let request = ChangeAliasesRequest { changes: changes.iter().map(change).collect() };
        let reply = self.0.voisin().change_aliases(request).await;
        reply.map(|reply| reply.into_inner().aliases).map_err(|status| status.code())
    }

    async fn count(&self, collection: &str) -> Result<u64, Code> {
        let request = CountRequest { collection: collection.into(), ..Default::default() };
        let reply = self.0.voisin().count(request).await;
        reply.map(|reply| reply.into_inner().rows).map_err(|status| status.code())
    }

    /// The values of a forward column for keys.
    async fn values(&self, column: &str, keys: &[u64]) -> Vec<Option<Kind>> {
        let request =
            GetRequest { collection: NAME.into(), keys: keys.to_vec(), ..Default::default() };
        let rows = self.0.voisin().get(request).await.expect("rows").into_inner();
        assert_eq!(rows.keys, keys);
        let found = rows.forwards.into_iter().find(|forward| forward.name == column);
        found.expect("the column").values.into_iter().map(|value| value.kind).collect()
    }

    async fn version(&self, key: u64) -> u64 {
        match self.values("_version", &[key]).await[..] {
            [Some(Kind::Uint64Value(version))] => version,
            ref other => panic!("{other:?} is no version"),
        }
    }
}

fn failures(ack: &WriteAck) -> Vec<(u64, RowFailureCode)> {
    assert_eq!(ack.status, None);
    ack.failures.iter().map(|failure| (failure.key, failure.code())).collect()
}

#[tokio::test]
async fn a_collection_is_described_as_it_was_declared() {
    let calls = Calls::start(declaration(NAME)).await;
    let described = calls.describe(NAME).await;
    let declared = declaration(NAME);
    assert_eq!(described.name, NAME);
    assert_eq!((&described.vectors, &described.forwards), (&declared.vectors, &declared.forwards));
    assert_eq!((described.segment_rows_max, described.ttl, described.versions), (0, None, false));
    let request = ListCollectionsRequest {};
    let list = calls.0.voisin().list_collections(request).await.expect("a list").into_inner();
    assert_eq!((list.collections, list.unserved.len()), (vec![calls.describe(NAME).await], 0));

    let twice = calls.0.voisin().create_collection(declaration(NAME)).await;
    assert_eq!(twice.expect_err("it exists").code(), Code::AlreadyExists);
    let mut bad = declaration("bad");
    bad.vectors[0].params.insert("metric_type".into(), "Euclidean".into());
    let status = calls.0.voisin().create_collection(bad).await.expect_err("two metrics");
    assert!(status.message().contains("metric is set twice"), "{}", status.message());
    let mut bad = declaration("bad");
    bad.forwards.push(forward("size", ValueType::Float));
    let status = calls.0.voisin().create_collection(bad).await.expect_err("declared twice");
    assert!(status.message().contains("declared twice"), "{}", status.message());

    let request = DropCollectionRequest { name: NAME.into() };
    calls.0.voisin().drop_collection(request).await.expect("it is dropped");
    assert_eq!(calls.count(NAME).await, Err(Code::NotFound));
}

#[tokio::test]
async fn values_of_a_declared_type_are_of_that_type_or_refused() {
    let calls = Calls::start(declaration(NAME)).await;
    let write = |kinds: Vec<Option<Kind>>, keys: std::ops::Range<u64>| WriteRequest {
        forwards: vec![values("size", kinds)],
        ..rows(Operation::Insert, keys)
    };
    let kinds = vec![
        Some(Kind::Int32Value(-3)),
        Some(Kind::Uint64Value(1 << 62)),
        None,
        Some(Kind::Int64Value(9)),
    ];
    assert_eq!(failures(&calls.send(write(kinds, 0..4)).await), []);
    let stored = calls.values("size", &[0, 1, 2, 3]).await;
    let int64 = |number| Some(Kind::Int64Value(number));
    assert_eq!(stored, [int64(-3), int64(1 << 62), None, int64(9)]);
    for (kind, words) in [
        (Kind::Uint64Value(u64::MAX), "uint64 18446744073709551615"),
        (Kind::StringValue("7".into()), "string \"7\""),
        (Kind::DoubleValue(1.0), "double 1"),
        (Kind::BoolValue(true), "bool true"),
    ] {
        let refused = calls.send(write(vec![Some(kind)], 9..10)).await.status.expect("refused");
        let expected = format!("row 0: forward column \"size\" is int64, the value is {words}");
        assert!(refused.message.contains(&expected), "{}", refused.message);
    }
    assert_eq!(calls.count(NAME).await, Ok(4));
}

#[tokio::test]
async fn an_upsert_replaces_what_there_is_and_adds_what_there_is_not() {
    let calls = Calls::start(declaration(NAME)).await;
    assert_eq!(failures(&calls.send(rows(Operation::Insert, 0..3)).await), []);
    let size = values("size", (0..6).map(|n| Some(Kind::Int64Value(n))).collect());
    let upsert = WriteRequest { forwards: vec![size], ..rows(Operation::Upsert, 0..6) };
    assert_eq!(failures(&calls.send(upsert).await), []);
    let sizes = calls.values("size", &[0, 2, 5]).await;
    assert_eq!(sizes, [0, 2, 5].map(|n| Some(Kind::Int64Value(n))));
    assert_eq!(calls.count(NAME).await, Ok(6));
}

#[tokio::test]
async fn a_write_that_names_a_version_changes_that_version_only() {
    let calls = Calls::start(CreateCollectionRequest { versions: true, ..declaration(NAME) }).await;
    assert_eq!(failures(&calls.send(rows(Operation::Insert, 0..4)).await), []);
    let mut versions = Vec::new();
    for key in 0..4 {
        versions.push(calls.version(key).await);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let named =
        |operation, if_versions: Vec<u64>| WriteRequest { if_versions, ..rows(operation, 0..4) };
    let other = RowFailureCode::OtherVersion;
    // Two of four name the version that there is; 0 names none.
    let mixed = vec![versions[0], versions[1] + 100, 0, versions[0]];
    let ack = calls.send(named(Operation::Update, mixed)).await;
    assert_eq!(failures(&ack), [(1, other), (3, other)]);
    assert!(ack.failures[0].message.contains(&versions[1].to_string()), "{ack:?}");
    assert!(calls.version(0).await > versions[3] && calls.version(2).await > versions[3]);
    assert_eq!((calls.version(1).await, calls.version(3).await), (versions[1], versions[3]));
    // Whoever was second finds that he was.
    let first = calls.version(0).await;
    let only =
        |operation, version| WriteRequest { if_versions: vec![version], ..rows(operation, 0..1) };
    assert_eq!(failures(&calls.send(only(Operation::Upsert, first)).await), []);
    assert_eq!(failures(&calls.send(only(Operation::Upsert, first)).await), [(0, other)]);
    assert_eq!(failures(&calls.send(only(Operation::Delete, first)).await), [(0, other)]);
    let second = calls.version(0).await;
    assert_eq!(failures(&calls.send(only(Operation::Delete, second)).await), []);
    let missing = RowFailureCode::KeyNotFound;
    assert_eq!(failures(&calls.send(only(Operation::Upsert, second)).await), [(0, missing)]);
    // A key that comes back has a version that it never had.
    assert_eq!(failures(&calls.send(rows(Operation::Insert, 0..1)).await), []);
    assert!(calls.version(0).await > second);

    let refused = async |request: WriteRequest| {
        calls.send(request).await.status.expect("it is refused").message
    };
    let words = refused(only(Operation::Insert, 5)).await;
    assert!(words.contains("insert that names version 5"), "{words}");
    let words = refused(named(Operation::Update, vec![1])).await;
    assert!(words.contains("1 if_versions for 4 keys"), "{words}");
    let mut own = rows(Operation::Update, 0..1);
    own.forwards.push(values("_version", vec![Some(Kind::Uint64Value(1))]));
    let words = refused(own).await;
    assert!(words.contains("filled by the server"), "{words}");
}

#[tokio::test]
async fn versions_are_refused_where_there_are_none() {
    let calls = Calls::start(declaration(NAME)).await;
    let request = WriteRequest { if_versions: vec![3], ..rows(Operation::Update, 0..1) };
    let status = calls.send(request).await.status.expect("it is refused");
    assert!(status.message.contains("without versions"), "{}", status.message);
}

#[tokio::test]
async fn other_names_are_swapped_together_and_outlive_a_restart() {
    let mut calls = Calls::start(declaration("one")).await;
    calls.0.voisin().create_collection(declaration("two")).await.expect("it is created");
    let one = WriteRequest { collection: "one".into(), ..rows(Operation::Insert, 0..1) };
    assert_eq!(failures(&calls.send(one).await), []);
    let two = WriteRequest { collection: "two".into(), ..rows(Operation::Insert, 0..2) };
    assert_eq!(failures(&calls.send(two).await), []);

    calls.alias(&[("live", "one"), ("next", "two")]).await.expect("they are set");
    assert_eq!((calls.count("live").await, calls.count("next").await), (Ok(1), Ok(2)));
    calls.alias(&[("live", "two"), ("next", "one")]).await.expect("they are swapped");
    assert_eq!((calls.count("live").await, calls.count("next").await), (Ok(2), Ok(1)));
    let through = WriteRequest { collection: "live".into(), ..rows(Operation::Insert, 5..6) };
    assert_eq!(failures(&calls.send(through).await), []);
    assert_eq!(calls.count("two").await, Ok(3));
    assert_eq!(
        (calls.describe("live").await.name, calls.describe("two").await.aliases),
        ("two".into(), vec!["live".into()])
    );

    // All or none.
    let before = calls.alias(&[]).await.expect("they are told");
    assert_eq!(calls.alias(&[("live", "one"), ("next", "no")]).await, Err(Code::NotFound));
    assert_eq!(calls.alias(&[("live", "one"), ("gone", "")]).await, Err(Code::NotFound));
    assert_eq!(calls.alias(&[("one", "two")]).await, Err(Code::AlreadyExists));
    assert_eq!(calls.alias(&[("a/b", "two")]).await, Err(Code::InvalidArgument));
    assert_eq!(calls.alias(&[]).await, Ok(before.clone()));
    let taken = calls.0.voisin().create_collection(declaration("live")).await;
    assert_eq!(taken.expect_err("an alias has the name").code(), Code::AlreadyExists);
    let by_alias = DropCollectionRequest { name: "live".into() };
    let status = calls.0.voisin().drop_collection(by_alias).await.expect_err("it is an alias");
    assert!(status.message().contains("alias of collection \"two\""), "{}", status.message());

    calls.0 = calls.0.restart().await;
    assert_eq!(calls.alias(&[]).await, Ok(before));
    assert_eq!(calls.count("live").await, Ok(3));
    let two = DropCollectionRequest { name: "two".into() };
    calls.0.voisin().drop_collection(two).await.expect("it is dropped");
    let left = calls.alias(&[]).await.expect("they are told");
    assert_eq!(left, HashMap::from([("next".into(), "one".into())]));
}

#[tokio::test]
async fn columns_are_added_under_running_writes_and_queries() {
    let mut calls = Calls::start(declaration(NAME)).await;
    assert_eq!(failures(&calls.send(rows(Operation::Insert, 0..1_200)).await), []);
    let writer = async {
        let mut acknowledged = Vec::new();
        for key in 1_200..2_200 {
            let ack = calls.send(rows(Operation::Insert, key..key + 1)).await;
            match ack.status {
                None => acknowledged.push(key),
                Some(status) => assert!(status.message.contains("being altered"), "{status:?}"),
            }
        }
        acknowledged
    };
    let reader = async {
        for _ in 0..300 {
            let query = QueryRequest {
                collection: NAME.into(),
                vectors: Some(vectors("v", 50..51)),
                topk: 1,
                ..Default::default()
            };
            let reply = calls.0.voisin().query(query).await.expect("it is answered").into_inner();
            assert_eq!(reply.results[0].keys, [50]);
        }
    };
    let alterer = async {
        for number in 0..6 {
            let change = AlterCollectionRequest {
                name: NAME.into(),
                add_forwards: vec![forward(&format!("added {number}"), ValueType::String)],
                ..Default::default()
            };
            calls.alter(change).await;
        }
    };
    let (acknowledged, (), ()) = tokio::join!(writer, reader, alterer);
    assert_eq!(calls.count(NAME).await, Ok(1_200 + acknowledged.len() as u64));
    let text = |key: u64| Some(Kind::StringValue(format!("text {key}")));
    let added = values("added 3", (3_000..3_600).map(text).collect());
    let fresh = WriteRequest { forwards: vec![added], ..rows(Operation::Insert, 3_000..3_600) };
    assert_eq!(failures(&calls.send(fresh).await), []);
    for _ in 0..2 {
        let keys = [0, 1_199, 3_000, 3_599];
        let found = calls.values("added 3", &keys).await;
        assert_eq!(found, [None, None, text(3_000), text(3_599)]);
        let names: Vec<String> =
            calls.describe(NAME).await.forwards.into_iter().map(|forward| forward.name).collect();
        let added = (0..6).map(|number| format!("added {number}"));
        assert!(names[2..].iter().cloned().eq(added), "{names:?}");
        calls.0 = calls.0.restart().await;
    }
}

#[tokio::test]
async fn only_what_may_change_is_changed_and_all_of_it_or_nothing() {
    let calls = Calls::start(declaration(NAME)).await;
    let params = |name: &str, value: &str| {
        let params = HashMap::from([(name.to_owned(), value.to_owned())]);
        vec![ParamChange { column: "v".into(), params }]
    };
    let change =
        |params| AlterCollectionRequest { name: NAME.into(), params, ..Default::default() };
    let altered = calls.alter(change(params("ef_search", "99"))).await;
    assert_eq!(altered.vectors[0].params["ef_search"], "99");
    let altered = calls.alter(change(params("ef_search", ""))).await;
    assert_eq!(altered.vectors[0].params.get("ef_search"), None);
    let before = calls.describe(NAME).await;
    for (change, code, words) in [
        (change(params("metric_type", "Euclidean")), Code::InvalidArgument, "cannot be changed"),
        (change(params("ef_search", "lots")), Code::InvalidArgument, "ef_search"),
        (
            AlterCollectionRequest { name: "no".into(), ..change(vec![]) },
            Code::NotFound,
            "does not exist",
        ),
        (
            AlterCollectionRequest {
                add_forwards: vec![
                    forward("fine", ValueType::Int32),
                    forward("size", ValueType::Unspecified),
                ],
                ..change(params("ef_search", "50"))
            },
            Code::InvalidArgument,
            "declared twice",
        ),
        (
            AlterCollectionRequest {
                expiry: Some(Expiry::Ttl(Ttl { column: "no".into(), milliseconds: 1 })),
                ..change(vec![])
            },
            Code::NotFound,
            "\"no\" does not exist",
        ),
        (
            AlterCollectionRequest {
                expiry: Some(Expiry::Ttl(Ttl { column: "size".into(), milliseconds: 0 })),
                ..change(vec![])
            },
            Code::InvalidArgument,
            "after 0 milliseconds",
        ),
    ] {
        let (found, message) = calls.not_altered(change).await;
        assert!(found == code && message.contains(words), "{found:?} {message}");
    }
    assert_eq!(calls.describe(NAME).await, before);
}
