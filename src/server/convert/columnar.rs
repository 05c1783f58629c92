//! Writes of our own contract, column by column, and their acknowledgements.

use bytes::Bytes;

use super::super::proto::voisin_v1 as wire;
use super::super::status::{shorten, voisin_code, voisin_row_code};
use crate::collection::WriteOutcome;
use crate::error::{Error, Result};
use crate::schema::{
    Condition, ElementType, LsnContext, Operation, RawRow, RawVector, RawVectorMeta, RawWrite,
    Value,
};

/// Turns columns into rows. Vectors stay where they lie in the message. The caller has bounded the
/// number of rows; here all columns are made to agree with it before memory is taken.
pub(in crate::server) fn columnar_write(request: wire::WriteRequest) -> Result<RawWrite> {
    let rows = request.keys.len();
    let operations = operations(&request)?;
    let mut lsns = lsns(request.lsns, rows)?.into_iter();
    let mut conditions = conditions(&request.if_versions, &operations)?.into_iter();
    if operations.iter().all(|operation| *operation == Operation::Delete) {
        return Ok(deletes(request.keys, lsns, conditions));
    }
    let mut vectors = Vec::with_capacity(request.vectors.len());
    let mut vector_metas = Vec::with_capacity(request.vectors.len());
    for column in request.vectors {
        let element = element(&column)?;
        vectors.push(Vectors::new(&column, element, rows)?);
        vector_metas.push(RawVectorMeta {
            column: column.name,
            element: Ok(element),
            dimension: column.dimension,
        });
    }
    let mut forwards = Vec::with_capacity(request.forwards.len());
    let mut forward_names = Vec::with_capacity(request.forwards.len());
    for column in request.forwards {
        if column.values.len() != rows {
            return Err(invalid(format!(
                "forward column {:?} has {} values for {rows} keys",
                column.name,
                column.values.len()
            )));
        }
        forwards.push(column.values.into_iter());
        forward_names.push(column.name);
    }
    let row = |(position, (key, operation))| RawRow {
        key,
        operation,
        forward: forwards.iter_mut().map(|column| column.next().and_then(value)).collect(),
        vectors: vectors.iter().map(|column| column.at(position)).collect(),
        lsn: lsns.next(),
        condition: conditions.next().flatten(),
    };
    let rows = request.keys.into_iter().zip(operations).enumerate().map(row).collect();
    Ok(RawWrite { forward_names, vector_metas, rows })
}

/// Deletes are nothing but keys; columns sent with them have no meaning.
fn deletes(
    keys: Vec<u64>,
    mut lsns: impl Iterator<Item = LsnContext>,
    mut conditions: impl Iterator<Item = Option<Condition>>,
) -> RawWrite {
    let row = |key| RawRow {
        key,
        operation: Operation::Delete,
        forward: Vec::new(),
        vectors: Vec::new(),
        lsn: lsns.next(),
        condition: conditions.next().flatten(),
    };
    RawWrite { rows: keys.into_iter().map(row).collect(), ..RawWrite::default() }
}

/// The vectors of one column, row after row.
struct Vectors {
    bytes: Bytes,
    vector_bytes: usize,
    /// How many vectors there are up to and with each row; `None` for one each.
    ends: Option<Vec<usize>>,
}

