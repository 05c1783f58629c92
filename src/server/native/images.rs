//! Pictures: embedding them, writing them and searching by them. Their vectors are made here; from then on
//! the calls are those of rows.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::write;
use crate::database::Database;
use crate::embedding::{BUILT_IN, EmbedRequest, Embedded, Listed, Pictures, Purpose};
use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, VectorColumn};
use crate::server::proto::voisin_v1 as wire;
use crate::server::{convert, limits};

/// One of a picture's sides.
type Side = fn(&Embedded) -> u32;

/// Sides of thumbnails in pixels: the least, the most, and what 0 stands for.
const THUMBNAIL_SIDES: (u32, u32, u32) = (16, 1024, 256);

/// All models.
pub(super) async fn list(database: Arc<Database>) -> Result<wire::ListModelsReply> {
    let listing = tokio::task::spawn_blocking(move || database.embedding().models().list());
    let listed = listing.await.map_err(|error| Error::internal(error.to_string()))?;
    Ok(wire::ListModelsReply { models: listed.into_iter().map(model).collect() })
}

fn model(listed: Listed) -> wire::Model {
    let built_in = listed.name == BUILT_IN;
    let named = wire::Model { name: listed.name, built_in, ..Default::default() };
    match listed.info {
        Err(problem) => wire::Model { problem, ..named },
        Ok(info) => wire::Model {
            dimension: info.dimension,
            metric: convert::wire_metric(info.metric).into(),
            provider: info.provider.name().to_owned(),
            height: info.picture.0,
            width: info.picture.1,
            ..named
        },
    }
}

/// Vectors of the pictures of one request.
pub(super) async fn embed(
    database: Arc<Database>,
    request: wire::EmbedImagesRequest,
) -> wire::EmbedImagesReply {
    let request_id = request.request_id;
    let outcome = unhindered(async move { embed_all(&database, request).await }).await;
    outcome.unwrap_or_else(|error| {
        tracing::debug!(call = "EmbedImages", request_id, detail = %error, "refused");
        wire::EmbedImagesReply {
            request_id,
            status: convert::refuse(request_id, &error).status,
            ..Default::default()
        }
    })
}

/// Goes on with work however slowly its caller reads replies, until the caller is gone. The replies of a stream are
/// made as they are read: work that waits for its caller would keep places that others wait for.
async fn unhindered<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Error::internal(format!("embedding pictures: {error}"))),
        None => Err(Error::internal("embedding pictures: the work is gone")),
    }
}

/// The pictures of a request.
fn pictures(images: Vec<Bytes>, urls: Vec<String>) -> Result<Pictures> {
    match (images.is_empty(), urls.is_empty()) {
        (_, true) => Ok(Pictures::Files(images)),
        (true, false) => Ok(Pictures::Addresses(urls)),
        (false, false) => {
            Err(Error::InvalidArgument { detail: "images and urls exclude each other".to_owned() })
        }
    }
}

async fn embed_all(
    database: &Database,
    request: wire::EmbedImagesRequest,
) -> Result<wire::EmbedImagesReply> {
    let model = match &request.model[..] {
        "" => BUILT_IN,
        named => named,
    };
    let embedding = database.embedding().embed(EmbedRequest {
        model,
        column: None,
        pictures: pictures(request.images, request.urls)?,
        purpose: Purpose::Bulk,
        thumbnails: None,
    });
    let batch = embedding.await?;
    let dimension = batch.dimension;
    let mut vectors = Vec::with_capacity(batch.pictures.len() * dimension * size_of::<f32>());
    let mut failures = Vec::new();
    for (image, made) in batch.pictures.into_iter().enumerate() {
        match made {
            Ok(made) => append(&mut vectors, &made.vector),
            Err(message) => {
                vectors.resize(vectors.len() + dimension * size_of::<f32>(), 0);
                failures.push(wire::ImageFailure { image: image as u32, message });
            }
        }
    }
    Ok(wire::EmbedImagesReply {
        request_id: request.request_id,
        model: model.to_owned(),
        vectors: Some(vector_column("", dimension, vectors)),
        failures,
        status: None,
    })
}

