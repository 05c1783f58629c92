//! Reading rows as they are stored.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use tonic::Request;
use utoipa::ToSchema;

use super::columns::{ValuesOut, VectorColumns, forward_names, vector_names};
use super::filter::{Param, Selection, filter_params};
use super::keys::{Key, KeyForm, KeyOut, line_key};
use super::object::each_once;
use super::refusal::no_row;
use super::values::Value;
use super::{Answer, Call, Line, Outcome, Refused, message};
use crate::error::Error;
use crate::schema::CollectionSchema;
use crate::server::http::{Http, if_long};
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// How many rows there are.
#[derive(Serialize, ToSchema)]
pub(super) struct Count {
    rows: u64,
}

/// Counts rows
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/count", operation_id = "countRows", tag = "rows",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    request_body = Selection,
    responses((status = 200, description = "How many rows there are.", body = Count))
)]
pub(super) async fn count(State(http): State<Http>, call: Call) -> Outcome<Answer<Count>> {
    call.line.takes(&[])?;
    let selection: Selection = call.read_or_default()?;
    let request = wire::CountRequest {
        collection: call.line.name().to_owned(),
        filter: selection.filter,
        filter_params: filter_params(selection.filter_params),
    };
    let reply = message(http.native.count(Request::new(request)).await)?;
    Ok(Answer::short(Count { rows: reply.rows }))
}

/// Keys, and what to return of their rows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "keys": [1, 2] }))]
pub(super) struct Keys {
    /// The keys; a key asked for twice comes twice.
    keys: Vec<Key>,
    /// The forward columns to return; left out: all.
    #[serde(default)]
    forwards: Option<Vec<String>>,
    /// The index columns whose vectors to return; `*` stands for all of them. Left out: none.
    #[serde(default)]
    vectors: Vec<String>,
}

/// A page of all rows, or of those of a filter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "limit": 100 }))]
pub(super) struct Page {
    /// Which rows to read (docs/filters.md). Left out: all.
    #[serde(default)]
    filter: String,
    /// What stands for each `{name}` of the filter.
    #[serde(default, deserialize_with = "each_once")]
    filter_params: BTreeMap<String, Param>,
    /// The forward columns to return; left out: all.
    #[serde(default)]
    forwards: Option<Vec<String>>,
    /// The index columns whose vectors to return; `*` stands for all of them. Left out: none.
    #[serde(default)]
    vectors: Vec<String>,
    /// Rows of the page; fewer come at the end and where they would not fit into an answer.
    #[schema(minimum = 1)]
    limit: u32,
    /// Where to go on: the last answer's. Left out: at the first row, of the moment of this call; all pages
    /// that follow are of that moment. What else the request says must not change between them.
    #[serde(default)]
    cursor: Option<String>,
}

/// All rows, or those of a filter.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "vectors": ["*"] }))]
pub(super) struct Reading {
    /// Which rows to read (docs/filters.md). Left out: all.
    #[serde(default)]
    filter: String,
    /// What stands for each `{name}` of the filter.
    #[serde(default, deserialize_with = "each_once")]
    filter_params: BTreeMap<String, Param>,
    /// The forward columns to return; left out: all.
    #[serde(default)]
    forwards: Option<Vec<String>>,
    /// The index columns whose vectors to return; `*` stands for all of them. Left out: none.
    #[serde(default)]
    vectors: Vec<String>,
    /// Begins behind this key; left out: at the first. A reader whose stream broke goes on with the last key
    /// that it has, and sees the rows of that later moment.
    #[serde(default)]
    after: Option<Key>,
}

/// A row as it is stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the form that `Rows` writes, for the document")]
pub(super) struct Row {
    key: Key,
    /// Values by forward column, of the columns asked for; `null` is unset.
    values: BTreeMap<String, Value>,
    /// Vectors by index column, of the columns asked for; left out where none were.
    vectors: Option<RowVectors>,
}

/// Vectors of a row by index column, as numbers; a list of vectors in columns whose rows have several; `null`
/// where the row has none.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the form that `VectorColumns` writes, for the document")]
pub(super) struct RowVectors(BTreeMap<String, Option<Vec<serde_json::Value>>>);

