//! Rows as a client sees them: many batches written over one stream, and all rows read over one.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, ClientError, Result};
use crate::schema::{ElementType, Operation, Value};
use crate::server::convert;
use crate::server::proto::voisin_v1 as wire;

/// The vectors of one column of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorBatch {
    /// The column.
    pub name: String,
    /// The element type.
    pub element: ElementType,
    /// Elements of a vector.
    pub dimension: u32,
    /// All vectors, row after row.
    pub bytes: Bytes,
    /// Vectors of each row; empty where each row has one.
    pub counts: Vec<u32>,
}

/// The values of one forward column of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardBatch {
    /// The column.
    pub name: String,
    /// As many as there are rows.
    pub values: Vec<Option<Value>>,
}

/// Rows, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowBatch {
    /// The primary keys.
    pub keys: Vec<u64>,
    /// Vector columns.
    pub vectors: Vec<VectorBatch>,
    /// Forward columns.
    pub forwards: Vec<ForwardBatch>,
}

/// A batch that can be written more than once.
#[derive(Debug, Clone)]
pub struct PreparedWrite(wire::WriteRequest);

impl PreparedWrite {
    /// A batch whose rows all do the same.
    pub fn new(collection: &str, operation: Operation, batch: RowBatch) -> Self {
        let vectors = batch.vectors.into_iter().map(|column| wire::VectorColumn {
            name: column.name,
            element: convert::element_type(column.element).into(),
            dimension: column.dimension,
            vectors: column.bytes,
            counts: column.counts,
        });
        let forwards = batch.forwards.into_iter().map(|column| wire::ForwardColumn {
            name: column.name,
            values: column.values.into_iter().map(convert::wire_value).collect(),
        });
        PreparedWrite(wire::WriteRequest {
            collection: collection.to_owned(),
            keys: batch.keys,
            operation: convert::operation_type(operation).into(),
            vectors: vectors.collect(),
            forwards: forwards.collect(),
            ..Default::default()
        })
    }

    /// Its rows.
    pub fn len(&self) -> usize {
        self.0.keys.len()
    }

    /// True when it has no rows.
    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }
}

/// A row that was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFailure {
    /// Its place in the batch.
    pub row: usize,
    /// Its key.
    pub key: u64,
    /// True when the key was there already.
    pub is_duplicate: bool,
    /// Why, in the server's words.
    pub why: String,
}

/// A batch that was not written, none of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// True when the same batch may be taken later: the server is busy, or about to stop.
    pub is_passing: bool,
    /// Why, in the server's words.
    pub why: String,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Rows that were not written.
    pub failures: Vec<RowFailure>,
    /// Set when none were.
    pub refusal: Option<Refusal>,
}

/// What a stream writes.
pub trait Writable: std::fmt::Debug + Clone + Send + Sized + 'static {
    /// Opens a stream that takes so many batches before it waits.
    fn open(
        client: &mut Client,
        batches: usize,
    ) -> impl Future<Output = Result<WriteStream<Self>>> + Send;
}

impl Writable for PreparedWrite {
    async fn open(client: &mut Client, batches: usize) -> Result<WriteStream<Self>> {
        let (requests, receiver) = mpsc::channel(batches);
        let sent = ReceiverStream::new(receiver).map(|prepared: PreparedWrite| prepared.0);
        let stream = client.voisin.write_stream(sent).await?;
        Ok(WriteStream::new(requests, stream.into_inner()))
    }
}

/// A stream of batches that are being written. It is acknowledged in the order sent.
#[derive(Debug)]
pub struct WriteStream<W> {
    requests: mpsc::Sender<W>,
    acknowledgements: Streaming<wire::WriteAck>,
}

impl<W: Writable> WriteStream<W> {
    pub(super) fn new(
        requests: mpsc::Sender<W>,
        acknowledgements: Streaming<wire::WriteAck>,
    ) -> Self {
        WriteStream { requests, acknowledgements }
    }

    /// Waits while as many batches are on their way as the stream was opened for.
    pub async fn ready(&self) {
        // A stream that has ended says so where it is read.
        let _ = self.requests.reserve().await;
    }

    /// Sends a batch, for which [`WriteStream::ready`] has found room; what the server does not take is
    /// told by [`WriteStream::next`].
    pub fn send(&self, write: &W) {
        let _ = self.requests.try_send(write.clone());
    }

    /// What became of the oldest batch that this was not told of. Fails when the stream has broken or
    /// ended: batches that were not acknowledged may have been written or not.
    pub async fn next(&mut self) -> Result<Acknowledgement> {
        let ended = || ClientError::passing("the stream ended".to_owned());
        let ack = self.acknowledgements.message().await?.ok_or_else(ended)?;
        let failure = |failure: wire::RowFailure| RowFailure {
            row: failure.row as usize,
            key: failure.key,
            is_duplicate: failure.code() == wire::RowFailureCode::DuplicateKey,
            why: failure.message,
        };
        let refusal = ack.status.map(|status| Refusal {
            is_passing: matches!(
                status.code(),
                wire::Code::ResourceExhausted | wire::Code::Unavailable
            ),
            why: status.message,
        });
        Ok(Acknowledgement { failures: ack.failures.into_iter().map(failure).collect(), refusal })
    }
}

/// Which rows are read, and which of their columns.
#[derive(Debug, Clone, Default)]
pub struct RowChoice {
    /// The collection.
    pub collection: String,
    /// An expression that rows must meet; none for all.
    pub filter: Option<String>,
    /// The forward columns; none for all.
    pub forwards: Option<Vec<String>>,
    /// The vector columns.
    pub vectors: Vec<String>,
}

/// All rows of one moment in key order.
#[derive(Debug)]
pub struct RowStream(Streaming<wire::Rows>);

impl RowStream {
    /// The next rows; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<RowBatch>> {
        let Some(rows) = self.0.message().await? else { return Ok(None) };
        let mut vectors = Vec::new();
        for column in rows.vectors {
            let element = convert::known_element(column.element);
            let unknown = |words| ClientError::new(format!("the server answers with {words}"));
            vectors.push(VectorBatch {
                name: column.name,
                element: element.map_err(unknown)?,
                dimension: column.dimension,
                bytes: column.vectors,
                counts: column.counts,
            });
        }
        let forward = |column: wire::ForwardColumn| ForwardBatch {
            name: column.name,
            values: column.values.into_iter().map(convert::native_value).collect(),
        };
        let forwards = rows.forwards.into_iter().map(forward).collect();
        Ok(Some(RowBatch { keys: rows.keys, vectors, forwards }))
    }
}

impl Client {
    /// Reads rows.
    pub async fn read(&mut self, choice: &RowChoice) -> Result<RowStream> {
        let request = wire::ReadRequest {
            collection: choice.collection.clone(),
            filter: choice.filter.clone().unwrap_or_default(),
            forwards: choice.forwards.clone().map(|names| wire::ForwardNames { names }),
            vectors: Some(wire::VectorNames { names: choice.vectors.clone() }),
            ..Default::default()
        };
        Ok(RowStream(self.voisin.read(request).await?.into_inner()))
    }
}