impl Vectors {
    fn new(column: &wire::VectorColumn, element: ElementType, rows: usize) -> Result<Self> {
        let Some(vector_bytes) = element.vector_bytes(column.dimension) else {
            return Err(invalid(format!(
                "vector column {:?}: no {} vector has dimension {}",
                column.name,
                element.name(),
                column.dimension
            )));
        };
        if !column.counts.is_empty() && column.counts.len() != rows {
            return Err(invalid(format!(
                "vector column {:?} has {} counts for {rows} keys",
                column.name,
                column.counts.len()
            )));
        }
        let counts = column.counts.iter().map(|count| u64::from(*count));
        let vectors = if column.counts.is_empty() { rows as u64 } else { counts.sum() };
        // Compared in 128 bits: dimension and counts are the caller's and may be anything.
        if column.vectors.len() as u128 != u128::from(vectors) * vector_bytes as u128 {
            let what = if column.counts.is_empty() { "keys" } else { "vectors counted" };
            return Err(invalid(format!(
                "vector column {:?} has {} bytes; {vectors} {what} need {vector_bytes} bytes each",
                column.name,
                column.vectors.len()
            )));
        }
        // There are bytes for all of them: the sums are small.
        let ends = column.counts.iter().scan(0, |end, count| {
            *end += *count as usize;
            Some(*end)
        });
        let ends = Some(ends.collect()).filter(|ends: &Vec<usize>| !ends.is_empty());
        Ok(Vectors { bytes: column.vectors.clone(), vector_bytes, ends })
    }

    /// The vectors of a row. `position` is below the number of rows that `new` was given.
    fn at(&self, position: usize) -> RawVector {
        let places = match &self.ends {
            None => position..position + 1,
            Some(ends) => position.checked_sub(1).map_or(0, |before| ends[before])..ends[position],
        };
        if places.is_empty() {
            return RawVector::Absent;
        }
        let bytes = places.start * self.vector_bytes..places.end * self.vector_bytes;
        RawVector::Bytes(self.bytes.slice(bytes))
    }
}

fn operations(request: &wire::WriteRequest) -> Result<Vec<Operation>> {
    let rows = request.keys.len();
    if request.operations.is_empty() {
        return Ok(vec![operation(request.operation)?; rows]);
    }
    if request.operations.len() != rows {
        return Err(invalid(format!(
            "there are {} operations for {rows} keys",
            request.operations.len()
        )));
    }
    request.operations.iter().map(|number| operation(*number)).collect()
}

/// The versions that rows must have to be changed.
fn conditions(versions: &[u64], operations: &[Operation]) -> Result<Vec<Option<Condition>>> {
    if !versions.is_empty() && versions.len() != operations.len() {
        return Err(invalid(format!(
            "there are {} if_versions for {} keys",
            versions.len(),
            operations.len()
        )));
    }
    let condition = |(row, (version, operation)): (usize, (&u64, &Operation))| match version {
        0 => Ok(None),
        version if *operation == Operation::Insert => Err(invalid(format!(
            "row {row} is an insert that names version {version}: its key has no row"
        ))),
        version => Ok(Some(Condition::Version(*version))),
    };
    versions.iter().zip(operations).enumerate().map(condition).collect()
}

fn operation(number: i32) -> Result<Operation> {
    match wire::Operation::try_from(number) {
        Ok(wire::Operation::Insert) => Ok(Operation::Insert),
        Ok(wire::Operation::Update) => Ok(Operation::Update),
        Ok(wire::Operation::Delete) => Ok(Operation::Delete),
        Ok(wire::Operation::Upsert) => Ok(Operation::Upsert),
        Ok(wire::Operation::Unspecified) => Err(invalid("the operation is not set".to_owned())),
        Err(_) => Err(invalid(format!("operation {number} is unknown"))),
    }
}

fn element(column: &wire::VectorColumn) -> Result<ElementType> {
    known_element(column.element)
        .map_err(|words| invalid(format!("vector column {:?}: {words}", column.name)))
}

/// An element type as the wire has it.
pub(in crate::server) fn element_type(element: ElementType) -> wire::ElementType {
    match element {
        ElementType::Fp32 => wire::ElementType::Fp32,
        ElementType::Fp16 => wire::ElementType::Fp16,
        ElementType::Int8 => wire::ElementType::Int8,
        ElementType::Int4 => wire::ElementType::Int4,
        ElementType::Int16 => wire::ElementType::Int16,
        ElementType::Binary32 => wire::ElementType::Binary32,
        ElementType::Binary64 => wire::ElementType::Binary64,
    }
}

