//! From a write request as a caller sent it to rows that can always be applied: every refusal that
//! needs no state, in the order that Proxima BE 0.2 makes them. The first failure rejects the request.

use bytes::Bytes;

use super::collection::{CollectionSchema, VectorColumn};
use super::types::{Change, Condition, Document, ElementType, LsnContext, Operation, Row, Value};
use super::vector_text;
use crate::error::{Error, Result};

/// A write request before any check.
#[derive(Debug, Clone, Default)]
pub struct RawWrite {
    /// The forward columns that each row's values follow.
    pub forward_names: Vec<String>,
    /// The index columns that each row's vectors follow.
    pub vector_metas: Vec<RawVectorMeta>,
    /// The rows.
    pub rows: Vec<RawRow>,
}

/// What a request says of one of its index columns.
#[derive(Debug, Clone)]
pub struct RawVectorMeta {
    /// The column's name.
    pub column: String,
    /// The element type, or the words for what was sent instead.
    pub element: std::result::Result<ElementType, String>,
    /// The dimension.
    pub dimension: u32,
}

/// One row before any check.
#[derive(Debug, Clone)]
pub struct RawRow {
    /// The primary key.
    pub key: u64,
    /// What to do.
    pub operation: Operation,
    /// Values in the order of [`RawWrite::forward_names`].
    pub forward: Vec<Option<Value>>,
    /// Vectors in the order of [`RawWrite::vector_metas`].
    pub vectors: Vec<RawVector>,
    /// The LSN, where one was sent.
    pub lsn: Option<LsnContext>,
    /// What must hold of the row that the key has.
    pub condition: Option<Condition>,
}

/// One vector before any check.
#[derive(Debug, Clone)]
pub enum RawVector {
    /// Little-endian elements.
    Bytes(Bytes),
    /// JSON text.
    Text(String),
    /// The row has no vector in this column.
    Absent,
    /// A value of another kind, or none.
    Other,
}

/// Where the values of a request belong in the schema.
struct Mapping<'a> {
    forward: Vec<usize>,
    vectors: Vec<(usize, &'a VectorColumn, &'a RawVectorMeta)>,
    /// Most vectors of a row in a column that takes several.
    row_vectors_max: u32,
}

impl CollectionSchema {
    /// Checks a whole write request, made at `now` (milliseconds since 1970), and turns it into rows. A
    /// row of a column that takes several vectors may have up to `row_vectors_max` of them.
    pub fn check_write(
        &self,
        mut raw: RawWrite,
        now: i64,
        row_vectors_max: u32,
    ) -> Result<Vec<Row>> {
        let raw_rows = std::mem::take(&mut raw.rows);
        if raw_rows.is_empty() {
            return Err(invalid("the request has no rows"));
        }
        let mapping = self.map_columns(&raw, row_vectors_max)?;
        for (position, row) in raw_rows.iter().enumerate() {
            check_counts(position, row, &raw)?;
        }
        let mut rows = Vec::with_capacity(raw_rows.len());
        for (position, row) in raw_rows.into_iter().enumerate() {
            rows.push(self.check_row(position, row, &mapping, now)?);
        }
        Ok(rows)
    }

    fn map_columns<'a>(&'a self, raw: &'a RawWrite, row_vectors_max: u32) -> Result<Mapping<'a>> {
        if raw.vector_metas.len() > self.columns.len() {
            return Err(invalid(format!(
                "{} index columns are named, the collection has {}",
                raw.vector_metas.len(),
                self.columns.len()
            )));
        }
        let mut vectors: Vec<(usize, &VectorColumn, &RawVectorMeta)> = Vec::new();
        for meta in &raw.vector_metas {
            let position = self
                .column_position(&meta.column)
                .ok_or_else(|| invalid(format!("there is no index column {:?}", meta.column)))?;
            let column = &self.columns[position];
            if meta.dimension != column.dimension {
                return Err(invalid(format!(
                    "index column {:?} has dimension {}, the request says {}",
                    column.name, column.dimension, meta.dimension
                )));
            }
            if vectors.iter().any(|(known, _, _)| *known == position) {
                return Err(invalid(format!("index column {:?} is named twice", meta.column)));
            }
            vectors.push((position, column, meta));
        }
        if raw.forward_names.len() > self.forward_columns.len() {
            return Err(invalid(format!(
                "{} forward columns are named, the collection has {}",
                raw.forward_names.len(),
                self.forward_columns.len()
            )));
        }
        let mut forward: Vec<usize> = Vec::new();
        for name in &raw.forward_names {
            let position = self
                .forward_columns
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| invalid(format!("there is no forward column {name:?}")))?;
            if forward.contains(&position) {
                return Err(invalid(format!("forward column {name:?} is named twice")));
            }
            if self.is_filled_by_server(name) {
                return Err(invalid(format!("forward column {name:?} is filled by the server")));
            }
            forward.push(position);
        }
        Ok(Mapping { forward, vectors, row_vectors_max })
    }

    fn check_row(
        &self,
        position: usize,
        raw: RawRow,
        mapping: &Mapping<'_>,
        now: i64,
    ) -> Result<Row> {
        let lsn = match (self.follows_repository(), raw.lsn) {
            (true, None) => return Err(Error::EmptyLsnContext { row: position }),
            (true, lsn) => lsn,
            (false, _) => None,
        };
        if matches!(raw.condition, Some(Condition::Version(_))) && !self.versions {
            return Err(invalid(format!(
                "row {position} names a version; the collection was created without versions"
            )));
        }
        let change = match raw.operation {
            Operation::Delete => None,
            _ => Some(self.check_document(position, raw.vectors, raw.forward, mapping, now)?),
        };
        let change = match (raw.operation, change) {
            (Operation::Insert, Some(document)) => Change::Insert(document),
            (Operation::Update, Some(document)) => Change::Update(document),
            (Operation::Upsert, Some(document)) => Change::Upsert(document),
            (Operation::Delete, _) | (_, None) => Change::Delete,
        };
        if raw.key == u64::MAX {
            return Err(Error::InvalidArgument {
                detail: format!(
                    "row {position}: primary key {} is the mark of an invalid key and cannot be stored",
                    u64::MAX
                ),
            });
        }
        Ok(Row { key: raw.key, change, lsn, condition: raw.condition })
    }

    fn check_document(
        &self,
        position: usize,
        raw_vectors: Vec<RawVector>,
        raw_forward: Vec<Option<Value>>,
        mapping: &Mapping<'_>,
        now: i64,
    ) -> Result<Document> {
        let mut vectors: Box<[Option<Bytes>]> = vec![None; self.columns.len()].into();
        for (raw, (target, column, meta)) in raw_vectors.into_iter().zip(&mapping.vectors) {
            vectors[*target] = check_vector(position, raw, column, meta, mapping.row_vectors_max)?;
        }
        let mut forward: Vec<Option<Value>> = vec![None; self.forward_columns.len()];
        for (value, target) in raw_forward.into_iter().zip(&mapping.forward) {
            // A copy: a few bytes kept must not keep the whole message they came in.
            let value = match value {
                Some(Value::Bytes(bytes)) => Some(Value::Bytes(Bytes::copy_from_slice(&bytes))),
                other => other,
            };
            let value = value.map(|value| self.check_value(position, *target, value));
            forward[*target] = value.transpose()?;
        }
        if let Some(target) = self.write_time_position() {
            forward[target] = Some(Value::Int64(now));
        }
        Ok(Document { vectors, forward: forward.into() })
    }
}

