//! The other end of the wire: a client of a running server in plain types, for commands that are
//! clients themselves.

mod collections;
mod pictures;
mod rows;

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};

use super::proto::proxima::proxima_service_client::ProximaServiceClient;
use super::proto::proxima::query_request::knn_query_param::FeaturesValue;
use super::proto::proxima::query_request::{KnnQueryParam, QueryParam};
use super::proto::proxima::{self, CollectionName, KeyValuePair, QueryRequest};
use super::proto::voisin_v1::{self, voisin_client::VoisinClient};
use crate::schema::Metric;

pub use collections::{Declaration, Described, ForwardInfo, TtlInfo, VectorInfo};
pub use pictures::{PictureBatch, PictureHits, PictureQuery, PictureTarget, PreparedPictures};
pub use rows::{
    Acknowledgement, ForwardBatch, PreparedWrite, Refusal, RowBatch, RowChoice, RowFailure,
    RowStream, VectorBatch, Writable, WriteStream,
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// States of a segment on the wire, from which on there is work under way for it.
const BUSY_STATES: [i32; 2] = [2, 3];

/// What went wrong, in words for people.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct ClientError {
    words: String,
    is_passing: bool,
}

type Result<T> = std::result::Result<T, ClientError>;

impl ClientError {
    pub(super) fn new(words: String) -> Self {
        ClientError { words, is_passing: false }
    }

    fn passing(words: String) -> Self {
        ClientError { words, is_passing: true }
    }

    /// True when the same call may succeed later: nothing answered, or the server is busy or stopping.
    pub fn is_passing(&self) -> bool {
        self.is_passing
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        use std::error::Error as _;
        use tonic::Code::{Aborted, Cancelled, ResourceExhausted, Unavailable, Unknown};
        let code = status.code();
        // A broken connection has a cause on this side; what a server says has none.
        let is_passing = status.source().is_some()
            || matches!(code, Aborted | Cancelled | ResourceExhausted | Unavailable | Unknown);
        ClientError { words: format!("{code}: {}", status.message()), is_passing }
    }
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub struct Client {
    proxima: ProximaServiceClient<Channel>,
    voisin: VoisinClient<Channel>,
}

/// A collection with one column of 32-bit floats, `v`.
#[derive(Debug, Clone)]
pub struct FloatCollection {
    /// Its name.
    pub name: String,
    /// The column's dimension.
    pub dimension: u32,
    /// The column's metric.
    pub metric: Metric,
    /// Further parameters of the column, such as `index_type`.
    pub params: Vec<(String, String)>,
}

/// What a segment holds, as far as the wire tells.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Rows ever inserted.
    pub rows: u64,
    /// True while it is being sealed or merged.
    pub is_busy: bool,
}

/// A query that is sent again and again.
#[derive(Debug, Clone)]
pub struct PreparedQuery(QueryRequest);

impl PreparedQuery {
    /// The `topk` nearest of one vector, little-endian floats.
    pub fn new(
        collection: &FloatCollection,
        vector: Bytes,
        topk: u32,
        params: &[(String, String)],
    ) -> Self {
        let knn = KnnQueryParam {
            column_name: COLUMN.into(),
            topk,
            batch_count: 1,
            dimension: collection.dimension,
            data_type: proxima::DataType::DtVectorFp32 as i32,
            features_value: Some(FeaturesValue::Features(vector)),
            extra_params: pairs(params),
            ..KnnQueryParam::default()
        };
        PreparedQuery(QueryRequest {
            collection_name: collection.name.clone(),
            query_param: Some(QueryParam::KnnParam(knn)),
            ..QueryRequest::default()
        })
    }
}

impl PreparedQuery {
    pub(super) fn encoded(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }
}

/// The name of the one column.
const COLUMN: &str = "v";

fn pairs(params: &[(String, String)]) -> Vec<KeyValuePair> {
    let pair =
        |(key, value): &(String, String)| KeyValuePair { key: key.clone(), value: value.clone() };
    params.iter().map(pair).collect()
}

fn check(status: Option<proxima::Status>) -> Result<()> {
    match status {
        Some(status) if status.code != 0 => {
            Err(ClientError::new(format!("{} ({})", status.reason, status.code)))
        }
        _ => Ok(()),
    }
}

/// The keys of an answer to one query vector, nearest first.
pub(super) fn keys_of(reply: proxima::QueryResponse) -> Result<Vec<u64>> {
    check(reply.status)?;
    let first = reply.results.into_iter().next();
    Ok(first.map_or_else(Vec::new, |result| {
        result.documents.iter().map(|document| document.primary_key).collect()
    }))
}

