//! What `voisin.v1.Stats` promises, over the real port of the real program.

mod support;

use std::time::{Duration, Instant};

use futures::stream;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

use support::{PATIENCE, Server};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::voisin_client::VoisinClient;
use voisin::server::proto::voisin_v1::{
    BytesWritten, ElementType, Operation, StatsReply, StatsRequest, VectorColumn, WriteRequest,
};

const NAME: &str = "photos";
const DIMENSION: u32 = 40;

async fn start(folder: &TempDir) -> (Server, Channel) {
    let settings =
        [("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "500"), ("VOISIN__SEGMENT__SEAL_ROWS_MAX", "1000")];
    start_with(folder, &settings).await
}

async fn start_with(folder: &TempDir, settings: &[(&str, &str)]) -> (Server, Channel) {
    let server = Server::start_with(folder.path(), &["--durability", "process"], settings);
    let address = server.wait_for("ready")["grpc"].as_str().expect("an address").to_owned();
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    (server, endpoint.connect().await.expect("the server takes connections"))
}

async fn create(channel: &Channel) {
    let column = proxima::collection_config::IndexColumnParam {
        column_name: "v".into(),
        index_type: 1,
        data_type: 23,
        dimension: DIMENSION,
        extra_params: vec![],
    };
    let config = proxima::CollectionConfig {
        collection_name: NAME.into(),
        index_column_params: vec![column],
        ..Default::default()
    };
    let status = ProximaServiceClient::new(channel.clone()).create_collection(config).await;
    assert_eq!(status.expect("an answer").into_inner().reason, "Success");
}

async fn insert(channel: &Channel, keys: std::ops::Range<u64>) {
    let numbers = keys.clone().flat_map(|key| {
        (0..u64::from(DIMENSION)).map(move |i| ((key * 31 + i * i * 7) % 101) as f32)
    });
    let vectors: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let request = WriteRequest {
        collection: NAME.into(),
        keys: keys.collect(),
        operation: Operation::Insert as i32,
        vectors: vec![VectorColumn {
            name: "v".into(),
            element: ElementType::Fp32 as i32,
            dimension: DIMENSION,
            vectors: vectors.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let stream = VoisinClient::new(channel.clone()).write_stream(stream::iter([request])).await;
    let ack = stream.expect("the stream opens").into_inner().message().await;
    let ack = ack.expect("the stream goes on").expect("an acknowledgement");
    assert_eq!((ack.status, ack.failures.len()), (None, 0));
}

async fn stats(channel: &Channel) -> StatsReply {
    let request = StatsRequest { collection: NAME.into() };
    VoisinClient::new(channel.clone()).stats(request).await.expect("an answer").into_inner()
}

#[tokio::test]
async fn rows_memory_and_indexing_are_told() {
    let folder = TempDir::new().expect("temp dir");
    let (_server, channel) = start(&folder).await;
    create(&channel).await;
    insert(&channel, 0..300).await;
    let growing = stats(&channel).await;
    let memory = growing.memory.expect("memory");
    assert_eq!((growing.rows, growing.indexing.expect("indexing").rows_waiting), (300, 300));
    assert!(memory.growing >= 300 * 4 * u64::from(DIMENSION) && memory.keys > 0, "{memory:?}");
    let server = growing.server_memory.expect("the server's memory");
    assert!(server.limit > 0 && server.resident >= server.anonymous, "{server:?}");
    assert!(!cfg!(target_os = "linux") || server.anonymous > memory.total, "{server:?}");

    insert(&channel, 300..4_000).await;
    let started = Instant::now();
    let done = loop {
        let now = stats(&channel).await;
        let indexing = now.indexing.expect("indexing");
        assert!(indexing.rows_linked <= indexing.rows_linking && indexing.seconds_left >= 0.0);
        if indexing.rows_waiting == 0 && indexing.rows_linking == 0 {
            break now;
        }
        assert!(started.elapsed() < PATIENCE, "indexing does not end: {now:?}");
        tokio::task::yield_now().await;
    };
    let memory = done.memory.expect("memory");
    assert_eq!(done.rows, 4_000);
    assert!(memory.codes >= 4_000 * u64::from(DIMENSION), "{memory:?}");
    assert!(memory.graphs >= 4_000 * 4 * 32 && memory.deletes >= 4_000 * 8, "{memory:?}");
    let searched = memory.growing + memory.codes + memory.graphs;
    assert_eq!(memory.total, searched + memory.keys + memory.deletes + memory.builds);
    assert!(done.file_bytes > 4_000 * 4 * u64::from(DIMENSION) && done.segments >= 1);
}

/// Waits until no row waits but for so many, and tells what was written.
async fn written_at_rest(channel: &Channel, waiting: u64) -> BytesWritten {
    let started = Instant::now();
    let mut before = None;
    loop {
        let now = stats(channel).await;
        let indexing = now.indexing.expect("indexing");
        let written = now.bytes_written.expect("bytes");
        let is_done = indexing.rows_waiting <= waiting && indexing.rows_linking == 0;
        if is_done && before == Some(written) {
            return written;
        }
        assert!(started.elapsed() < PATIENCE, "no rest: {now:?}");
        before = Some(written);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test]
async fn small_bursts_do_not_rewrite_what_is_large() {
    let folder = TempDir::new().expect("temp dir");
    let settings = [("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "5000")];
    let (_server, channel) = start_with(&folder, &settings).await;
    create(&channel).await;
    insert(&channel, 0..30_000).await;
    let loaded = written_at_rest(&channel, 0).await;
    assert!(loaded.by_callers >= 30_000 * 4 * u64::from(DIMENSION), "{loaded:?}");
    assert!(loaded.in_all >= 3 * loaded.by_callers && loaded.ratio < 12.0, "{loaded:?}");
    assert_eq!(loaded.ratio, loaded.in_all as f64 / loaded.by_callers as f64);
    for burst in 0..3 {
        let first = 100_000 + burst * 600;
        insert(&channel, first..first + 600).await;
        written_at_rest(&channel, 1_800).await;
    }
    let now = written_at_rest(&channel, 1_800).await;
    let (came, written) = (now.by_callers - loaded.by_callers, now.in_all - loaded.in_all);
    assert!(written < 12 * came, "{came} bytes were written {} times", written / came);
}

#[tokio::test]
async fn a_collection_that_does_not_exist_is_named() {
    let folder = TempDir::new().expect("temp dir");
    let (_server, channel) = start(&folder).await;
    let request = StatsRequest { collection: "nobody's".into() };
    let refused = VoisinClient::new(channel).stats(request).await.expect_err("no such collection");
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("nobody's"), "{refused}");
}
