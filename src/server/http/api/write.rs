//! Writing rows, and deleting them.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tonic::Request;
use utoipa::ToSchema;

use super::filter::{Selection, filter_params};
use super::keys::{Key, KeyForm, KeyOut, line_key};
use super::object::{each_once, maybe_named};
use super::refusal::no_row;
use super::values::{Uint64, Value};
use super::vectors::{VectorForm, Vectors, element_number, vectors};
use super::{Answer, Call, Line, Outcome, Refused, message};
use crate::error::Error;
use crate::schema::CollectionSchema;
use crate::server::http::Http;
use crate::server::limits::check_rows;
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// What to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    /// Add a row under a key that must be free.
    Insert,
    /// Replace the whole row of a key that must exist.
    Update,
    /// Add a row, or replace the whole row that the key has.
    Upsert,
    /// Remove the row of a key that must exist.
    Delete,
}

impl Operation {
    pub(super) fn wire(self) -> wire::Operation {
        match self {
            Operation::Insert => wire::Operation::Insert,
            Operation::Update => wire::Operation::Update,
            Operation::Upsert => wire::Operation::Upsert,
            Operation::Delete => wire::Operation::Delete,
        }
    }
}

/// A batch of rows. Rows that are wrong in themselves refuse the batch; a row that fails for what is
/// stored (such as the insert of a key that exists) leaves the others standing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "operation": "upsert",
    "rows": [{ "key": 1, "vectors": { "feature": [0.5, 0.25] }, "values": { "path": "a.jpg" } }],
}))]
pub(super) struct Batch<'a> {
    /// What to do with rows that do not say so themselves.
    #[serde(default)]
    operation: Option<Operation>,
    /// The rows, in the order in which they are applied.
    #[serde(borrow)]
    #[schema(value_type = Vec<NewRow>)]
    rows: Vec<&'a RawValue>,
    /// Collections that follow a repository: the number that Proxima BE's API tells when it describes them.
    #[serde(default)]
    magic_number: Option<Uint64>,
}

/// A row to write.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRow<'a> {
    key: Key,
    /// What to do with it; left out: what the batch says.
    #[serde(default)]
    operation: Option<Operation>,
    /// Vectors by index column: as numbers, or base64 of the stored bytes; a list of such in columns whose
    /// rows have several. Columns that are left out, or `null`, have none. Not read where the row is deleted.
    #[serde(borrow, default, deserialize_with = "each_once")]
    #[schema(value_type = BTreeMap<String, VectorForm>)]
    vectors: BTreeMap<String, &'a RawValue>,
    /// Values by forward column; those left out are unset. Not read where the row is deleted.
    #[serde(default, deserialize_with = "each_once")]
    values: BTreeMap<String, Value>,
    /// Changes the row only where it has this version; 0 or left out: whatever its version.
    #[serde(default)]
    if_version: Uint64,
    /// Collections that follow a repository: where in its stream the row comes from. Where one row of a batch
    /// has it, all must.
    #[serde(default, deserialize_with = "maybe_named")]
    lsn: Option<Lsn>,
}

impl NewRow<'_> {
    /// A row with values alone.
    pub(super) fn of_values(key: Key, values: BTreeMap<String, Value>) -> Self {
        let (operation, vectors, lsn) = (None, BTreeMap::new(), None);
        NewRow { key, operation, vectors, values, if_version: Uint64::default(), lsn }
    }
}

/// A position in the stream that a repository collection follows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Lsn {
    lsn: Uint64,
    #[serde(default)]
    context: String,
}

/// What became of a batch.
#[derive(Serialize, ToSchema)]
pub(super) struct Written {
    /// Rows that were applied.
    rows_applied: u64,
    /// Rows that were not, in ascending order.
    failures: Vec<Failure>,
}

/// A row that was not applied.
#[derive(Serialize, ToSchema)]
struct Failure {
    /// Its position in the batch, from 0.
    row: u32,
    /// Its key.
    #[schema(value_type = Key)]
    key: KeyOut,
    /// Why, for programs.
    code: FailureCode,
    /// Why, for people.
    message: String,
}

/// Why a row was not applied.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FailureCode {
    /// Insert of a key that exists; the old row is kept.
    DuplicateKey,
    /// Update or delete of a key that does not exist.
    KeyNotFound,
    /// Update in a repository collection whose lsn is not above the stored row's.
    StaleLsn,
    /// The stored row has another version than the one named.
    OtherVersion,
    /// The stored row is not one of those meant.
    ConditionFailed,
    /// The row's picture cannot be read.
    UnreadableImage,
    /// Another reason; the message has it.
    Unspecified,
}

impl FailureCode {
    fn of(code: wire::RowFailureCode) -> Self {
        match code {
            wire::RowFailureCode::DuplicateKey => FailureCode::DuplicateKey,
            wire::RowFailureCode::KeyNotFound => FailureCode::KeyNotFound,
            wire::RowFailureCode::StaleLsn => FailureCode::StaleLsn,
            wire::RowFailureCode::OtherVersion => FailureCode::OtherVersion,
            wire::RowFailureCode::ConditionFailed => FailureCode::ConditionFailed,
            wire::RowFailureCode::UnreadableImage => FailureCode::UnreadableImage,
            wire::RowFailureCode::Unspecified => FailureCode::Unspecified,
        }
    }
}