impl Client {
    /// Connects to `HOST:PORT`.
    pub async fn connect(address: &str) -> Result<Client> {
        let unreachable = |cause: tonic::transport::Error| {
            ClientError::passing(format!("no server answers at {address}: {cause}; is it running?"))
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|cause| ClientError::new(format!("{address} is not HOST:PORT: {cause}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Client {
            proxima: ProximaServiceClient::new(channel.clone())
                .max_decoding_message_size(usize::MAX),
            voisin: VoisinClient::new(channel)
                .max_decoding_message_size(usize::MAX)
                .max_encoding_message_size(usize::MAX),
        })
    }

    /// Creates a collection.
    pub async fn create(&mut self, collection: &FloatCollection) -> Result<()> {
        let mut params = vec![("metric_type".to_owned(), collection.metric.name().to_owned())];
        params.extend(collection.params.iter().cloned());
        let column = proxima::collection_config::IndexColumnParam {
            column_name: COLUMN.into(),
            index_type: 1,
            data_type: proxima::DataType::DtVectorFp32 as i32,
            dimension: collection.dimension,
            extra_params: pairs(&params),
        };
        let config = proxima::CollectionConfig {
            collection_name: collection.name.clone(),
            index_column_params: vec![column],
            ..Default::default()
        };
        check(Some(self.proxima.create_collection(config).await?.into_inner()))
    }

    /// Drops a collection.
    pub async fn drop_collection(&mut self, name: &str) -> Result<()> {
        let name = CollectionName { collection_name: name.into() };
        check(Some(self.proxima.drop_collection(name).await?.into_inner()))
    }

    /// Inserts rows over one stream, batch by batch: keys with their vectors' bytes. Calls
    /// `on_acknowledged` with the rows of each batch that came to be. Fails when any row does.
    pub async fn insert(
        &mut self,
        collection: &FloatCollection,
        batches: impl Iterator<Item = (Vec<u64>, Bytes)> + Send + 'static,
        mut on_acknowledged: impl FnMut(u64),
    ) -> Result<()> {
        let (name, dimension) = (collection.name.clone(), collection.dimension);
        let requests =
            batches.enumerate().map(move |(id, (keys, vectors))| voisin_v1::WriteRequest {
                request_id: id as u64,
                collection: name.clone(),
                keys,
                operation: voisin_v1::Operation::Insert as i32,
                vectors: vec![voisin_v1::VectorColumn {
                    name: COLUMN.into(),
                    element: voisin_v1::ElementType::Fp32 as i32,
                    dimension,
                    vectors,
                    ..Default::default()
                }],
                ..Default::default()
            });
        let stream = self.voisin.write_stream(tokio_stream::iter(requests)).await?;
        let mut acknowledgements = stream.into_inner();
        while let Some(acknowledgement) = acknowledgements.next().await {
            let acknowledgement = acknowledgement?;
            if let Some(status) = acknowledgement.status {
                return Err(ClientError::new(status.message));
            }
            if let Some(failure) = acknowledgement.failures.first() {
                return Err(ClientError::new(format!("key {}: {}", failure.key, failure.message)));
            }
            on_acknowledged(acknowledgement.rows_applied);
        }
        Ok(())
    }

    /// The keys of the nearest rows, nearest first.
    pub async fn query(&mut self, query: &PreparedQuery) -> Result<Vec<u64>> {
        keys_of(self.proxima.query(query.0.clone()).await?.into_inner())
    }

    /// How far a collection's indexing is, in words.
    pub async fn progress(&mut self, name: &str) -> Result<String> {
        let request = voisin_v1::StatsRequest { collection: name.into() };
        let reply = self.voisin.stats(request).await?.into_inner();
        let indexing = reply.indexing.unwrap_or_default();
        Ok(format!(
            "{} rows wait; {} of {} linked, {:.0} s left",
            indexing.rows_waiting,
            indexing.rows_linked,
            indexing.rows_linking,
            indexing.seconds_left
        ))
    }

    /// The segments of a collection.
    pub async fn segments(&mut self, name: &str) -> Result<Vec<Segment>> {
        let name = CollectionName { collection_name: name.into() };
        let reply = self.proxima.stats_collection(name).await?.into_inner();
        check(reply.status)?;
        let stats = reply.collection_stats.map(|stats| stats.segment_stats).unwrap_or_default();
        let segment = |stats: &proxima::collection_stats::SegmentStats| Segment {
            rows: stats.doc_count,
            is_busy: BUSY_STATES.contains(&stats.state),
        };
        Ok(stats.iter().map(segment).collect())
    }
}
