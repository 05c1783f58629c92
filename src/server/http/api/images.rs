//! Pictures: models, embedding, writing and searching.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tonic::Request;
use utoipa::ToSchema;

use super::collections::Metric;
use super::forms::Form;
use super::hits::QueryResult;
use super::keys::{Key, KeyForm};
use super::object::{each_once, maybe_named};
use super::query::Query;
use super::values::Value;
use super::write::{Gathered, NewRow, Operation, Written, acknowledged};
use super::{Answer, Line, Outcome, Refused, message, read_object};
use crate::server::http::{Http, if_long};
use crate::server::limits::check_rows;
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// All models, the one that comes with the server first.
#[derive(Serialize, ToSchema)]
pub(super) struct Models {
    models: Vec<Model>,
}

/// A model that makes vectors of pictures.
#[derive(Serialize, ToSchema)]
struct Model {
    /// Its name: the `model` parameter of index columns.
    #[schema(example = "holistic")]
    name: String,
    /// Elements of its vectors.
    dimension: u32,
    /// How its vectors are compared; left out where there is a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<Metric>,
    /// What runs it, in ONNX Runtime's words.
    #[schema(example = "CPUExecutionProvider")]
    provider: String,
    /// Width of the pictures it takes, in pixels; what is sent is cut and resized to it.
    width: u32,
    /// Height of the pictures it takes, in pixels.
    height: u32,
    /// It comes with the server.
    built_in: bool,
    /// Why it cannot be used; empty where it can.
    problem: String,
}

/// Lists the models
#[utoipa::path(
    get, path = "/api/v1/models", operation_id = "listModels", tag = "pictures",
    responses((status = 200, description = "The models.", body = Models))
)]
pub(super) async fn models(State(http): State<Http>, line: Line) -> Outcome<Answer<Models>> {
    line.takes(&[])?;
    let reply = message(http.native.list_models(Request::new(wire::ListModelsRequest {})).await)?;
    let models = reply.models.into_iter().map(|model| Model {
        metric: Metric::from_number(model.metric),
        name: model.name,
        dimension: model.dimension,
        provider: model.provider,
        width: model.width,
        height: model.height,
        built_in: model.built_in,
        problem: model.problem,
    });
    Ok(Answer::short(Models { models: models.collect() }))
}

/// The parts of a call with pictures and an object of this kind.
macro_rules! parts {
    ($name:ident, $request:ty) => {
        #[derive(ToSchema)]
        #[expect(dead_code, reason = "the form that `Form` reads, for the document")]
        pub(super) struct $name {
            /// How.
            request: $request,
            /// Files of pictures: JPEG, PNG, WebP, GIF (the first frame), BMP or TIFF. A part for each.
            #[schema(value_type = Vec<String>, format = Binary, required = false)]
            image: Vec<Vec<u8>>,
            /// Instead of parts `image`: where the server is to fetch the pictures. A part for each. Refused
            /// unless the setting `fetch.hosts` names hosts; only those are asked.
            #[schema(required = false)]
            url: Vec<String>,
        }
    };
}

parts!(EmbedParts, Option<Embed>);
parts!(WriteParts, ImageRows<'static>);
parts!(SearchParts, Option<Query<'static>>);

/// How to make vectors of pictures.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Embed {
    /// The model; left out: the one that comes with the server.
    #[serde(default)]
    model: String,
}

/// Vectors of pictures.
#[derive(Serialize, ToSchema)]
pub(super) struct Vectors {
    /// The model.
    model: String,
    /// Elements of each vector.
    dimension: u32,
    /// A vector for each picture in order; `null` where it could not be read.
    vectors: Vec<Option<Vec<f32>>>,
    /// The pictures that could not be read.
    failures: Vec<ImageFailure>,
}

/// A picture that could not be read.
#[derive(Serialize, ToSchema)]
struct ImageFailure {
    /// Its position in the request, from 0.
    image: u32,
    /// Why.
    message: String,
}

/// Makes vectors of pictures
#[utoipa::path(
    post, path = "/api/v1/embed", operation_id = "embedImages", tag = "pictures",
    request_body(content = EmbedParts, content_type = "multipart/form-data"),
    responses((status = 200, description = "The vectors.", body = Vectors))
)]
pub(super) async fn embed(State(http): State<Http>, form: Form) -> Outcome<Answer<Vectors>> {
    form.line.takes(&[])?;
    let Embed { model } = form.read()?;
    let request =
        wire::EmbedImagesRequest { request_id: 0, model, images: form.images, urls: form.urls };
    let reply = http.native.embed(request).await;
    if let Some(status) = reply.status {
        return Err(status.into());
    }
    let column = reply.vectors.unwrap_or_default();
    let failed: Vec<u32> = reply.failures.iter().map(|failure| failure.image).collect();
    let width = column.dimension as usize * size_of::<f32>();
    let rows = column.vectors.chunks_exact(width.max(1)).zip(0u32..);
    let vectors = rows.map(|(row, image)| {
        let read = failed.binary_search(&image).is_err();
        read.then(|| {
            let values = row.as_chunks::<4>().0.iter();
            values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        })
    });
    let failures = reply.failures.into_iter();
    let vectors = Vectors {
        model: reply.model,
        dimension: column.dimension,
        vectors: vectors.collect(),
        failures: failures
            .map(|failure| ImageFailure { image: failure.image, message: failure.message })
            .collect(),
    };
    Ok(Answer { bytes: column.vectors.len(), ..Answer::short(vectors) })
}