/// Bytes of the contract's message that a row takes at least in a forward column, and in an index column.
const VALUE_BYTES_MIN: u64 = 2;
const COUNT_BYTES_MIN: u64 = 1;

/// Rows of a batch, gathered into columns as the contract has them.
pub(super) struct Gathered<'a> {
    schema: &'a CollectionSchema,
    request: wire::WriteRequest,
    /// For each index column of the request its position in the schema, and the bytes of its vectors.
    vectors: Vec<(usize, Vec<u8>)>,
    /// Where in the request each index column and each forward column is.
    vector_places: HashMap<String, usize>,
    forward_places: HashMap<String, usize>,
    /// Rows of the batch.
    rows: u64,
    /// Bytes that a message may have.
    bytes_max: u64,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(
        schema: &'a CollectionSchema,
        collection: &str,
        rows: usize,
        bytes_max: u64,
    ) -> Self {
        let collection = collection.to_owned();
        // Each row has its own operation; this one is that of no rows.
        let operation = wire::Operation::Upsert.into();
        let request = wire::WriteRequest { collection, operation, ..Default::default() };
        Gathered {
            schema,
            request,
            vectors: Vec::new(),
            vector_places: HashMap::new(),
            forward_places: HashMap::new(),
            rows: rows as u64,
            bytes_max,
        }
    }

    /// Refuses one more column where the message would be too large: rows need not name the columns that
    /// they have nothing in, but take their place in each.
    fn admit(&self, vectors: u64, forwards: u64) -> Outcome<()> {
        let vectors = self.vectors.len() as u64 + vectors;
        let forwards = self.request.forwards.len() as u64 + forwards;
        let each = COUNT_BYTES_MIN * vectors + VALUE_BYTES_MIN * forwards;
        let value = self.rows.saturating_mul(each);
        if value <= self.bytes_max {
            return Ok(());
        }
        Err(Refused::from(Error::LimitExceeded {
            what: "size in bytes of a write with each of its rows in each of its columns",
            value,
            limit: self.bytes_max,
            setting: "limits.message_bytes_max",
        }))
    }

    pub(super) fn take(&mut self, row: NewRow<'_>, operation: Operation) -> Outcome<()> {
        let position = self.request.keys.len();
        self.request.keys.push(row.key.0);
        self.request.operations.push(operation.wire().into());
        self.request.if_versions.push(row.if_version.0);
        if let Some(Lsn { lsn, context }) = row.lsn {
            self.request.lsns.push(wire::LsnContext { lsn: lsn.0, context });
        }
        if operation == Operation::Delete {
            return Ok(());
        }
        for (name, raw) in row.vectors {
            let place = match self.vector_places.get(&name) {
                Some(place) => *place,
                None => self.add_vectors(name)?,
            };
            let column = &self.schema.columns[self.vectors[place].0];
            let misfit = |detail| {
                let column = column.name.clone();
                Refused::from(Error::MismatchedDimension { row: position, column, detail })
            };
            let Vectors { bytes, count } = vectors(column, raw).map_err(misfit)?;
            // Rows before it that did not name the column have none there.
            let counts = &mut self.request.vectors[place].counts;
            counts.resize(position, 0);
            counts.push(count);
            self.vectors[place].1.extend_from_slice(&bytes);
        }
        for (name, value) in row.values {
            let place = match self.forward_places.get(&name) {
                Some(place) => *place,
                None => self.add_forward(name)?,
            };
            let values = &mut self.request.forwards[place].values;
            values.resize(position, wire::Value::default());
            values.push(wire::Value { kind: value.0 });
        }
        Ok(())
    }

    /// Adds an index column to the request, and says where.
    fn add_vectors(&mut self, name: String) -> Outcome<usize> {
        let Some(position) = self.schema.column_position(&name) else {
            let collection = self.schema.name.clone();
            return Err(Refused::from(Error::ColumnNotFound { collection, column: name }));
        };
        self.admit(1, 0)?;
        let column = &self.schema.columns[position];
        self.request.vectors.push(wire::VectorColumn {
            element: element_number(column.element),
            dimension: column.dimension,
            name: name.clone(),
            ..Default::default()
        });
        let place = self.vectors.len();
        self.vectors.push((position, Vec::new()));
        self.vector_places.insert(name, place);
        Ok(place)
    }

    /// Adds a forward column to the request, and says where.
    fn add_forward(&mut self, name: String) -> Outcome<usize> {
        self.admit(0, 1)?;
        let place = self.request.forwards.len();
        self.request.forwards.push(wire::ForwardColumn { name: name.clone(), values: Vec::new() });
        self.forward_places.insert(name, place);
        Ok(place)
    }

    pub(super) fn request(mut self) -> wire::WriteRequest {
        let rows = self.request.keys.len();
        for (column, (_, bytes)) in self.request.vectors.iter_mut().zip(self.vectors) {
            column.counts.resize(rows, 0);
            column.vectors = bytes.into();
        }
        for column in &mut self.request.forwards {
            column.values.resize(rows, wire::Value::default());
        }
        if self.request.if_versions.iter().all(|version| *version == 0) {
            self.request.if_versions.clear();
        }
        self.request
    }
}