/// An operation as the wire has it.
pub(in crate::server) fn operation_type(operation: Operation) -> wire::Operation {
    match operation {
        Operation::Insert => wire::Operation::Insert,
        Operation::Update => wire::Operation::Update,
        Operation::Delete => wire::Operation::Delete,
        Operation::Upsert => wire::Operation::Upsert,
    }
}

/// What an element type means: `Err` holds the words for one that means nothing.
pub(in crate::server) fn known_element(number: i32) -> std::result::Result<ElementType, String> {
    match wire::ElementType::try_from(number) {
        Ok(wire::ElementType::Fp32) => Ok(ElementType::Fp32),
        Ok(wire::ElementType::Fp16) => Ok(ElementType::Fp16),
        Ok(wire::ElementType::Int8) => Ok(ElementType::Int8),
        Ok(wire::ElementType::Int4) => Ok(ElementType::Int4),
        Ok(wire::ElementType::Int16) => Ok(ElementType::Int16),
        Ok(wire::ElementType::Binary32) => Ok(ElementType::Binary32),
        Ok(wire::ElementType::Binary64) => Ok(ElementType::Binary64),
        Ok(wire::ElementType::Fp64) => {
            Err("FP64, which columns of FP32 and FP16 take and no column holds".to_owned())
        }
        Ok(wire::ElementType::Unspecified) => Err("no element type".to_owned()),
        Err(_) => Err(format!("unknown element type {number}")),
    }
}

fn lsns(lsns: Vec<wire::LsnContext>, rows: usize) -> Result<Vec<LsnContext>> {
    if !lsns.is_empty() && lsns.len() != rows {
        return Err(invalid(format!("there are {} lsns for {rows} keys", lsns.len())));
    }
    let lsn = |lsn: wire::LsnContext| LsnContext { lsn: lsn.lsn, context: lsn.context };
    Ok(lsns.into_iter().map(lsn).collect())
}

pub(in crate::server) fn value(value: wire::Value) -> Option<Value> {
    use wire::value::Kind;
    Some(match value.kind? {
        Kind::BytesValue(bytes) => Value::Bytes(bytes),
        Kind::StringValue(text) => Value::String(text),
        Kind::BoolValue(truth) => Value::Bool(truth),
        Kind::Int32Value(number) => Value::Int32(number),
        Kind::Int64Value(number) => Value::Int64(number),
        Kind::Uint32Value(number) => Value::UInt32(number),
        Kind::Uint64Value(number) => Value::UInt64(number),
        Kind::FloatValue(number) => Value::Float(number),
        Kind::DoubleValue(number) => Value::Double(number),
    })
}

/// A forward value as it goes out.
pub(in crate::server) fn wire_value(value: Option<Value>) -> wire::Value {
    use wire::value::Kind;
    let kind = value.map(|value| match value {
        Value::Bytes(bytes) => Kind::BytesValue(bytes),
        Value::String(text) => Kind::StringValue(text),
        Value::Bool(truth) => Kind::BoolValue(truth),
        Value::Int32(number) => Kind::Int32Value(number),
        Value::Int64(number) => Kind::Int64Value(number),
        Value::UInt32(number) => Kind::Uint32Value(number),
        Value::UInt64(number) => Kind::Uint64Value(number),
        Value::Float(number) => Kind::FloatValue(number),
        Value::Double(number) => Kind::DoubleValue(number),
    });
    wire::Value { kind }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::InvalidWrite { detail: detail.into() }
}

/// The acknowledgement of a request that was applied.
pub(in crate::server) fn acknowledge(request_id: u64, outcome: WriteOutcome) -> wire::WriteAck {
    let failure = |(row, key, error)| wire::RowFailure {
        // Rows are counted in 32 bits: the limit on them is.
        row: u32::try_from(row).unwrap_or(u32::MAX),
        key,
        code: voisin_row_code(error).into(),
        message: error.to_string(),
    };
    wire::WriteAck {
        request_id,
        rows_applied: outcome.rows_applied,
        failures: outcome.failures.into_iter().map(failure).collect(),
        status: None,
    }
}

