//! What `voisin.v1.Stats` says of memory adds up to what the system says the process takes.

mod support;

use std::time::{Duration, Instant};

use futures::stream;
use tempfile::TempDir;
use tonic::transport::Channel;

use support::Server;
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::voisin_client::VoisinClient;
use voisin::server::proto::voisin_v1::{
    ElementType, ForwardColumn, Operation, StatsReply, StatsRequest, Value, VectorColumn,
    WriteRequest, value::Kind,
};

const DIMENSION: u32 = 64;
const BATCH_ROWS: u64 = 1_000;
/// Collections with their rows and whether these have forward values, which lie in the forward store.
const COLLECTIONS: [(&str, u64, bool); 2] = [("plain", 120_000, false), ("named", 80_000, true)];
/// Linking so many rows takes its time in a debug build.
const PATIENCE: Duration = Duration::from_secs(300);

async fn start(folder: &TempDir) -> (Server, Channel) {
    let server = Server::start(folder.path(), &["--durability", "process"]);
    let address = server.wait_for("ready")["grpc"].as_str().expect("an address").to_owned();
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    (server, endpoint.connect().await.expect("the server takes connections"))
}

async fn create(channel: &Channel, name: &str, has_forwards: bool) {
    let pair =
        |(key, value): (&str, &str)| proxima::KeyValuePair { key: key.into(), value: value.into() };
    let column = proxima::collection_config::IndexColumnParam {
        column_name: "v".into(),
        index_type: 1,
        data_type: 23,
        dimension: DIMENSION,
        extra_params: [("max_neighbor_count", "8"), ("ef_construction", "16")].map(pair).into(),
    };
    let config = proxima::CollectionConfig {
        collection_name: name.into(),
        index_column_params: vec![column],
        forward_column_names: if has_forwards { vec!["path".into()] } else { vec![] },
        ..Default::default()
    };
    let status = ProximaServiceClient::new(channel.clone()).create_collection(config).await;
    assert_eq!(status.expect("an answer").into_inner().reason, "Success");
}

fn batch(name: &str, first: u64, has_forwards: bool) -> WriteRequest {
    let keys: Vec<u64> = (first..first + BATCH_ROWS).collect();
    let mut state = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let numbers = (0..BATCH_ROWS * u64::from(DIMENSION)).map(|_| random());
    let path = |key: &u64| Value { kind: Some(Kind::StringValue(format!("images/{key:08}.jpg"))) };
    let paths = ForwardColumn { name: "path".into(), values: keys.iter().map(path).collect() };
    WriteRequest {
        collection: name.into(),
        operation: Operation::Insert as i32,
        vectors: vec![VectorColumn {
            name: "v".into(),
            element: ElementType::Fp32.into(),
            dimension: DIMENSION,
            vectors: numbers.flat_map(f32::to_le_bytes).collect(),
            ..Default::default()
        }],
        forwards: if has_forwards { vec![paths] } else { vec![] },
        keys,
        ..Default::default()
    }
}

async fn stats(channel: &Channel, name: &str) -> StatsReply {
    let request = StatsRequest { collection: name.into() };
    VoisinClient::new(channel.clone()).stats(request).await.expect("an answer").into_inner()
}

/// The parts together as a share of the anonymous memory of the process, and both in words.
async fn share(channel: &Channel) -> (f64, String) {
    let mut collections = Vec::new();
    for (name, ..) in COLLECTIONS {
        collections.push(stats(channel, name).await.memory.expect("memory"));
    }
    let server = stats(channel, COLLECTIONS[0].0).await.server_memory.expect("server memory");
    let parts: u64 = collections.iter().map(|memory| memory.total).sum();
    let parts = parts + server.forward_store + server.allocator + server.base;
    let share = parts as f64 / server.anonymous as f64;
    (share, format!("share {share:.3}: {collections:?} {server:?}"))
}

#[tokio::test]
#[cfg_attr(not(target_os = "linux"), ignore = "the system does not tell")]
async fn the_parts_of_the_memory_are_its_whole_within_a_tenth() {
    let folder = TempDir::new().expect("temp dir");
    let (mut server, channel) = start(&folder).await;
    for (name, rows, has_forwards) in COLLECTIONS {
        create(&channel, name, has_forwards).await;
        let firsts = (0..rows).step_by(BATCH_ROWS as usize);
        let requests = firsts.map(move |first| batch(name, first, has_forwards));
        let stream = VoisinClient::new(channel.clone()).write_stream(stream::iter(requests)).await;
        let mut acks = stream.expect("the stream opens").into_inner();
        while let Some(ack) = acks.message().await.expect("the stream ends well") {
            assert_eq!((ack.status, ack.failures.len()), (None, 0));
        }
    }
    let started = Instant::now();
    for (name, rows, _) in COLLECTIONS {
        let mut builds = 0;
        let done = loop {
            let now = stats(&channel, name).await;
            let indexing = now.indexing.expect("indexing");
            let held = now.memory.expect("memory").builds;
            builds = builds.max(held);
            // What is made once rows are linked ends after that.
            if indexing.rows_waiting == 0 && indexing.rows_linking == 0 && held == 0 {
                break now;
            }
            assert!(started.elapsed() < PATIENCE, "indexing does not end: {now:?}");
            tokio::task::yield_now().await;
        };
        let memory = done.memory.expect("memory");
        assert_eq!(done.rows, rows, "{memory:?}");
        assert!(memory.graphs >= rows * 4 * 16 && memory.codes >= rows * u64::from(DIMENSION));
        assert!(name != "plain" || builds >= rows / 2 * 4 * 16, "{builds}");
    }
    let (whole, words) = share(&channel).await;
    assert!((0.9..=1.1).contains(&whole), "{words}");

    // Now hardly anything is left that the allocator is yet to give back: the parts stand for themselves.
    server.kill();
    let (_server, channel) = start(&folder).await;
    let (whole, words) = share(&channel).await;
    assert!((0.9..=1.1).contains(&whole), "after a restart: {words}");
}
