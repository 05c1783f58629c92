//! A server with a collection of pictures, over the real port: column `v` of FP32, forward columns `path`
//! and `size`.

use std::time::Instant;

use bytes::Bytes;
use futures::stream;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::{PATIENCE, Server};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::voisin_client::VoisinClient;
use voisin::server::proto::voisin_v1::{
    ElementType, ForwardColumn, Operation, StatsRequest, Value, VectorColumn, WriteRequest,
    value::Kind,
};

use proxima::collection_config::IndexColumnParam;

/// The collection of most tests: column `v` of FP32, forward columns `path` and `size`.
pub const NAME: &str = "photos";
pub const DIMENSION: u32 = 24;
/// Element types by their numbers in the compatible contract.
pub const FP16: i32 = 22;
pub const FP32: i32 = 23;

/// A server, and a connection to it.
pub struct Served {
    /// The connection.
    pub channel: Channel,
    /// The server.
    pub server: Server,
    /// The data folder.
    pub folder: TempDir,
}

impl Served {
    pub async fn start(settings: &[(&str, &str)]) -> Served {
        Served::open(TempDir::new().expect("temp dir"), settings).await
    }

    /// The same folder, served by another process.
    pub async fn restart(self) -> Served {
        let Served { channel, mut server, folder } = self;
        drop(channel);
        server.kill();
        Served::open(folder, &[]).await
    }

    async fn open(folder: TempDir, settings: &[(&str, &str)]) -> Served {
        let server = Server::start_with(folder.path(), &["--durability", "process"], settings);
        let address = server.wait_for("ready")["grpc"].as_str().expect("an address").to_owned();
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("the server takes connections");
        Served { channel, server, folder }
    }

    /// A server with `rows` rows in [`NAME`].
    pub async fn with_photos(rows: u64, settings: &[(&str, &str)]) -> Served {
        let served = Served::start(settings).await;
        served.create(NAME, &[("v", FP32)], &["path", "size"]).await;
        if rows > 0 {
            served.insert(0..rows).await;
        }
        served
    }

    pub fn voisin(&self) -> VoisinClient<Channel> {
        VoisinClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX)
    }

    pub async fn create(&self, name: &str, columns: &[(&str, i32)], forwards: &[&str]) {
        let column = |(name, data_type): &(&str, i32)| IndexColumnParam {
            column_name: (*name).into(),
            index_type: 1,
            data_type: *data_type,
            dimension: DIMENSION,
            extra_params: vec![],
        };
        let config = proxima::CollectionConfig {
            collection_name: name.into(),
            index_column_params: columns.iter().map(column).collect(),
            forward_column_names: forwards.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let mut client = ProximaServiceClient::new(self.channel.clone());
        let status = client.create_collection(config).await.expect("an answer").into_inner();
        assert_eq!(status.reason, "Success");
    }

    pub async fn write(&self, request: WriteRequest) {
        let stream = self.voisin().write_stream(stream::iter([request])).await;
        let ack = stream.expect("the stream opens").into_inner().message().await;
        let ack = ack.expect("the stream goes on").expect("an acknowledgement");
        assert_eq!((ack.status, ack.failures.len()), (None, 0));
    }

    /// Rows with their forward values: a path, and a size that every second row lacks.
    pub async fn insert(&self, keys: std::ops::Range<u64>) {
        let value = |kind| Value { kind };
        let path = |key| value(Some(Kind::StringValue(format!("{key}.jpg"))));
        let size = |key| value((key % 2 == 0).then_some(Kind::Uint64Value(key)));
        let column = |name: &str, values| ForwardColumn { name: name.into(), values };
        self.write(WriteRequest {
            collection: NAME.into(),
            keys: keys.clone().collect(),
            operation: Operation::Insert as i32,
            vectors: vec![vectors("v", keys.clone())],
            forwards: vec![
                column("path", keys.clone().map(path).collect()),
                column("size", keys.map(size).collect()),
            ],
            ..Default::default()
        })
        .await;
    }

    /// Waits until all rows are in graphs.
    pub async fn indexed(&self) {
        let started = Instant::now();
        loop {
            let request = StatsRequest { collection: NAME.into() };
            let reply = self.voisin().stats(request).await.expect("an answer").into_inner();
            let indexing = reply.indexing.expect("indexing");
            if indexing.rows_waiting == 0 && indexing.rows_linking == 0 {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "indexing does not end: {indexing:?}");
            tokio::task::yield_now().await;
        }
    }
}

pub fn vector(key: u64) -> impl Iterator<Item = f32> {
    (0..u64::from(DIMENSION)).map(move |i| ((key * 37 + i * i * 11 + key * i) % 103) as f32)
}

pub fn floats(keys: impl Iterator<Item = u64>) -> Bytes {
    keys.flat_map(vector).flat_map(f32::to_le_bytes).collect()
}

pub fn vectors(name: &str, keys: impl Iterator<Item = u64>) -> VectorColumn {
    let element = ElementType::Fp32.into();
    VectorColumn {
        name: name.into(),
        element,
        dimension: DIMENSION,
        vectors: floats(keys),
        counts: vec![],
    }
}