/// The acknowledgement of a request that was refused as a whole.
pub(in crate::server) fn refuse(request_id: u64, error: &Error) -> wire::WriteAck {
    let message = shorten(&error.to_string()).to_owned();
    wire::WriteAck {
        request_id,
        status: Some(wire::Status { code: voisin_code(error).into(), message }),
        ..wire::WriteAck::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RowError;

    fn request() -> wire::WriteRequest {
        let value = |kind| wire::Value { kind };
        wire::WriteRequest {
            keys: vec![10, 11],
            operation: wire::Operation::Insert.into(),
            vectors: vec![wire::VectorColumn {
                name: "image".into(),
                element: wire::ElementType::Int8.into(),
                dimension: 3,
                vectors: Bytes::from_static(&[1, 2, 3, 4, 5, 6]),
                ..Default::default()
            }],
            forwards: vec![wire::ForwardColumn {
                name: "path".into(),
                values: vec![
                    value(Some(wire::value::Kind::StringValue("a.jpg".into()))),
                    value(None),
                ],
            }],
            ..Default::default()
        }
    }

    #[test]
    fn columns_become_rows() {
        let raw = columnar_write(request()).expect("the columns agree");
        assert_eq!(raw.forward_names, ["path"]);
        let meta = &raw.vector_metas[0];
        assert_eq!((meta.column.as_str(), meta.dimension), ("image", 3));
        assert_eq!(meta.element, Ok(ElementType::Int8));
        let [first, second] = &raw.rows[..] else { panic!("two rows") };
        assert_eq!((first.key, first.operation), (10, Operation::Insert));
        assert_eq!(first.forward, [Some(Value::String("a.jpg".into()))]);
        assert!(matches!(&first.vectors[..], [RawVector::Bytes(bytes)] if bytes[..] == [1, 2, 3]));
        assert_eq!((second.key, &second.forward[..]), (11, &[None][..]));
        assert!(matches!(&second.vectors[..], [RawVector::Bytes(bytes)] if bytes[..] == [4, 5, 6]));
        assert!(first.lsn.is_none());
    }

    #[test]
    fn rows_have_as_many_vectors_as_are_counted() {
        let with = |counts: &[u32]| {
            let mut request = request();
            request.vectors[0].counts = counts.to_vec();
            let raw = columnar_write(request)?;
            let bytes = |row: &RawRow| match &row.vectors[..] {
                [RawVector::Bytes(bytes)] => bytes.to_vec(),
                [RawVector::Absent] => Vec::new(),
                other => panic!("{other:?}"),
            };
            Ok(raw.rows.iter().map(bytes).collect::<Vec<_>>())
        };
        let refused = |counts: &[u32]| -> String {
            let error: Error = with(counts).expect_err("the counts do not fit");
            error.to_string()
        };
        assert_eq!(with(&[1, 1]).expect("they fit"), [vec![1, 2, 3], vec![4, 5, 6]]);
        assert_eq!(with(&[2, 0]).expect("they fit"), [vec![1, 2, 3, 4, 5, 6], vec![]]);
        assert!(refused(&[2]).contains("has 1 counts for 2 keys"), "{}", refused(&[2]));
        let words = "6 bytes; 3 vectors counted need 3 bytes each";
        assert!(refused(&[1, 2]).contains(words), "{}", refused(&[1, 2]));
        assert!(refused(&[u32::MAX, u32::MAX]).contains("8589934590 vectors counted"));
    }

    #[test]
    fn rows_may_differ_in_operation_and_carry_lsns() {
        let lsn = |lsn| wire::LsnContext { lsn, context: format!("c{lsn}") };
        let raw = columnar_write(wire::WriteRequest {
            operations: vec![3, 2],
            lsns: vec![lsn(5), lsn(6)],
            ..request()
        })
        .expect("the columns agree");
        let operations: Vec<_> = raw.rows.iter().map(|row| row.operation).collect();
        assert_eq!(operations, [Operation::Delete, Operation::Update]);
        assert_eq!(raw.rows[1].lsn, Some(LsnContext { lsn: 6, context: "c6".into() }));
    }

    #[test]
    fn deletes_need_only_keys() {
        let raw = columnar_write(wire::WriteRequest {
            keys: vec![1, 2],
            operation: wire::Operation::Delete.into(),
            ..Default::default()
        })
        .expect("deletes need nothing else");
        assert_eq!(raw.rows.iter().map(|row| row.key).collect::<Vec<_>>(), [1, 2]);
        assert!(raw.rows.iter().all(|row| row.operation == Operation::Delete));
    }

    #[test]
    fn columns_that_disagree_are_refused() {
        let check = |spoil: fn(&mut wire::WriteRequest), words: &str| {
            let mut spoilt = request();
            spoil(&mut spoilt);
            match columnar_write(spoilt) {
                Err(Error::InvalidWrite { detail }) => assert!(detail.contains(words), "{detail}"),
                other => panic!("{words}: {other:?}"),
            }
        };
        check(|r| r.operation = 0, "operation is not set");
        check(|r| r.operation = 9, "operation 9 is unknown");
        check(|r| r.operations = vec![1], "1 operations for 2 keys");
        check(|r| r.operations = vec![1, 0], "operation is not set");
        check(|r| r.lsns = vec![wire::LsnContext::default()], "1 lsns for 2 keys");
        check(|r| r.vectors[0].element = 0, "no element type");
        check(|r| r.vectors[0].element = 99, "unknown element type 99");
        check(|r| r.vectors[0].dimension = 2, "has 6 bytes; 2 keys need 2 bytes each");
        check(|r| r.vectors[0].dimension = u32::MAX, "has 6 bytes");
        check(
            |r| {
                r.vectors[0].element = wire::ElementType::Int4.into();
            },
            "no INT4 vector has dimension 3",
        );
        check(|r| r.forwards[0].values.truncate(1), "1 values for 2 keys");
    }

    #[test]
    fn values_of_every_kind_arrive() {
        use wire::value::Kind;
        let check = |kind: Option<Kind>, expected: Option<Value>| {
            assert_eq!(value(wire::Value { kind }), expected);
        };
        check(None, None);
        let bytes = Bytes::from_static(b"\xff");
        check(Some(Kind::BytesValue(bytes.clone())), Some(Value::Bytes(bytes)));
        check(Some(Kind::StringValue("s".into())), Some(Value::String("s".into())));
        check(Some(Kind::BoolValue(true)), Some(Value::Bool(true)));
        check(Some(Kind::Int32Value(-1)), Some(Value::Int32(-1)));
        check(Some(Kind::Int64Value(-1)), Some(Value::Int64(-1)));
        check(Some(Kind::Uint32Value(1)), Some(Value::UInt32(1)));
        check(Some(Kind::Uint64Value(1)), Some(Value::UInt64(1)));
        check(Some(Kind::FloatValue(0.5)), Some(Value::Float(0.5)));
        check(Some(Kind::DoubleValue(0.5)), Some(Value::Double(0.5)));
    }

    #[test]
    fn acknowledgements_say_which_rows_failed_or_why_all_did() {
        let failures = vec![
            (1, 7, RowError::DuplicateKey),
            (4, 8, RowError::KeyNotFound),
            (5, 9, RowError::StaleLsn),
        ];
        let ack = acknowledge(42, WriteOutcome { rows_applied: 3, failures });
        assert_eq!((ack.request_id, ack.rows_applied, ack.status), (42, 3, None));
        let told: Vec<_> = ack.failures.iter().map(|f| (f.row, f.key, f.code())).collect();
        use wire::RowFailureCode::*;
        assert_eq!(told, [(1, 7, DuplicateKey), (4, 8, KeyNotFound), (5, 9, StaleLsn)]);
        assert_eq!(ack.failures[0].message, "the key exists already");

        let ack = refuse(43, &Error::Stopping);
        let status = ack.status.expect("a refusal has a status");
        assert_eq!((ack.request_id, status.code()), (43, wire::Code::Unavailable));
        assert_eq!(status.message, "the server is stopping");
    }
}