fn append(bytes: &mut Vec<u8>, vector: &[f32]) {
    vector.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn vector_column(name: &str, dimension: usize, vectors: Vec<u8>) -> wire::VectorColumn {
    wire::VectorColumn {
        name: name.to_owned(),
        element: wire::ElementType::Fp32.into(),
        dimension: u32::try_from(dimension).unwrap_or(u32::MAX),
        vectors: Bytes::from(vectors),
        counts: Vec::new(),
    }
}

/// The column whose model makes its vectors, and that model: the one named, or else the only one.
fn model_column<'a>(
    schema: &'a CollectionSchema,
    name: &str,
) -> Result<(&'a VectorColumn, &'a str)> {
    let with_models = || schema.columns.iter().filter_map(|column| Some((column, column.model()?)));
    let invalid = |detail| Error::InvalidArgument { detail };
    if !name.is_empty() {
        let place = schema.column_position(name).ok_or_else(|| Error::ColumnNotFound {
            collection: schema.name.clone(),
            column: name.to_owned(),
        })?;
        let column = &schema.columns[place];
        let model = column.model().ok_or_else(|| {
            invalid(format!(
                "index column {name:?} names no model; create it with the parameter model, such as model={BUILT_IN}"
            ))
        })?;
        return Ok((column, model));
    }
    match (with_models().next(), with_models().nth(1)) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(invalid(format!(
            "no index column of collection {:?} names a model; create one with the parameter model, such as model={BUILT_IN}",
            schema.name
        ))),
        (Some(_), Some(_)) => {
            let names: Vec<&str> = with_models().map(|(column, _)| column.name.as_str()).collect();
            let names = names.join(", ");
            Err(invalid(format!("the index column is not named; these have models: {names}")))
        }
    }
}

/// The order in which the requests of a stream are applied: that in which they came, though their pictures
/// take different times.
#[derive(Default)]
pub(super) struct Turns {
    last: Option<oneshot::Receiver<()>>,
}

/// A place in that order. Dropping it lets the next one go.
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _after: oneshot::Sender<()>,
}

impl Turns {
    /// The place behind all others.
    pub(super) fn next(&mut self) -> Turn {
        let (after, next) = oneshot::channel();
        Turn { before: self.last.replace(next), _after: after }
    }
}

/// Makes the vectors of rows, and writes them when it is their turn.
pub(super) async fn write(
    database: Arc<Database>,
    rows_max: u32,
    request: wire::WriteImagesRequest,
    turn: Turn,
) -> wire::WriteAck {
    let request_id = request.request_id;
    let embedding = {
        let database = database.clone();
        async move { embed_rows(&database, rows_max, request).await }
    };
    let embedded = unhindered(embedding).await;
    if let Some(before) = turn.before {
        // It ends by being dropped.
        let _ = before.await;
    }
    match embedded {
        Ok(embedded) => embedded.write(database, rows_max).await,
        Err(error) => {
            tracing::debug!(call = "WriteImages", request_id, detail = %error, "refused");
            convert::refuse(request_id, &error)
        }
    }
}

/// A write whose vectors are made.
struct EmbeddedRows {
    request: wire::WriteRequest,
    /// Where the rows of the request were in what the caller sent.
    places: Vec<usize>,
    failures: Vec<wire::RowFailure>,
}

impl EmbeddedRows {
    async fn write(self, database: Arc<Database>, rows_max: u32) -> wire::WriteAck {
        let mut ack = match self.places.is_empty() {
            true => wire::WriteAck { request_id: self.request.request_id, ..Default::default() },
            false => write::write(database, rows_max, self.request).await,
        };
        // Positions are those of the rows that the caller sent; a refusal is of the request as a whole.
        if ack.status.is_none() {
            for failure in &mut ack.failures {
                let place = self.places.get(failure.row as usize).copied().unwrap_or_default();
                failure.row = place as u32;
            }
            ack.failures.extend(self.failures);
            ack.failures.sort_by_key(|failure| failure.row);
        }
        ack
    }
}

async fn embed_rows(
    database: &Database,
    rows_max: u32,
    request: wire::WriteImagesRequest,
) -> Result<EmbeddedRows> {
    let collection = database.collection(&request.collection)?;
    limits::check_rows(request.keys.len(), rows_max)?;
    check_shape(collection.schema(), &request)?;
    let (column, model) = model_column(collection.schema(), &request.column)?;
    let side = request.thumbnails.as_ref().map(thumbnail_side).transpose()?;
    let embedding = database.embedding().embed(EmbedRequest {
        model,
        column: Some(column),
        pictures: pictures(request.images, request.urls)?,
        purpose: Purpose::Bulk,
        thumbnails: side,
    });
    let batch = embedding.await?;

    let mut rows = EmbeddedRows {
        request: wire::WriteRequest {
            request_id: request.request_id,
            collection: request.collection,
            operation: request.operation,
            ..Default::default()
        },
        places: Vec::with_capacity(request.keys.len()),
        failures: Vec::new(),
    };
    let mut pictures = Vec::with_capacity(request.keys.len());
    for (row, (made, key)) in batch.pictures.into_iter().zip(request.keys).enumerate() {
        match made {
            Ok(made) => {
                rows.request.keys.push(key);
                rows.places.push(row);
                pictures.push(made);
            }
            Err(message) => rows.failures.push(wire::RowFailure {
                row: row as u32,
                key,
                code: wire::RowFailureCode::UnreadableImage.into(),
                message,
            }),
        }
    }
    let mut vectors = Vec::new();
    pictures.iter().for_each(|made| append(&mut vectors, &made.vector));
    let dimension = column.dimension as usize;
    rows.request.vectors = vec![vector_column(&column.name, dimension, vectors)];
    rows.request.forwards = request.forwards;
    for forward in &mut rows.request.forwards {
        let values = std::mem::take(&mut forward.values);
        let mut kept = rows.places.iter().copied().peekable();
        let read = values.into_iter().enumerate();
        forward.values =
            read.filter_map(|(row, value)| kept.next_if_eq(&row).map(|_| value)).collect();
    }
    let filled: [(String, Side); 2] =
        [(request.width_column, |made| made.size.0), (request.height_column, |made| made.size.1)];
    for (name, side) in filled.into_iter().filter(|(name, _)| !name.is_empty()) {
        let values =
            pictures.iter().map(|made| value(wire::value::Kind::Int64Value(i64::from(side(made)))));
        rows.request.forwards.push(wire::ForwardColumn { name, values: values.collect() });
    }
    if let Some(thumbnails) = request.thumbnails {
        let values = pictures.into_iter().map(|made| {
            value(wire::value::Kind::BytesValue(made.thumbnail.unwrap_or_default().into()))
        });
        let name = thumbnails.column;
        rows.request.forwards.push(wire::ForwardColumn { name, values: values.collect() });
    }
    Ok(rows)
}

