//! What `voisin.v1.WriteStream` promises, over the real port of the real program: order, refusals,
//! back-pressure, hang-ups, crashes; and that the services around it answer.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code as Grpc, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::v1 as reflection;
use tower::{Service, ServiceExt};

use support::{PATIENCE, Server, text, voisin};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::voisin_client::VoisinClient;
use voisin::server::proto::voisin_v1::{
    Code, ElementType, ForwardColumn, LsnContext, Operation, RowFailureCode, Value, VectorColumn,
    WriteAck, WriteRequest, value::Kind,
};

use proxima::collection_config::{IndexColumnParam, RepositoryConfig, repository_config};
use proxima::generic_value::ValueOneof;
use proxima::query_request::{KnnQueryParam, QueryParam, knn_query_param::FeaturesValue};

/// The collection of most tests: column `v` of two FP32 elements, forward column `a`.
const NAME: &str = "photos";

/// A stop that waits for its own timeout takes longer than our patience.
const NO_STOP_TIMEOUT: (&str, &str) = ("VOISIN__SERVER__STOP_TIMEOUT_MS", "600000");

/// Element types by their numbers in the compatible contract.
const FP32: i32 = 23;

// ----- the server -----

/// A server with its folder and a connection.
struct Served {
    channel: Channel,
    address: String,
    server: Server,
    folder: TempDir,
}

impl Served {
    async fn start(settings: &[(&str, &str)]) -> Served {
        Served::start_on(TempDir::new().expect("temp dir"), "process", settings).await
    }

    async fn start_on(folder: TempDir, durability: &str, settings: &[(&str, &str)]) -> Served {
        let server = Server::start_with(folder.path(), &["--durability", durability], settings);
        let address = server.wait_for("ready")["grpc"].as_str().expect("an address").to_owned();
        Served { channel: connect(&address).await, address, server, folder }
    }

    /// The server with [`NAME`] in it.
    async fn with_photos(settings: &[(&str, &str)]) -> Served {
        let served = Served::start(settings).await;
        served.create(collection(NAME)).await;
        served
    }

    /// Ends the process as `kill -9` does, and starts it again on the same folder.
    async fn kill_and_restart(mut self, durability: &str) -> Served {
        self.server.kill();
        Served::start_on(self.folder, durability, &[]).await
    }

    /// Asks the process to stop.
    fn ask_to_stop(&self) {
        self.server.signal("TERM");
    }

    /// Waits for the clean end of a process that was asked to stop, and hands its folder on. Our
    /// connection lives on meanwhile, as any caller's would: the server's farewell needs an answer.
    async fn stopped(self) -> TempDir {
        let Served { mut server, folder, channel, .. } = self;
        let ended = tokio::task::spawn_blocking(move || server.wait());
        assert_eq!(ended.await.expect("the server ends").code(), Some(0));
        drop(channel);
        folder
    }

    fn proxima(&self) -> ProximaServiceClient<Channel> {
        ProximaServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    fn stream_client(&self) -> VoisinClient<Channel> {
        stream_client(self.channel.clone())
    }

    async fn create(&self, config: proxima::CollectionConfig) {
        let status = self.proxima().create_collection(config).await.expect("an answer");
        assert_eq!(status.into_inner().reason, "Success");
    }

    async fn describe(&self, name: &str) -> proxima::CollectionInfo {
        let name = proxima::CollectionName { collection_name: name.into() };
        let answer = in_time(self.proxima().describe_collection(name)).await.expect("an answer");
        answer.into_inner().collection.expect("the collection is there")
    }

    /// Writes all requests over one stream; one acknowledgement each.
    async fn write_all(&self, requests: Vec<WriteRequest>) -> Vec<WriteAck> {
        let mut client = self.stream_client();
        let answer = in_time(client.write_stream(stream::iter(requests)));
        let mut acks = answer.await.expect("the stream opens").into_inner();
        let mut all = Vec::new();
        while let Some(ack) = in_time(acks.message()).await.expect("the stream ends well") {
            all.push(ack);
        }
        all
    }

    /// Writes one request over a stream of its own.
    async fn write(&self, request: WriteRequest) -> WriteAck {
        let mut acks = self.write_all(vec![request]).await;
        assert_eq!(acks.len(), 1);
        acks.remove(0)
    }

    /// The documents nearest to a vector, by exact search.
    async fn nearest(
        &self,
        name: &str,
        column: &str,
        data_type: i32,
        vector: &[u8],
        topk: u32,
    ) -> Vec<proxima::Document> {
        let knn = KnnQueryParam {
            column_name: column.into(),
            topk,
            features_value: Some(FeaturesValue::Features(Bytes::copy_from_slice(vector))),
            batch_count: 1,
            data_type,
            is_linear: true,
            ..Default::default()
        };
        let request = proxima::QueryRequest {
            collection_name: name.into(),
            query_param: Some(QueryParam::KnnParam(knn)),
            ..Default::default()
        };
        let answer = in_time(self.proxima().query(request)).await.expect("an answer").into_inner();
        assert_eq!(answer.status.expect("a status").reason, "Success");
        answer.results.into_iter().next().expect("one list").documents
    }

    /// All rows of a collection with column `v` of FP32: key and distance from the origin.
    async fn rows(&self, name: &str) -> BTreeMap<u64, f32> {
        let documents = self.nearest(name, "v", FP32, &floats(&[0.0, 0.0]), 1_000_000).await;
        documents.into_iter().map(|document| (document.primary_key, document.score)).collect()
    }

    /// The forward values of a key by column, or nothing when there is no such key.
    async fn forwards(&self, name: &str, key: u64) -> Option<BTreeMap<String, Option<ValueOneof>>> {
        let request = proxima::GetDocumentRequest {
            collection_name: name.into(),
            primary_key: key,
            debug_mode: false,
        };
        let answer = in_time(self.proxima().get_document_by_key(request)).await;
        let document = answer.expect("an answer").into_inner().document?;
        let pairs = document.forward_column_values.into_iter();
        Some(pairs.map(|pair| (pair.key, pair.value.expect("a value").value_oneof)).collect())
    }
}

async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the server takes connections")
}