/// Rows whose vectors are made of pictures: as many as there are pictures, in the same order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "operation": "upsert",
    "rows": [{ "key": 1, "values": { "image_path": "a.jpg" } }],
}))]
pub(super) struct ImageRows<'a> {
    /// What to do with the rows: insert, update or upsert.
    operation: Operation,
    /// The rows.
    #[serde(borrow)]
    #[schema(value_type = Vec<ImageRow>)]
    rows: Vec<&'a RawValue>,
    /// The index column, which names a model; may be left out where only one does.
    #[serde(default)]
    column: String,
    /// Keeps small copies of the pictures. Left out: none.
    #[serde(default, deserialize_with = "maybe_named")]
    thumbnails: Option<Thumbnails>,
    /// Forward columns that the server fills with the pictures' width and height in pixels; left out: none.
    #[serde(default)]
    width_column: String,
    #[serde(default)]
    height_column: String,
}

/// A row of a picture.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImageRow {
    key: Key,
    /// Values by forward column; those left out are unset.
    #[serde(default, deserialize_with = "each_once")]
    values: BTreeMap<String, Value>,
}

/// Small copies of pictures, as JPEG files.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Thumbnails {
    /// The forward column that takes them, of bytes.
    column: String,
    /// The longer side in pixels, 16 to 1024; left out: 256. Pictures are never enlarged.
    #[serde(default)]
    side_max: u32,
}

/// Writes rows of pictures
///
/// Makes vectors of pictures and writes them. Rows whose pictures cannot be read are not applied and are named
/// in the answer. Only vectors, and thumbnails where they are asked for, are kept.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/images", operation_id = "writeImages", tag = "pictures",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body(content = WriteParts, content_type = "multipart/form-data"),
    responses((status = 200, description = "What became of the rows.", body = Written))
)]
pub(super) async fn write(State(http): State<Http>, mut form: Form) -> Outcome<Answer<Written>> {
    form.line.takes(&["keys"])?;
    let (images, urls) = (std::mem::take(&mut form.images), std::mem::take(&mut form.urls));
    let keys = form.line.keys()?;
    let asked: ImageRows<'_> = if_long(form.bytes, || form.read())?;
    let collection = http.database.collection(form.line.name())?;
    check_rows(asked.rows.len(), http.limits.write_rows_max)?;
    let (rows, bytes_max) = (asked.rows.len(), http.limits.message_bytes_max as u64);
    let rows = if_long(form.bytes, || {
        let mut gathered = Gathered::new(collection.schema(), form.line.name(), rows, bytes_max);
        for (position, raw) in asked.rows.iter().enumerate() {
            let row: ImageRow = read_object(raw.get().as_bytes())
                .map_err(|words| Refused::invalid(format!("row {position}: {words}")))?;
            gathered.take(NewRow::of_values(row.key, row.values), asked.operation)?;
        }
        Ok::<_, Refused>(gathered.request())
    })?;
    let request = wire::WriteImagesRequest {
        request_id: 0,
        collection: rows.collection,
        column: asked.column,
        keys: rows.keys,
        operation: asked.operation.wire().into(),
        images,
        forwards: rows.forwards,
        thumbnails: asked.thumbnails.map(|thumbnails| wire::Thumbnails {
            column: thumbnails.column,
            side_max: thumbnails.side_max,
        }),
        width_column: asked.width_column,
        height_column: asked.height_column,
        urls,
    };
    acknowledged(http.native.write_pictures(request).await, keys).map(Answer::short)
}

/// The rows nearest to pictures.
#[derive(Serialize, ToSchema)]
pub(super) struct ImageResult {
    #[serde(flatten)]
    found: QueryResult,
    /// Microseconds for reading the pictures: decoding, resizing, cutting, and waiting for a place.
    decode_us: u64,
    /// Microseconds in the model, waiting for it included.
    embed_us: u64,
    /// Microseconds of the search.
    search_us: u64,
}

/// Finds the rows nearest to pictures
///
/// As the call for vectors, with a vector of each picture.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/search-by-image", operation_id = "searchByImage",
    tag = "pictures",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body(content = SearchParts, content_type = "multipart/form-data"),
    responses((status = 200, description = "The nearest rows.", body = ImageResult))
)]
pub(super) async fn search(State(http): State<Http>, form: Form) -> Outcome<Answer<ImageResult>> {
    form.line.takes(&["keys"])?;
    let keys = form.line.keys()?;
    let asked: Query<'_> = form.read()?;
    let collection = http.database.collection(form.line.name())?;
    if asked.has_vectors() {
        let words = "vector and vectors do not go with pictures, which vectors are made of";
        return Err(Refused::invalid(words));
    }
    let column = wire::VectorColumn { name: asked.column_name(), ..Default::default() };
    let query = asked.wire(form.line.name(), column);
    let request = wire::SearchByImageRequest {
        images: form.images.clone(),
        urls: form.urls.clone(),
        query: Some(query),
    };
    let reply = message(http.native.search_by_image(Request::new(request)).await)?;
    let found = reply.reply.unwrap_or_default();
    let bytes = prost::Message::encoded_len(&found);
    let result = ImageResult {
        found: QueryResult::new(found, collection.schema(), keys),
        decode_us: reply.decode_us,
        embed_us: reply.embed_us,
        search_us: reply.search_us,
    };
    Ok(Answer { bytes, ..Answer::short(result) })
}