fn value(kind: wire::value::Kind) -> wire::Value {
    wire::Value { kind: Some(kind) }
}

/// Refuses before pictures are looked at what would be refused after.
fn check_shape(schema: &CollectionSchema, request: &wire::WriteImagesRequest) -> Result<()> {
    let invalid = |detail| Error::InvalidWrite { detail };
    let rows = request.keys.len();
    let images = request.images.len() + request.urls.len();
    if images != rows {
        return Err(invalid(format!("there are {images} images for {rows} keys")));
    }
    match wire::Operation::try_from(request.operation) {
        Ok(wire::Operation::Insert | wire::Operation::Update | wire::Operation::Upsert) => {}
        _ => {
            let number = request.operation;
            return Err(invalid(format!(
                "operation {number} does not go with images; it must be insert, update or upsert"
            )));
        }
    }
    let thumbnails = request.thumbnails.iter().map(|thumbnails| &thumbnails.column);
    let sides = [&request.width_column, &request.height_column];
    let filled = sides.into_iter().filter(|name| !name.is_empty()).chain(thumbnails);
    let sent = request.forwards.iter().map(|forward| &forward.name);
    for name in sent.chain(filled) {
        if !schema.forward_columns.contains(name) {
            let (collection, column) = (schema.name.clone(), name.clone());
            return Err(Error::ColumnNotFound { collection, column });
        }
    }
    for forward in &request.forwards {
        let values = forward.values.len();
        if values != rows {
            let name = &forward.name;
            return Err(invalid(format!(
                "forward column {name:?} has {values} values for {rows} keys"
            )));
        }
    }
    Ok(())
}

fn thumbnail_side(thumbnails: &wire::Thumbnails) -> Result<u32> {
    let (least, most, usual) = THUMBNAIL_SIDES;
    match thumbnails.side_max {
        0 => Ok(usual),
        side if (least..=most).contains(&side) => Ok(side),
        side => Err(Error::InvalidArgument {
            detail: format!(
                "thumbnails.side_max is {side}; it must be {least} to {most}, or 0 for {usual}"
            ),
        }),
    }
}

/// The rows nearest to pictures.
pub(super) async fn search(
    database: &Database,
    request: wire::SearchByImageRequest,
) -> Result<wire::SearchByImageReply> {
    let mut query = request.query.unwrap_or_default();
    let collection = database.collection(&query.collection)?;
    let named = query.vectors.take().unwrap_or_default();
    if !named.vectors.is_empty() {
        return Err(Error::query(
            "query.vectors has vectors; those of a search by images are made of them",
        ));
    }
    let pictures = pictures(request.images, request.urls)?;
    if pictures.is_empty() {
        return Err(Error::query("there is no image to search by"));
    }
    let (column, model) = model_column(collection.schema(), &named.name)?;
    let embedding = database.embedding().embed(EmbedRequest {
        model,
        column: Some(column),
        pictures,
        purpose: Purpose::Search,
        thumbnails: None,
    });
    let batch = embedding.await?;
    let mut vectors = Vec::new();
    for (image, made) in batch.pictures.into_iter().enumerate() {
        let made = made.map_err(|detail| Error::UnreadableImage { image, detail })?;
        append(&mut vectors, &made.vector);
    }
    query.vectors = Some(vector_column(&column.name, column.dimension as usize, vectors));
    let started = Instant::now();
    let reply = super::search(database, query, started).await?;
    let micros = |spent: std::time::Duration| u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
    Ok(wire::SearchByImageReply {
        reply: Some(reply),
        decode_us: micros(batch.decode),
        embed_us: micros(batch.embed),
        search_us: micros(started.elapsed()),
    })
}