/// Rows, in the order asked for, or in key order. Keys that do not exist are left out.
#[derive(Serialize, ToSchema)]
pub(super) struct Found {
    #[schema(value_type = Vec<Row>)]
    rows: Rows,
}

/// A page of rows.
#[derive(Serialize, ToSchema)]
pub(super) struct Scrolled {
    /// The rows, in key order.
    #[schema(value_type = Vec<Row>)]
    rows: Rows,
    /// Where the next page begins; `null` behind the last. It stays good for `limits.reader_idle_ms`
    /// after the last page read by it, or until the server stops; the same cursor gives the same page again.
    cursor: Option<String>,
}

/// Rows that are written from their columns.
pub(super) struct Rows {
    row_keys: Vec<u64>,
    forwards: Vec<wire::ForwardColumn>,
    vectors: VectorColumns,
    /// How keys are written.
    keys: KeyForm,
}

impl Rows {
    fn new(rows: wire::Rows, schema: &CollectionSchema, keys: KeyForm) -> Self {
        let vectors = VectorColumns::new(rows.vectors, rows.keys.len(), schema);
        Rows { row_keys: rows.keys, forwards: rows.forwards, vectors, keys }
    }

    fn each(&self) -> impl Iterator<Item = RowOut<'_>> {
        (0..self.row_keys.len()).map(|row| RowOut { rows: self, row })
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_seq(self.each())
    }
}

struct RowOut<'a> {
    rows: &'a Rows,
    row: usize,
}

impl Serialize for RowOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let RowOut { rows, row } = *self;
        let mut object = json.serialize_map(None)?;
        object.serialize_entry("key", &KeyOut(rows.row_keys[row], rows.keys))?;
        let values = ValuesOut { columns: &rows.forwards, row, keys: rows.keys };
        object.serialize_entry("values", &values)?;
        if let Some(vectors) = rows.vectors.of_row(row) {
            object.serialize_entry("vectors", &vectors)?;
        }
        object.end()
    }
}

/// Gets a row by its key
#[utoipa::path(
    get, path = "/api/v1/collections/{name}/rows/{key}", operation_id = "getRow", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("key" = u64, Path, description = "The key of the row."),
        ("forwards" = Option<String>, Query, description = "The forward columns to return, with commas between them; left out: all."),
        ("vectors" = Option<String>, Query, description = "The index columns whose vectors to return, with commas between them; `*` stands for all of them. Left out: none."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    responses((status = 200, description = "The row.", body = Row))
)]
pub(super) async fn get_one(State(http): State<Http>, line: Line) -> Outcome<Answer<OneRow>> {
    line.takes(&["forwards", "vectors", "keys"])?;
    let key = line_key(&line)?;
    let request = wire::GetRequest {
        collection: line.name().to_owned(),
        keys: vec![key],
        forwards: forward_names(line.list("forwards")),
        vectors: vector_names(line.list("vectors").unwrap_or_default()),
    };
    let (rows, _) = got(&http, request, line.keys()?).await?;
    match rows.row_keys.is_empty() {
        true => Err(no_row(key)),
        false => Ok(Answer::short(OneRow(rows))),
    }
}

/// The only one of rows.
pub(super) struct OneRow(Rows);

impl Serialize for OneRow {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        RowOut { rows: &self.0, row: 0 }.serialize(json)
    }
}

/// Rows, and how large they are.
async fn got(http: &Http, request: wire::GetRequest, keys: KeyForm) -> Outcome<(Rows, usize)> {
    let collection = http.database.collection(&request.collection)?;
    let rows = message(http.native.get(Request::new(request)).await)?;
    let bytes = prost::Message::encoded_len(&rows);
    Ok((Rows::new(rows, collection.schema(), keys), bytes))
}

