//! Pictures as a client sees them: collections of them, rows written by them, and the rows nearest to one.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::collections::described;
use super::rows::Writable;
use super::{Client, ClientError, Described, ForwardBatch, ForwardInfo, Result, WriteStream};
use crate::schema::Value;
use crate::server::convert;
use crate::server::proto::voisin_v1 as wire;

/// Rows of pictures, which replace those of their keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PictureBatch {
    /// The primary keys.
    pub keys: Vec<u64>,
    /// The files' bytes.
    pub images: Vec<Bytes>,
    /// Forward columns.
    pub forwards: Vec<ForwardBatch>,
}

/// Where rows of pictures go, and what the server makes of them beside vectors.
#[derive(Debug, Clone, Default)]
pub struct PictureTarget {
    /// The collection.
    pub collection: String,
    /// The forward column for small copies, and their longest side in pixels.
    pub thumbnails: Option<(String, u32)>,
    /// The forward columns for width and height.
    pub sides: Option<(String, String)>,
}

/// Pictures that can be written more than once.
#[derive(Debug, Clone)]
pub struct PreparedPictures(wire::WriteImagesRequest);

impl PreparedPictures {
    /// Rows that replace those of their keys.
    pub fn new(target: &PictureTarget, batch: PictureBatch) -> Self {
        let forwards = batch.forwards.into_iter().map(|column| wire::ForwardColumn {
            name: column.name,
            values: column.values.into_iter().map(convert::wire_value).collect(),
        });
        let (width_column, height_column) = target.sides.clone().unwrap_or_default();
        PreparedPictures(wire::WriteImagesRequest {
            collection: target.collection.clone(),
            keys: batch.keys,
            operation: wire::Operation::Upsert.into(),
            images: batch.images,
            forwards: forwards.collect(),
            thumbnails: target
                .thumbnails
                .clone()
                .map(|(column, side_max)| wire::Thumbnails { column, side_max }),
            width_column,
            height_column,
            ..Default::default()
        })
    }
}

impl Writable for PreparedPictures {
    async fn open(client: &mut Client, batches: usize) -> Result<WriteStream<Self>> {
        let (requests, receiver) = mpsc::channel(batches);
        let sent = ReceiverStream::new(receiver).map(|prepared: PreparedPictures| prepared.0);
        let stream = client.voisin.write_images(sent).await?;
        Ok(WriteStream::new(requests, stream.into_inner()))
    }
}

/// A search by a picture.
#[derive(Debug, Clone, Default)]
pub struct PictureQuery {
    /// The collection.
    pub collection: String,
    /// The picture's file.
    pub image: Bytes,
    /// How many rows are wanted.
    pub topk: u32,
    /// Candidates kept while a graph is walked.
    pub ef_search: Option<u32>,
    /// An expression that rows must meet; "" for all.
    pub filter: String,
    /// The forward columns wanted.
    pub forwards: Vec<String>,
}

/// The rows nearest to a picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PictureHits {
    /// Their keys, nearest first.
    pub keys: Vec<u64>,
    /// Their distances.
    pub scores: Vec<f32>,
    /// The forward columns asked for, in that order.
    pub forwards: Vec<Vec<Option<Value>>>,
    /// Microseconds of reading the picture, of the model and of the search.
    pub micros: [u64; 3],
}

impl Client {
    /// Creates a collection with one index column whose vectors a model makes; its dimension and metric
    /// follow.
    pub async fn create_for_pictures(
        &mut self,
        name: &str,
        (column, model): (&str, &str),
        forwards: Vec<ForwardInfo>,
    ) -> Result<Described> {
        let vector = wire::VectorColumnInfo {
            name: column.to_owned(),
            params: [("model".to_owned(), model.to_owned())].into(),
            ..Default::default()
        };
        let forwards = forwards.into_iter().map(|column| wire::ForwardColumnInfo {
            r#type: column.kind.map_or(0, |kind| convert::value_type(kind).into()),
            name: column.name,
        });
        let request = wire::CreateCollectionRequest {
            name: name.to_owned(),
            vectors: vec![vector],
            forwards: forwards.collect(),
            ..Default::default()
        };
        described(self.voisin.create_collection(request).await?.into_inner())
    }

    /// The rows nearest to a picture.
    pub async fn search_by_image(&mut self, query: PictureQuery) -> Result<PictureHits> {
        let params = wire::SearchParams { ef_search: query.ef_search, ..Default::default() };
        let request = wire::SearchByImageRequest {
            images: vec![query.image],
            urls: Vec::new(),
            query: Some(wire::QueryRequest {
                collection: query.collection,
                topk: query.topk,
                params: Some(params),
                filter: query.filter,
                forwards: Some(wire::ForwardNames { names: query.forwards }),
                ..Default::default()
            }),
        };
        let reply = self.voisin.search_by_image(request).await?.into_inner();
        let micros = [reply.decode_us, reply.embed_us, reply.search_us];
        let found = reply.reply.unwrap_or_default().results.into_iter().next();
        let hits = found.ok_or_else(|| ClientError::new("the answer has no list".to_owned()))?;
        let columns = hits.forwards.into_iter();
        let values = |column: wire::ForwardColumn| {
            column.values.into_iter().map(convert::native_value).collect()
        };
        Ok(PictureHits {
            keys: hits.keys,
            scores: hits.scores,
            forwards: columns.map(values).collect(),
            micros,
        })
    }

    /// Deletes the rows of these keys; those that do not exist are passed over. Gives how many there were.
    pub async fn delete_keys(&mut self, collection: &str, keys: Vec<u64>) -> Result<u64> {
        let request = wire::WriteRequest {
            collection: collection.to_owned(),
            keys,
            operation: wire::Operation::Delete.into(),
            ..Default::default()
        };
        let ack = self.voisin.write(request).await?.into_inner();
        match ack.status {
            Some(status) => Err(ClientError::new(status.message)),
            None => Ok(ack.rows_applied),
        }
    }
}