impl CollectionSchema {
    /// A forward value as one of the kind that its column is declared to have.
    fn check_value(&self, row: usize, column: usize, value: Value) -> Result<Value> {
        let name = &self.forward_columns[column];
        let Some(kind) = self.forward_kinds.get(name) else { return Ok(value) };
        kind.convert(value).map_err(|value| {
            invalid(format!(
                "row {row}: forward column {name:?} is {}, the value is {}",
                kind.name(),
                value.describe()
            ))
        })
    }
}

fn check_counts(position: usize, row: &RawRow, raw: &RawWrite) -> Result<()> {
    if row.operation == Operation::Delete {
        return Ok(());
    }
    if raw.vector_metas.is_empty() {
        return Err(invalid(format!("row {position} is written without naming an index column")));
    }
    if row.vectors.len() != raw.vector_metas.len() {
        return Err(invalid(format!(
            "row {position} has {} index values for {} index columns",
            row.vectors.len(),
            raw.vector_metas.len()
        )));
    }
    if row.forward.len() != raw.forward_names.len() {
        return Err(invalid(format!(
            "row {position} has {} forward values for {} forward columns",
            row.forward.len(),
            raw.forward_names.len()
        )));
    }
    Ok(())
}

fn check_vector(
    row: usize,
    raw: RawVector,
    column: &VectorColumn,
    meta: &RawVectorMeta,
    row_vectors_max: u32,
) -> Result<Option<Bytes>> {
    if matches!(raw, RawVector::Other) {
        return Err(Error::MismatchedIndexColumn { row, column: column.name.clone() });
    }
    let rounds_to_half =
        column.element == ElementType::Fp16 && meta.element == Ok(ElementType::Fp32);
    if meta.element != Ok(column.element) && !rounds_to_half {
        return Err(Error::MismatchedDataType {
            column: column.name.clone(),
            expected: column.element.name().into(),
            got: meta.element.as_ref().map_or_else(Clone::clone, |e| e.name().into()),
        });
    }
    let misfit =
        |detail: String| Error::MismatchedDimension { row, column: column.name.clone(), detail };
    let Some(stored_bytes) = column.vector_bytes() else {
        return Err(misfit(format!(
            "no {} vector has dimension {}",
            column.element.name(),
            column.dimension
        )));
    };
    let vector = match raw {
        RawVector::Text(text) => {
            let length = column.element.numbers(column.dimension);
            let numbers = match column.multi {
                None => vector_text::flat_numbers(&text),
                Some(_) => vector_text::vector_numbers(&text, length),
            };
            let numbers = numbers.map_err(misfit)?;
            column.check_vector_count(row, numbers.len() / length, row_vectors_max)?;
            vector_text::pack_all(column.element, column.dimension, &numbers).map_err(misfit)?
        }
        RawVector::Bytes(bytes) => {
            let expected = if rounds_to_half { stored_bytes * 2 } else { stored_bytes };
            let Some(count) = column.count_vectors(bytes.len(), expected) else {
                let wanted = match column.multi {
                    None => format!("{expected} belong"),
                    Some(_) => format!("one or more times {expected} belong"),
                };
                return Err(misfit(format!("{} bytes where {wanted}", bytes.len())));
            };
            column.check_vector_count(row, count, row_vectors_max)?;
            if rounds_to_half { vector_text::fp32_to_fp16(&bytes) } else { bytes }
        }
        RawVector::Absent => return Ok(None),
        RawVector::Other => return Err(Error::internal("a vector of no kind passed its check")),
    };
    if let Some((element, value)) = vector_text::first_not_finite(column.element, &vector) {
        return Err(Error::NotFinite { row, column: column.name.clone(), element, value });
    }
    Ok(Some(vector))
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::InvalidWrite { detail: detail.into() }
}