/// Writes rows
///
/// Inserts, updates, upserts and deletes, in the order given. When this is answered, the applied rows
/// survive what the server's durability setting promises, and every query that starts from then on sees
/// them. Collections that follow a repository take rows with `magic_number` and `lsn`.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/rows", operation_id = "writeRows", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body(content = Batch<'_>),
    responses((status = 200, description = "What became of the rows.", body = Written))
)]
pub(super) async fn write(State(http): State<Http>, call: Call) -> Outcome<Answer<Written>> {
    call.line.takes(&["keys"])?;
    let keys = call.line.keys()?;
    let batch: Batch<'_> = call.read()?;
    let collection = http.database.collection(call.line.name())?;
    check_rows(batch.rows.len(), http.limits.write_rows_max)?;
    let request = super::if_long(call.body.len(), || {
        let (rows, bytes_max) = (batch.rows.len(), http.limits.message_bytes_max as u64);
        let mut gathered = Gathered::new(collection.schema(), call.line.name(), rows, bytes_max);
        for (position, raw) in batch.rows.iter().enumerate() {
            let row = new_row(raw)
                .map_err(|words| Refused::invalid(format!("row {position}: {words}")))?;
            let operation = row.operation.or(batch.operation).ok_or_else(|| {
                Refused::invalid(format!(
                    "row {position} says no operation, and neither does the batch; it must be insert, update, upsert or delete"
                ))
            })?;
            gathered.take(row, operation)?;
        }
        gathered.request.magic_number = batch.magic_number.map(|number| number.0);
        Ok::<_, Refused>(gathered.request())
    })?;
    written(&http, request, keys).await.map(Answer::short)
}

/// Reads a row to write.
fn new_row(raw: &RawValue) -> Result<NewRow<'_>, String> {
    super::read_object(raw.get().as_bytes())
}

async fn written(http: &Http, request: wire::WriteRequest, keys: KeyForm) -> Outcome<Written> {
    acknowledged(message(http.native.write(Request::new(request)).await)?, keys)
}

/// What became of a request.
pub(super) fn acknowledged(ack: wire::WriteAck, keys: KeyForm) -> Outcome<Written> {
    if let Some(status) = ack.status {
        return Err(status.into());
    }
    let failures = ack.failures.into_iter().map(|failure| Failure {
        row: failure.row,
        key: KeyOut(failure.key, keys),
        code: FailureCode::of(failure.code()),
        message: failure.message,
    });
    Ok(Written { rows_applied: ack.rows_applied, failures: failures.collect() })
}

/// Deletes a row
#[utoipa::path(
    delete, path = "/api/v1/collections/{name}/rows/{key}", operation_id = "deleteRow", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("key" = u64, Path, description = "The key of the row."),
        ("if_version" = Option<u64>, Query, description = "Deletes the row only where it has this version."),
    ),
    responses((status = 204, description = "The row is gone."))
)]
pub(super) async fn delete_one(State(http): State<Http>, line: Line) -> Outcome<StatusCode> {
    line.takes(&["if_version"])?;
    let if_version = match line.query("if_version") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Refused::invalid(format!("if_version is {text:?}; it must be a whole number"))
        })?,
    };
    let key = line_key(&line)?;
    let request = wire::WriteRequest {
        collection: line.name().to_owned(),
        keys: vec![key],
        operation: wire::Operation::Delete.into(),
        if_versions: if if_version == 0 { Vec::new() } else { vec![if_version] },
        ..Default::default()
    };
    match written(&http, request, KeyForm::Number).await?.failures.pop() {
        None => Ok(StatusCode::NO_CONTENT),
        Some(Failure { code: FailureCode::KeyNotFound, .. }) => Err(no_row(key)),
        Some(failure) => {
            let words = format!("key {key}: {}", failure.message);
            Err(Refused::new(StatusCode::CONFLICT, tonic::Code::FailedPrecondition, words))
        }
    }
}

/// How many rows were deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    rows_deleted: u64,
}

/// Deletes the rows of a filter
///
/// Those that it lets through when the call begins and still lets through when it comes to them, 10,000
/// at a time. Where the call fails, or its caller hangs up, those deleted before stay deleted. The filter
/// must be set; `_key >= 0` is all rows.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/delete", operation_id = "deleteRows", tag = "rows",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    request_body = Selection,
    responses((status = 200, description = "How many rows are gone.", body = Deleted))
)]
pub(super) async fn delete_where(State(http): State<Http>, call: Call) -> Outcome<Answer<Deleted>> {
    call.line.takes(&[])?;
    let selection: Selection = call.read()?;
    let request = wire::DeleteRequest {
        collection: call.line.name().to_owned(),
        filter: selection.filter,
        filter_params: filter_params(selection.filter_params),
    };
    let reply = message(http.native.delete(Request::new(request)).await)?;
    Ok(Answer::short(Deleted { rows_deleted: reply.rows_deleted }))
}