fn stream_client(channel: Channel) -> VoisinClient<Channel> {
    VoisinClient::new(channel)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

/// Waits for something that must happen.
async fn in_time<F: Future>(waited_for: F) -> F::Output {
    tokio::time::timeout(PATIENCE, waited_for).await.expect("nothing happens")
}

/// A stream that is written request by request.
struct Writing {
    requests: mpsc::Sender<WriteRequest>,
    acks: Streaming<WriteAck>,
}

impl Writing {
    async fn open(mut client: VoisinClient<Channel>) -> Writing {
        let (requests, sent) = mpsc::channel(1);
        let answer = in_time(client.write_stream(ReceiverStream::new(sent))).await;
        Writing { requests, acks: answer.expect("the stream opens").into_inner() }
    }

    async fn send(&self, request: WriteRequest) {
        in_time(self.requests.send(request)).await.expect("the stream is open");
    }

    async fn ack(&mut self) -> WriteAck {
        let ack = in_time(self.acks.message()).await.expect("the stream goes on");
        ack.expect("an acknowledgement")
    }

    /// Sends one request and waits for what became of it.
    async fn write(&mut self, request: WriteRequest) -> WriteAck {
        self.send(request).await;
        self.ack().await
    }

    /// Closes our side; nothing more may come.
    async fn finish(mut self) {
        drop(self.requests);
        assert_eq!(in_time(self.acks.message()).await.expect("the stream ends well"), None);
    }
}

// ----- collections and requests -----

fn column(name: &str, data_type: i32, dimension: u32) -> IndexColumnParam {
    IndexColumnParam {
        column_name: name.into(),
        index_type: 1,
        data_type,
        dimension,
        extra_params: vec![],
    }
}

fn collection(name: &str) -> proxima::CollectionConfig {
    proxima::CollectionConfig {
        collection_name: name.into(),
        forward_column_names: vec!["a".into()],
        index_column_params: vec![column("v", FP32, 2)],
        ..Default::default()
    }
}

fn repository() -> RepositoryConfig {
    let database = repository_config::Database {
        connection_uri: "mysql://127.0.0.1:3306/shop".into(),
        table_name: "pictures".into(),
        user: "reader".into(),
        password: "secret".into(),
    };
    RepositoryConfig {
        repository_type: 0,
        repository_name: "mysql_repository".into(),
        entity: Some(repository_config::Entity::Database(database)),
    }
}

fn floats(numbers: &[f32]) -> Bytes {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A vector column of FP32.
fn vectors(name: &str, dimension: u32, numbers: &[f32]) -> VectorColumn {
    VectorColumn {
        name: name.into(),
        element: ElementType::Fp32.into(),
        dimension,
        vectors: floats(numbers),
        ..Default::default()
    }
}

fn forward(name: &str, kinds: Vec<Option<Kind>>) -> ForwardColumn {
    let values = kinds.into_iter().map(|kind| Value { kind }).collect();
    ForwardColumn { name: name.into(), values }
}

fn string(text: impl Into<String>) -> Option<Kind> {
    Some(Kind::StringValue(text.into()))
}

/// Rows for [`NAME`]: each key's vector is `(x, 0)` and its forward value its own number as text.
fn request(request_id: u64, operation: Operation, keys: &[u64], x: f32) -> WriteRequest {
    WriteRequest {
        request_id,
        collection: NAME.into(),
        keys: keys.to_vec(),
        operation: operation.into(),
        vectors: vec![vectors("v", 2, &[x, 0.0].repeat(keys.len()))],
        forwards: vec![forward("a", keys.iter().map(|key| string(key.to_string())).collect())],
        ..Default::default()
    }
}

fn insert(request_id: u64, keys: &[u64], x: f32) -> WriteRequest {
    request(request_id, Operation::Insert, keys, x)
}

/// An acknowledgement without a failure.
fn applied(request_id: u64, rows_applied: u64) -> WriteAck {
    WriteAck { request_id, rows_applied, ..Default::default() }
}

/// A message as gRPC frames it.
fn framed(request: &WriteRequest) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(request.encoded_len()).expect("a small message"));
    request.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

// ----- acknowledgements -----

#[tokio::test]
async fn every_request_is_acknowledged_once_in_the_order_sent() {
    let served = Served::with_photos(&[]).await;
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    let mut next_key = 0;
    for number in 0..400_u64 {
        // Large and small ones alternate, and neither ids nor keys need an order.
        let rows = 1 + number * 7 % 40;
        let request_id = (number * 7_919) % 400;
        let keys: Vec<u64> = (next_key..next_key + rows).rev().collect();
        next_key += rows;
        requests.push(insert(request_id, &keys, 1.0));
        expected.push(applied(request_id, rows));
    }
    assert_eq!(served.write_all(requests).await, expected);
    let stored: Vec<u64> = served.rows(NAME).await.into_keys().collect();
    assert_eq!(stored, (0..next_key).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_of_nothing_ends_without_an_acknowledgement() {
    let served = Served::with_photos(&[]).await;
    assert_eq!(served.write_all(vec![]).await, []);
}

#[tokio::test]
async fn requests_take_effect_in_the_order_sent() {
    let served = Served::with_photos(&[]).await;
    let mut requests = vec![insert(0, &[1], 0.0)];
    for number in 1..=200_u64 {
        let operation = match number % 3 {
            0 => Operation::Insert,
            1 => Operation::Update,
            _ => Operation::Delete,
        };
        requests.push(request(number, operation, &[1], number as f32));
    }
    // Insert, update, delete, insert, ...: each holds only where the one before it has happened.
    let expected: Vec<WriteAck> = (0..=200).map(|number| applied(number, 1)).collect();
    assert_eq!(served.write_all(requests).await, expected);
    assert_eq!(served.rows(NAME).await, BTreeMap::new());
}

#[tokio::test]
async fn an_acknowledged_row_is_found_by_the_next_query() {
    let served = Served::with_photos(&[]).await;
    let mut writing = Writing::open(served.stream_client()).await;
    for key in 0..60_u64 {
        let x = key as f32;
        assert_eq!(writing.write(insert(key, &[key], x)).await, applied(key, 1));
        let found = served.nearest(NAME, "v", FP32, &floats(&[x, 0.0]), 1).await;
        assert_eq!((found[0].primary_key, found[0].score), (key, 0.0));
        if key >= 10 {
            let gone = key - 10;
            let delete = request(key, Operation::Delete, &[gone], 0.0);
            assert_eq!(writing.write(delete).await, applied(key, 1));
            assert_eq!(served.forwards(NAME, gone).await, None);
        }
    }
    writing.finish().await;
    assert_eq!(
        served.rows(NAME).await.into_keys().collect::<Vec<_>>(),
        (50..60).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn streams_and_single_writes_go_side_by_side() {
    let served = Served::with_photos(&[]).await;
    let stream_of = |lane: u64| {
        let requests =
            (0..50).map(|n| insert(n, &[lane * 1_000 + n * 2, lane * 1_000 + n * 2 + 1], 1.0));
        served.write_all(requests.collect())
    };
    let mut single = served.proxima();
    let singly = async {
        for key in 9_000..9_030_u64 {
            let vector = ValueOneof::BytesValue(floats(&[1.0, 0.0]));
            let vector = proxima::GenericValue { value_oneof: Some(vector) };
            let row = proxima::write_request::Row {
                primary_key: key,
                index_column_values: Some(proxima::GenericValueList { values: vec![vector] }),
                ..Default::default()
            };
            let meta = proxima::write_request::IndexColumnMeta {
                column_name: "v".into(),
                data_type: FP32,
                dimension: 2,
            };
            let request = proxima::WriteRequest {
                collection_name: NAME.into(),
                row_meta: Some(proxima::write_request::RowMeta {
                    forward_column_names: vec![],
                    index_column_metas: vec![meta],
                }),
                rows: vec![row],
                ..Default::default()
            };
            let status = in_time(single.write(request)).await.expect("an answer").into_inner();
            assert_eq!(status.reason, "Success");
        }
    };
    let (a, b, c, ()) = tokio::join!(stream_of(1), stream_of(2), stream_of(3), singly);
    let expected: Vec<WriteAck> = (0..50).map(|n| applied(n, 2)).collect();
    assert!(a == expected && b == expected && c == expected);
    assert_eq!(served.rows(NAME).await.len(), 330);
}

#[tokio::test]
async fn compressed_requests_are_taken() {
    let served = Served::with_photos(&[]).await;
    let client = served.stream_client().send_compressed(CompressionEncoding::Gzip);
    let mut writing = Writing::open(client).await;
    let keys: Vec<u64> = (0..500).collect();
    assert_eq!(writing.write(insert(1, &keys, 1.0)).await, applied(1, 500));
    writing.finish().await;
}

// ----- rows that fail, requests that are refused -----

#[tokio::test]
async fn rows_that_fail_are_named_with_their_codes_and_the_others_stand() {
    let served = Served::with_photos(&[]).await;
    assert_eq!(served.write(insert(1, &[10, 20], 1.0)).await, applied(1, 2));

    let mixed = WriteRequest {
        operations: [
            Operation::Insert,
            Operation::Insert, // exists
            Operation::Update,
            Operation::Update, // missing
            Operation::Delete, // missing
            Operation::Insert,
            Operation::Insert, // exists since the row above
            Operation::Delete,
            Operation::Insert,
        ]
        .map(i32::from)
        .to_vec(),
        ..insert(2, &[30, 10, 20, 40, 50, 60, 60, 30, 30], 2.0)
    };
    let ack = served.write(mixed).await;
    assert_eq!((ack.request_id, ack.rows_applied, ack.status), (2, 5, None));
    let failures: Vec<_> = ack.failures.iter().map(|f| (f.row, f.key, f.code())).collect();
    let expected = [
        (1, 10, RowFailureCode::DuplicateKey),
        (3, 40, RowFailureCode::KeyNotFound),
        (4, 50, RowFailureCode::KeyNotFound),
        (6, 60, RowFailureCode::DuplicateKey),
    ];
    assert_eq!(failures, expected);
    assert!(ack.failures.iter().all(|failure| !failure.message.is_empty()));
    let rows = served.rows(NAME).await;
    assert_eq!(rows, BTreeMap::from([(10, 1.0), (20, 4.0), (30, 4.0), (60, 4.0)]));
}

#[tokio::test]
async fn a_refused_request_says_why_changes_nothing_and_does_not_end_the_stream() {
    let served = Served::with_photos(&[("VOISIN__LIMITS__WRITE_ROWS_MAX", "100")]).await;
    let good = || insert(0, &[1, 2], 1.0);
    let with_vectors = |column: VectorColumn| WriteRequest { vectors: vec![column], ..good() };
    let with_forward = |column: ForwardColumn| WriteRequest { forwards: vec![column], ..good() };
    let nan = f32::NAN;
    let lsn = LsnContext { lsn: 1, context: String::new() };
    use Code::{InvalidArgument, NotFound, OutOfRange};
    let cases = [
        (WriteRequest { collection: "absent".into(), ..good() }, NotFound, "absent"),
        (with_vectors(vectors("w", 2, &[1.0; 4])), NotFound, "\"w\""),
        (with_forward(forward("b", vec![None, None])), NotFound, "\"b\""),
        (WriteRequest { operation: 0, ..good() }, InvalidArgument, "operation"),
        (WriteRequest { operation: 77, ..good() }, InvalidArgument, "77"),
        (WriteRequest { operations: vec![1], ..good() }, InvalidArgument, "1 operations"),
        (WriteRequest { keys: vec![], ..insert(0, &[], 1.0) }, InvalidArgument, "no rows"),
        (WriteRequest { keys: vec![1, u64::MAX], ..good() }, InvalidArgument, "row 1"),
        (WriteRequest { vectors: vec![], ..good() }, InvalidArgument, "row 0"),
        (with_vectors(vectors("v", 3, &[1.0; 6])), InvalidArgument, "dimension 2"),
        (with_vectors(vectors("v", 2, &[1.0; 3])), InvalidArgument, "12 bytes"),
        (with_vectors(vectors("v", u32::MAX, &[])), InvalidArgument, "\"v\""),
        (with_vectors(vectors("v", 2, &[1.0, 2.0, 3.0, nan])), InvalidArgument, "row 1"),
        (with_vectors(vectors("v", 2, &[1.0, f32::INFINITY, 3.0, 4.0])), InvalidArgument, "inf"),
        (
            with_vectors(VectorColumn { element: 0, ..vectors("v", 2, &[1.0; 4]) }),
            InvalidArgument,
            "\"v\"",
        ),
        (
            with_vectors(VectorColumn { element: 99, ..vectors("v", 2, &[1.0; 4]) }),
            InvalidArgument,
            "99",
        ),
        (
            with_vectors(VectorColumn {
                element: ElementType::Int8.into(),
                vectors: Bytes::from_static(&[1; 4]),
                ..vectors("v", 2, &[])
            }),
            InvalidArgument,
            "INT8",
        ),
        (
            WriteRequest { vectors: vec![vectors("v", 2, &[1.0; 4]); 2], ..good() },
            InvalidArgument,
            "index columns",
        ),
        (with_forward(forward("a", vec![None])), InvalidArgument, "1 values"),
        (WriteRequest { lsns: vec![lsn], ..good() }, InvalidArgument, "1 lsns"),
        (insert(0, &(0..101).collect::<Vec<_>>(), 1.0), OutOfRange, "limits.write_rows_max"),
    ];
    let mut writing = Writing::open(served.stream_client()).await;
    let mut stored = BTreeSet::new();
    for (number, (refused, code, words)) in cases.into_iter().enumerate() {
        let request_id = number as u64;
        let ack = writing.write(WriteRequest { request_id, ..refused }).await;
        let status =
            ack.status.clone().unwrap_or_else(|| panic!("case {number} is taken: {ack:?}"));
        assert_eq!(status.code(), code, "case {number}: {}", status.message);
        assert!(status.message.contains(words), "case {number}: {}", status.message);
        assert_eq!(WriteAck { status: None, ..ack }, applied(request_id, 0), "case {number}");

        let key = 1_000 + request_id;
        assert_eq!(writing.write(insert(request_id, &[key], 1.0)).await, applied(request_id, 1));
        stored.insert(key);
    }
    writing.finish().await;
    assert_eq!(served.rows(NAME).await.into_keys().collect::<BTreeSet<_>>(), stored);
}

#[tokio::test]
async fn a_refusal_does_not_hold_up_the_requests_around_it() {
    let served = Served::with_photos(&[]).await;
    let requests = (0..60_u64).map(|number| match number % 3 {
        0 => WriteRequest { collection: "absent".into(), ..insert(number, &[number], 1.0) },
        _ => insert(number, &[number], 1.0),
    });
    let acks = served.write_all(requests.collect()).await;
    for (number, ack) in acks.iter().enumerate() {
        assert_eq!(ack.request_id, number as u64);
        assert_eq!(ack.status.is_some(), number % 3 == 0, "{ack:?}");
    }
    assert_eq!(served.rows(NAME).await.len(), 40);
}

// ----- what rows hold -----

#[tokio::test]
async fn every_forward_kind_and_unset_values_come_back_as_sent() {
    let served = Served::start(&[]).await;
    served
        .create(proxima::CollectionConfig {
            forward_column_names: vec!["a".into(), "b".into()],
            ..collection(NAME)
        })
        .await;
    let kinds = vec![
        Some(Kind::BytesValue(Bytes::from_static(b"\0\xff"))),
        Some(Kind::StringValue("图片\0.jpg".into())),
        Some(Kind::BoolValue(false)),
        Some(Kind::Int32Value(i32::MIN)),
        Some(Kind::Int64Value(i64::MIN)),
        Some(Kind::Uint32Value(u32::MAX)),
        Some(Kind::Uint64Value(u64::MAX)),
        Some(Kind::FloatValue(f32::NEG_INFINITY)),
        Some(Kind::DoubleValue(-0.1)),
        // The empty value of a kind is not an unset one.
        Some(Kind::BytesValue(Bytes::new())),
        Some(Kind::StringValue(String::new())),
        Some(Kind::Int64Value(0)),
        None,
    ];
    let reversed: Vec<_> = kinds.iter().rev().cloned().collect();
    let keys: Vec<u64> = (0..kinds.len() as u64).collect();
    let rows = keys.len();
    let both = WriteRequest {
        forwards: vec![forward("b", reversed.clone()), forward("a", kinds.clone())],
        ..insert(1, &keys, 1.0)
    };
    assert_eq!(served.write(both).await, applied(1, rows as u64));

    let as_told = |kind: Option<Kind>| {
        kind.map(|kind| match kind {
            Kind::BytesValue(value) => ValueOneof::BytesValue(value),
            Kind::StringValue(value) => ValueOneof::StringValue(value),
            Kind::BoolValue(value) => ValueOneof::BoolValue(value),
            Kind::Int32Value(value) => ValueOneof::Int32Value(value),
            Kind::Int64Value(value) => ValueOneof::Int64Value(value),
            Kind::Uint32Value(value) => ValueOneof::Uint32Value(value),
            Kind::Uint64Value(value) => ValueOneof::Uint64Value(value),
            Kind::FloatValue(value) => ValueOneof::FloatValue(value),
            Kind::DoubleValue(value) => ValueOneof::DoubleValue(value),
        })
    };
    for ((key, a), b) in keys.iter().zip(kinds).zip(reversed) {
        let expected = BTreeMap::from([("a".to_owned(), as_told(a)), ("b".to_owned(), as_told(b))]);
        assert_eq!(served.forwards(NAME, *key).await, Some(expected), "key {key}");
    }

    // An update replaces the whole row: a column it does not name is unset from then on.
    let update = WriteRequest {
        forwards: vec![forward("b", vec![string("new")])],
        ..request(2, Operation::Update, &[1], 1.0)
    };
    assert_eq!(served.write(update).await, applied(2, 1));
    let new = Some(ValueOneof::StringValue("new".into()));
    let expected = BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), new)]);
    assert_eq!(served.forwards(NAME, 1).await, Some(expected));
}

#[tokio::test]
async fn a_request_writes_some_or_all_of_several_vector_columns() {
    let served = Served::start(&[]).await;
    let columns = vec![column("image", FP32, 2), column("text", FP32, 3), column("face", FP32, 1)];
    let config = proxima::CollectionConfig { index_column_params: columns, ..collection(NAME) };
    served.create(config).await;

    let write = |request_id, key: u64, columns: &[(&str, u32)]| WriteRequest {
        vectors: columns
            .iter()
            .map(|(name, dimension)| {
                vectors(name, *dimension, &vec![key as f32; *dimension as usize])
            })
            .collect(),
        ..insert(request_id, &[key], 0.0)
    };
    let requests = vec![
        write(0, 1, &[("image", 2), ("text", 3), ("face", 1)]),
        // In any order, and with any of them left out.
        write(1, 2, &[("face", 1), ("image", 2)]),
        write(2, 3, &[("text", 3)]),
    ];
    let expected: Vec<WriteAck> = (0..3).map(|request_id| applied(request_id, 1)).collect();
    assert_eq!(served.write_all(requests).await, expected);

    for (name, dimension, held) in
        [("image", 2, &[1, 2][..]), ("text", 3, &[1, 3]), ("face", 1, &[1, 2])]
    {
        let origin = floats(&vec![0.0; dimension]);
        let found = served.nearest(NAME, name, FP32, &origin, 10).await;
        let keys: Vec<u64> = found.iter().map(|document| document.primary_key).collect();
        assert_eq!(keys, held, "{name}");
    }
}

#[tokio::test]
async fn every_element_type_is_taken_as_it_lies_in_memory() {
    let served = Served::start(&[]).await;
    // Name, type here and in the compatible contract, dimension, two vectors far from each other.
    let halves = |numbers: &[f32]| -> Bytes {
        numbers.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect()
    };
    let types = [
        ("fp32", ElementType::Fp32, 23, 2, floats(&[1.0, 2.0]), floats(&[-9.0, 9.0])),
        ("fp16", ElementType::Fp16, 22, 2, halves(&[1.0, 2.0]), halves(&[-9.0, 9.0])),
        (
            "int8",
            ElementType::Int8,
            26,
            4,
            Bytes::from_static(&[1, 2, 3, 0xfc]),
            Bytes::from_static(&[9; 4]),
        ),
        (
            "int4",
            ElementType::Int4,
            25,
            4,
            Bytes::from_static(&[0x21, 0xf3]),
            Bytes::from_static(&[0x77; 2]),
        ),
        (
            "int16",
            ElementType::Int16,
            27,
            2,
            Bytes::from_static(&[1, 0, 0xff, 0xff]),
            Bytes::from_static(&[9; 4]),
        ),
        (
            "b32",
            ElementType::Binary32,
            20,
            32,
            Bytes::from_static(&[1; 4]),
            Bytes::from_static(&[0xf0; 4]),
        ),
        (
            "b64",
            ElementType::Binary64,
            21,
            64,
            Bytes::from_static(&[1; 8]),
            Bytes::from_static(&[0xf0; 8]),
        ),
    ];
    let columns =
        types.iter().map(|(name, _, number, dimension, ..)| column(name, *number, *dimension));
    let config =
        proxima::CollectionConfig { index_column_params: columns.collect(), ..collection(NAME) };
    served.create(config).await;

    let columns = types.iter().map(|(name, element, _, dimension, first, second)| VectorColumn {
        name: (*name).into(),
        element: (*element).into(),
        dimension: *dimension,
        vectors: [&first[..], second].concat().into(),
        ..Default::default()
    });
    let request = WriteRequest { vectors: columns.collect(), ..insert(1, &[1, 2], 0.0) };
    assert_eq!(served.write(request.clone()).await, applied(1, 2));
    for (name, _, number, _, first, second) in &types {
        for (key, vector) in [(1, first), (2, second)] {
            let found = served.nearest(NAME, name, *number, vector, 2).await;
            assert_eq!((found[0].primary_key, found[0].score), (key, 0.0), "{name}");
            assert!(found[1].score > 0.0, "{name}: {found:?}");
        }
    }

    // An FP16 column also takes FP32, and rounds.
    let mut rounded = request;
    rounded.keys = vec![3, 4];
    rounded.vectors[1] = vectors("fp16", 2, &[5.000_1, 6.0, -7.0, 8.0]);
    assert_eq!(served.write(rounded).await, applied(1, 2));
    let found = served.nearest(NAME, "fp16", 22, &halves(&[5.0, 6.0]), 1).await;
    assert_eq!((found[0].primary_key, found[0].score), (3, 0.0));
}

// ----- collections that follow a repository -----

#[tokio::test]
async fn a_repository_collection_needs_its_magic_number_and_an_lsn_for_every_row() {
    let served = Served::start(&[]).await;
    let config =
        proxima::CollectionConfig { repository_config: Some(repository()), ..collection(NAME) };
    served.create(config).await;
    let magic_number = served.describe(NAME).await.magic_number;
    let lsn = |lsn: u64| LsnContext { lsn, context: format!("binlog.{lsn}") };
    let at = |request: WriteRequest, lsns: &[u64]| WriteRequest {
        magic_number: Some(magic_number),
        lsns: lsns.iter().copied().map(lsn).collect(),
        ..request
    };

    let mut writing = Writing::open(served.stream_client()).await;
    let good = at(insert(1, &[1, 2], 1.0), &[1, 2]);
    let refused = [
        (WriteRequest { magic_number: None, ..good.clone() }, Code::FailedPrecondition, "magic"),
        (
            WriteRequest { magic_number: Some(magic_number ^ 1), ..good.clone() },
            Code::FailedPrecondition,
            "describe",
        ),
        (WriteRequest { lsns: vec![], ..good.clone() }, Code::InvalidArgument, "row 0"),
        (at(insert(1, &[1, 2], 1.0), &[1]), Code::InvalidArgument, "1 lsns"),
    ];
    for (request, code, words) in refused {
        let status = writing.write(request).await.status.expect("a refusal");
        assert_eq!(status.code(), code, "{}", status.message);
        assert!(status.message.contains(words), "{}", status.message);
    }
    assert_eq!(served.rows(NAME).await, BTreeMap::new());

    assert_eq!(writing.write(good).await, applied(1, 2));
    let update = at(request(2, Operation::Update, &[1, 2], 2.0), &[1, 3]);
    let ack = writing.write(update).await;
    assert_eq!((ack.rows_applied, ack.failures.len()), (1, 1));
    let failure = &ack.failures[0];
    assert_eq!((failure.row, failure.key, failure.code()), (0, 1, RowFailureCode::StaleLsn));
    let delete = at(request(3, Operation::Delete, &[2, 9], 0.0), &[4, 5]);
    let ack = writing.write(delete).await;
    assert_eq!((ack.rows_applied, ack.failures[0].code()), (1, RowFailureCode::KeyNotFound));
    writing.finish().await;

    assert_eq!(served.rows(NAME).await, BTreeMap::from([(1, 1.0)]));
    // Rows that failed have been seen all the same.
    let latest = served.describe(NAME).await.latest_lsn_context.expect("an lsn");
    assert_eq!((latest.lsn, latest.context.as_str()), (5, "binlog.5"));
}

#[tokio::test]
async fn other_collections_read_neither_magic_number_nor_lsns() {
    let served = Served::with_photos(&[]).await;
    let request = WriteRequest {
        magic_number: Some(77),
        lsns: vec![LsnContext { lsn: 5, context: "c".into() }],
        ..insert(1, &[1], 1.0)
    };
    assert_eq!(served.write(request).await, applied(1, 1));
    assert_eq!(served.describe(NAME).await.latest_lsn_context, None);
}

// ----- back-pressure -----

/// A request of 1 MiB of vectors.
const LARGE_ROWS: u64 = 2_048;
const LARGE_DIMENSION: u32 = 128;

/// What a caller lets the server send unread; HTTP/2's own default.
const CALLER_WINDOW_BYTES: u32 = 65_535;
/// What a stream of requests may have on its way unread by the server, in requests.
const SERVER_WINDOW_REQUESTS: u64 = 4;
/// Requests of a stream in progress, as the contract has it.
const IN_PROGRESS: u64 = 8;

#[tokio::test]
async fn a_caller_that_reads_no_acknowledgements_comes_to_a_halt() {
    let served = Served::start(&[]).await;
    let columns = vec![column("v", FP32, LARGE_DIMENSION)];
    served
        .create(proxima::CollectionConfig { index_column_params: columns, ..collection(NAME) })
        .await;
    let zeros = vec![0.0; (LARGE_ROWS * u64::from(LARGE_DIMENSION)) as usize];
    let large = WriteRequest {
        forwards: vec![],
        vectors: vec![vectors("v", LARGE_DIMENSION, &zeros)],
        ..insert(0, &(0..LARGE_ROWS).collect::<Vec<_>>(), 0.0)
    };
    // From now on each row but the first of a request fails, which makes acknowledgements large.
    let numbered = |number: u64| {
        let mut request = WriteRequest { request_id: number, ..large.clone() };
        request.keys[0] = 1_000_000 + number;
        request
    };
    const REQUESTS: u64 = 80;

    let endpoint = Channel::from_shared(format!("http://{}", served.address)).expect("an address");
    let endpoint = endpoint
        .initial_stream_window_size(CALLER_WINDOW_BYTES)
        .initial_connection_window_size(CALLER_WINDOW_BYTES);
    let channel = endpoint.connect().await.expect("the server takes connections");
    let mut writing = Writing::open(stream_client(channel)).await;
    assert_eq!(writing.write(large.clone()).await.rows_applied, LARGE_ROWS);
    let ack = writing.write(large.clone()).await;
    // Acknowledgements that are out without being read: those that fit the window, and one each
    // across its edge, in the encoder and in the connection. Beyond the requests they answer, eight
    // are in progress, and no other is applied.
    let unread = u64::from(CALLER_WINDOW_BYTES) / ack.encoded_len() as u64 + 3;
    let applied_max = unread + IN_PROGRESS;
    // Then those in the server's window and one at its edge, and in the caller's own hands: in the
    // channel, in the encoder and in the connection.
    let sent_max = applied_max + SERVER_WINDOW_REQUESTS + 1 + 3;
    assert!(sent_max < REQUESTS / 2, "too few requests to show a halt");

    let mut sent = 0;
    while sent < REQUESTS {
        // Nothing is waited for here but the halt itself: a server that reads on takes a request
        // in a few milliseconds.
        let moved =
            tokio::time::timeout(Duration::from_secs(2), writing.requests.send(numbered(sent)));
        match moved.await {
            Ok(taken) => taken.expect("the stream is open"),
            Err(_) => break,
        }
        sent += 1;
    }
    let origin = floats(&vec![0.0; LARGE_DIMENSION as usize]);
    let found = served.nearest(NAME, "v", FP32, &origin, 1_000_000).await;
    let applied = found.len() as u64 - LARGE_ROWS;
    assert!(
        applied <= applied_max,
        "{applied} requests were applied, at most {applied_max} expected"
    );
    assert!(sent <= sent_max, "{sent} requests were taken, at most {sent_max} expected");
    assert!(sent > 0 && applied > 0, "nothing was taken");

    // The server is not stuck, the stream is: others are served, and reading lets it go on.
    assert_eq!(served.describe(NAME).await.status, 1);
    let requests = writing.requests.clone();
    let rest = async {
        for number in sent..REQUESTS {
            in_time(requests.send(numbered(number))).await.expect("the stream is open");
        }
    };
    let acknowledged = async {
        for number in 0..REQUESTS {
            let ack = in_time(writing.acks.message()).await.expect("the stream goes on");
            let ack = ack.expect("an acknowledgement");
            assert_eq!((ack.request_id, ack.rows_applied), (number, 1));
            assert_eq!(ack.failures.len() as u64, LARGE_ROWS - 1);
        }
    };
    tokio::join!(rest, acknowledged);
    drop(requests);
    writing.finish().await;
}

// ----- hang-ups, crashes, stops -----

/// Rows of a request that must be there whole or not at all.
const WHOLE: u64 = 20;

/// The keys of one such request.
fn keys_of(number: u64) -> Vec<u64> {
    (0..WHOLE).map(|row| number * WHOLE + row).collect()
}

/// Which of the requests with [`keys_of`] are there. Fails where one is there in part.
async fn whole_requests(served: &Served) -> BTreeSet<u64> {
    let mut rows_of: BTreeMap<u64, u64> = BTreeMap::new();
    for document in served.nearest(NAME, "v", FP32, &floats(&[0.0, 0.0]), 1_000_000).await {
        let key = document.primary_key;
        *rows_of.entry(key / WHOLE).or_default() += 1;
        let value = document.forward_column_values.into_iter().next().and_then(|pair| pair.value);
        let value = value.and_then(|value| value.value_oneof);
        assert_eq!(value, Some(ValueOneof::StringValue(key.to_string())), "key {key}");
    }
    let parts: Vec<_> = rows_of.iter().filter(|(_, rows)| **rows != WHOLE).collect();
    assert!(parts.is_empty(), "requests that are there in part, with their rows: {parts:?}");
    rows_of.into_keys().collect()
}

/// Sends requests with [`keys_of`] from a task of its own, until there are no more or the stream is gone.
fn pump(requests: mpsc::Sender<WriteRequest>, numbers: std::ops::Range<u64>) {
    tokio::spawn(async move {
        for number in numbers {
            if requests.send(insert(number, &keys_of(number), 1.0)).await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test]
async fn a_hang_up_leaves_each_request_whole_or_absent() {
    let served = Served::with_photos(&[]).await;
    let mut acknowledged = BTreeSet::new();
    for (round, acks_read) in [0, 1, 3, 10, 40, 99].into_iter().enumerate() {
        let first = round as u64 * 100;
        // A connection of its own, so that dropping it hangs up on everything that is on its way.
        let client = stream_client(connect(&served.address).await);
        let mut writing = Writing::open(client).await;
        pump(writing.requests.clone(), first..first + 100);
        for number in first..first + acks_read {
            assert_eq!(writing.ack().await, applied(number, WHOLE));
            acknowledged.insert(number);
        }
        drop(writing);
        // What the server had read may still be at work; at no moment does any of it show in part.
        let whole = whole_requests(&served).await;
        assert!(whole.is_superset(&acknowledged), "lost: {:?}", acknowledged.difference(&whole));
    }

    let before = whole_requests(&served).await;
    let served = served.kill_and_restart("process").await;
    let whole = whole_requests(&served).await;
    assert!(whole.is_superset(&before), "lost: {:?}", before.difference(&whole));
}

/// A call whose body ends, or breaks, where `body` does; over when the server has answered to the end.
async fn raw_call(channel: &Channel, body: Vec<Result<Bytes, std::io::Error>>) {
    let body = axum::body::Body::from_stream(stream::iter(body));
    let request = http::Request::post("/voisin.v1.Voisin/WriteStream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .expect("a request");
    let mut channel = channel.clone();
    let channel = in_time(channel.ready()).await.expect("the connection stands");
    // A call that broke before there was an answer has none.
    if let Ok(answer) = in_time(channel.call(request)).await {
        let body = axum::body::Body::new(answer.into_body());
        let _ = in_time(axum::body::to_bytes(body, 1 << 20)).await;
    }
}

#[tokio::test]
async fn a_request_that_was_sent_in_part_is_absent() {
    let served = Served::with_photos(&[]).await;
    let (whole, half) =
        (framed(&insert(0, &keys_of(0), 1.0)), framed(&insert(1, &keys_of(1), 1.0)));
    for length in [1, 5, 6, half.len() / 2, half.len() - 1] {
        for breaks in [false, true] {
            let mut body = vec![Ok(whole.clone()), Ok(half.slice(..length))];
            if breaks {
                body.push(Err(std::io::Error::other("the caller is gone")));
            }
            raw_call(&served.channel, body).await;
            let seen = whole_requests(&served).await;
            assert!(
                seen.is_subset(&BTreeSet::from([0])),
                "{length} bytes, breaks: {breaks}: {seen:?}"
            );
        }
    }
    // The end of the body in the middle of a request did not take the one before it along.
    assert_eq!(whole_requests(&served).await, BTreeSet::from([0]));
    assert_eq!(served.write(insert(7, &keys_of(1), 1.0)).await, applied(7, WHOLE));
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_nothing_is_there_in_part() {
    for durability in ["process", "power"] {
        let folder = TempDir::new().expect("temp dir");
        let mut served = Served::start_on(folder, durability, &[]).await;
        served.create(collection(NAME)).await;
        let mut acknowledged = BTreeSet::new();
        for round in 0..3_u64 {
            let first = round * 400;
            let mut writing = Writing::open(served.stream_client()).await;
            pump(writing.requests.clone(), first..first + 400);
            for number in first..first + 10 + round * 30 {
                assert_eq!(writing.ack().await, applied(number, WHOLE));
                acknowledged.insert(number);
            }
            served.server.kill();
            // What is still on its way to us was acknowledged as well.
            while let Ok(Some(ack)) = in_time(writing.acks.message()).await {
                acknowledged.insert(ack.request_id);
            }
            served = Served::start_on(served.folder, durability, &[]).await;
            let whole = whole_requests(&served).await;
            assert!(
                whole.is_superset(&acknowledged),
                "lost: {:?}",
                acknowledged.difference(&whole)
            );
        }
        served.server.kill();
        let output =
            voisin().arg("verify").arg(served.folder.path()).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    }
}

#[tokio::test]
async fn a_stopping_server_acknowledges_what_it_read_and_ends_the_stream_with_unavailable() {
    let served = Served::with_photos(&[NO_STOP_TIMEOUT]).await;
    let mut writing = Writing::open(served.stream_client()).await;
    for number in 0..5 {
        assert_eq!(
            writing.write(insert(number, &keys_of(number), 1.0)).await,
            applied(number, WHOLE)
        );
    }
    served.ask_to_stop();
    let ended = in_time(writing.acks.message()).await.expect_err("the server stops");
    assert_eq!(ended.code(), Grpc::Unavailable, "{ended}");
    drop(writing);
    let served = Served::start_on(served.stopped().await, "process", &[]).await;
    assert_eq!(whole_requests(&served).await, (0..5).collect());
}

// ----- limits -----

#[tokio::test]
async fn an_oversized_message_ends_the_stream_and_the_words_name_the_setting() {
    let served = Served::with_photos(&[("VOISIN__LIMITS__MESSAGE_BYTES_MAX", "65536")]).await;
    let rows = |rows: u64| insert(1, &(10..10 + rows).collect::<Vec<_>>(), 1.0);
    // Just too large; much larger than what may be on its way at a time; large only when unpacked.
    for (oversized, is_compressed) in
        [(rows(5_000), false), (rows(500_000), false), (rows(5_000), true)]
    {
        let mut client = served.stream_client();
        if is_compressed {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let mut writing = Writing::open(client).await;
        let small = writing.write(request(0, Operation::Delete, &[1], 0.0)).await;
        assert_eq!(small.status, None);
        writing.send(oversized).await;
        let refused = in_time(writing.acks.message()).await.expect_err("the message is too large");
        assert_eq!(refused.code(), Grpc::OutOfRange, "{refused}");
        for words in ["limits.message_bytes_max", "65536 bytes"] {
            assert!(refused.message().contains(words), "{words} is not in {refused}");
        }
    }
    assert_eq!(served.rows(NAME).await, BTreeMap::new());
    assert_eq!(served.write(insert(2, &[1], 1.0)).await, applied(2, 1));
}

#[tokio::test]
async fn what_came_before_an_oversized_message_is_acknowledged() {
    let served = Served::with_photos(&[("VOISIN__LIMITS__MESSAGE_BYTES_MAX", "65536")]).await;
    let mut requests: Vec<_> =
        (0..20).map(|number| insert(number, &keys_of(number), 1.0)).collect();
    requests.push(insert(20, &(1_000..6_000).collect::<Vec<_>>(), 1.0));
    requests.push(insert(21, &keys_of(21), 1.0));
    let answer = in_time(served.stream_client().write_stream(stream::iter(requests))).await;
    let mut acks = answer.expect("the stream opens").into_inner();
    for number in 0..20 {
        let ack = in_time(acks.next()).await.expect("an answer").expect("an acknowledgement");
        assert_eq!(ack, applied(number, WHOLE));
    }
    let refused = in_time(acks.next()).await.expect("an answer").expect_err("it is too large");
    assert_eq!(refused.code(), Grpc::OutOfRange, "{refused}");
    assert_eq!(whole_requests(&served).await, (0..20).collect());
}

// ----- the services around it -----

/// What we need to know of a `google.protobuf.FileDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
}

#[tokio::test]
async fn reflection_lists_the_services_and_hands_out_their_contracts() {
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;

    let served = Served::start(&[]).await;
    let mut client =
        reflection::server_reflection_client::ServerReflectionClient::new(served.channel.clone());
    let symbols = [
        ("voisin.v1.Voisin.WriteStream", "voisin.v1"),
        ("voisin.v1.WriteAck", "voisin.v1"),
        ("voisin.v1.Voisin.Query", "voisin.v1"),
        ("voisin.v1.Hits", "voisin.v1"),
        ("proxima.be.proto.ProximaService", "proxima.be.proto"),
        ("grpc.health.v1.Health", "grpc.health.v1"),
    ];
    let mut questions = vec![MessageRequest::ListServices(String::new())];
    questions
        .extend(symbols.map(|(symbol, _)| MessageRequest::FileContainingSymbol(symbol.into())));
    let questions = questions.into_iter().map(|question| reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    });
    let questions: Vec<_> = questions.collect();
    let answer = in_time(client.server_reflection_info(stream::iter(questions))).await;
    let mut answers = answer.expect("the stream opens").into_inner();

    let first = in_time(answers.message()).await.expect("an answer").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
        panic!("no list of services: {first:?}");
    };
    let names: BTreeSet<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["proxima.be.proto.ProximaService", "voisin.v1.Voisin", "grpc.health.v1.Health"] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    for (symbol, package) in symbols {
        let answer = in_time(answers.message()).await.expect("an answer").expect("an answer");
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("no contract of {symbol}: {answer:?}");
        };
        let file = File::decode(&files.file_descriptor_proto[0][..]).expect("a descriptor");
        assert_eq!(file.package, package, "{symbol}");
    }
}

#[tokio::test]
async fn health_is_serving_for_every_service_and_ends_with_the_server() {
    let served = Served::start(&[NO_STOP_TIMEOUT]).await;
    let mut client = tonic_health::pb::health_client::HealthClient::new(served.channel.clone());
    for service in ["", "proxima.be.proto.ProximaService", "voisin.v1.Voisin"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let answer = in_time(client.check(request)).await.expect("an answer").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = tonic_health::pb::HealthCheckRequest { service: "voisin.v9.Voisin".into() };
    let refused = in_time(client.check(unknown)).await.expect_err("there is no such service");
    assert_eq!(refused.code(), Grpc::NotFound);

    let whole = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut watched = in_time(client.watch(whole)).await.expect("an answer").into_inner();
    let now = in_time(watched.message()).await.expect("an answer").expect("an answer");
    assert_eq!(now.status(), ServingStatus::Serving);
    served.ask_to_stop();
    // The last word is "not serving", and then the watch ends: an open one would hold up the stop.
    let mut last = None;
    while let Ok(Some(told)) = in_time(watched.message()).await {
        last = Some(told.status());
    }
    assert_eq!(last, Some(ServingStatus::NotServing));
    served.stopped().await;
}