/// Gets rows by their keys
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/get", operation_id = "getRows", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body = Keys,
    responses((status = 200, description = "The rows of the keys that exist, in the order asked for.", body = Found))
)]
pub(super) async fn get_many(State(http): State<Http>, call: Call) -> Outcome<Answer<Found>> {
    call.line.takes(&["keys"])?;
    let asked: Keys = call.read()?;
    let request = wire::GetRequest {
        collection: call.line.name().to_owned(),
        keys: asked.keys.into_iter().map(|key| key.0).collect(),
        forwards: forward_names(asked.forwards),
        vectors: vector_names(asked.vectors),
    };
    let (rows, bytes) = got(&http, request, call.line.keys()?).await?;
    Ok(Answer { bytes, ..Answer::short(Found { rows }) })
}

/// Reads rows page by page
///
/// All rows, or those of a filter, in key order, of the moment of the first page.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/scroll", operation_id = "scrollRows", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body = Page,
    responses((status = 200, description = "A page.", body = Scrolled))
)]
pub(super) async fn scroll(State(http): State<Http>, call: Call) -> Outcome<Answer<Scrolled>> {
    call.line.takes(&["keys"])?;
    let page: Page = call.read()?;
    let collection = http.database.collection(call.line.name())?;
    let request = wire::ScrollRequest {
        collection: call.line.name().to_owned(),
        filter: page.filter,
        filter_params: filter_params(page.filter_params),
        forwards: forward_names(page.forwards),
        vectors: vector_names(page.vectors),
        limit: page.limit,
        cursor: page.cursor.unwrap_or_default(),
    };
    let keys = call.line.keys()?;
    let mut reply = message(http.native.scroll(Request::new(request)).await)?;
    let rows = reply.rows.take().unwrap_or_default();
    let bytes = prost::Message::encoded_len(&rows);
    let rows = Rows::new(rows, collection.schema(), keys);
    let cursor = Some(reply.cursor).filter(|cursor| !cursor.is_empty());
    Ok(Answer { bytes, ..Answer::short(Scrolled { rows, cursor }) })
}

/// Reads rows as a stream
///
/// All rows, or those of a filter, in key order, of the moment of the call: a line of JSON for each, of the
/// form `Row`. The server reads on while the caller takes them in. Where it cannot go on, the last line is of
/// the form `Problem` instead: `{"error": {"code": "UNAVAILABLE", "message": "..."}}`.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/read", operation_id = "readRows", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body = Reading,
    responses((
        status = 200, description = "The rows, a line for each.",
        body = String, content_type = "application/x-ndjson",
    ))
)]
pub(super) async fn read(State(http): State<Http>, call: Call) -> Outcome<Response> {
    call.line.takes(&["keys"])?;
    let keys = call.line.keys()?;
    let asked: Reading = call.read_or_default()?;
    let collection = http.database.collection(call.line.name())?;
    let request = wire::ReadRequest {
        collection: call.line.name().to_owned(),
        filter: asked.filter,
        filter_params: filter_params(asked.filter_params),
        forwards: forward_names(asked.forwards),
        vectors: vector_names(asked.vectors),
        after: asked.after.map(|key| key.0),
    };
    let rows = message(http.native.read(Request::new(request)).await)?;
    // The line counts the call among those in progress as long as rows are read.
    let state = (rows, collection, call.line);
    let pieces = stream::unfold(Some(state), move |state| async move {
        let (mut rows, collection, line) = state?;
        match rows.next().await? {
            Ok(some) => {
                let bytes = prost::Message::encoded_len(&some);
                let some = Rows::new(some, collection.schema(), keys);
                Some((if_long(bytes, || lines(&some)), Some((rows, collection, line))))
            }
            Err(status) => Some((Err(Refused::from(status)), None)),
        }
    });
    // A body that breaks off would take what waits to be sent with it, the last line too.
    let pieces = pieces.map(|piece| Ok::<_, Infallible>(piece.unwrap_or_else(Refused::line)));
    let lines = HeaderValue::from_static("application/x-ndjson");
    let body = Body::from_stream(pieces);
    Ok(([(header::CONTENT_TYPE, lines)], body).into_response())
}

/// A line for each row.
fn lines(rows: &Rows) -> Outcome<Bytes> {
    let mut text = Vec::new();
    for row in rows.each() {
        serde_json::to_writer(&mut text, &row)
            .map_err(|error| Refused::from(Error::internal(error.to_string())))?;
        text.push(b'\n');
    }
    Ok(text.into())
}
