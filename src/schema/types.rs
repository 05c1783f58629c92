//! Element types, metrics and values: the words every other module speaks.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The element type of a vector column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// 32-bit IEEE float.
    Fp32,
    /// 16-bit IEEE float.
    Fp16,
    /// 8-bit signed integer.
    Int8,
    /// 4-bit signed integer (-8..=7); element 2i in the low nibble of byte i, 2i+1 in the high one.
    Int4,
    /// 16-bit signed integer.
    Int16,
    /// Bits in 32-bit words.
    Binary32,
    /// Bits in 64-bit words.
    Binary64,
}

impl ElementType {
    /// The type's name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            ElementType::Fp32 => "FP32",
            ElementType::Fp16 => "FP16",
            ElementType::Int8 => "INT8",
            ElementType::Int4 => "INT4",
            ElementType::Int16 => "INT16",
            ElementType::Binary32 => "BINARY32",
            ElementType::Binary64 => "BINARY64",
        }
    }

    /// True for the two bit types.
    pub const fn is_binary(self) -> bool {
        matches!(self, ElementType::Binary32 | ElementType::Binary64)
    }

    /// Numbers that one vector of `dimension` elements is written as in text: words for the bit types.
    pub const fn numbers(self, dimension: u32) -> usize {
        match self {
            ElementType::Binary32 => dimension as usize / 32,
            ElementType::Binary64 => dimension as usize / 64,
            _ => dimension as usize,
        }
    }

    /// Bytes of one vector of `dimension` elements, or `None` where the dimension is not a multiple
    /// of what the type packs together (2 for INT4, 32 and 64 for the bit types).
    pub const fn vector_bytes(self, dimension: u32) -> Option<usize> {
        let dimension = dimension as usize;
        match self {
            ElementType::Fp32 => Some(dimension * 4),
            ElementType::Fp16 | ElementType::Int16 => Some(dimension * 2),
            ElementType::Int8 => Some(dimension),
            ElementType::Int4 if dimension.is_multiple_of(2) => Some(dimension / 2),
            ElementType::Binary32 if dimension.is_multiple_of(32) => Some(dimension / 8),
            ElementType::Binary64 if dimension.is_multiple_of(64) => Some(dimension / 8),
            ElementType::Int4 | ElementType::Binary32 | ElementType::Binary64 => None,
        }
    }
}

/// How two vectors are compared. Every score is ascending: smaller is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Sum of squared differences, without a root; on bit types the number of differing bits. Range 0 and up.
    SquaredEuclidean,
    /// Square root of [`Metric::SquaredEuclidean`]. Range 0 and up.
    Euclidean,
    /// Minus the inner product. Any number.
    InnerProduct,
    /// 1 - cos of the angle. Range 0 to 2; a zero vector is at 1 from everything.
    Cosine,
    /// Sum of absolute differences. Range 0 and up.
    Manhattan,
    /// Number of differing bits (bit types only). Range 0 to the dimension.
    Hamming,
}

impl Metric {
    /// Every metric with its wire name.
    pub const ALL: [(&'static str, Metric); 6] = [
        ("SquaredEuclidean", Metric::SquaredEuclidean),
        ("Euclidean", Metric::Euclidean),
        ("InnerProduct", Metric::InnerProduct),
        ("Cosine", Metric::Cosine),
        ("Manhattan", Metric::Manhattan),
        ("Hamming", Metric::Hamming),
    ];

    /// The metric of that exact (case-sensitive) name.
    pub fn from_name(name: &str) -> Option<Metric> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    /// The wire name.
    pub fn name(self) -> &'static str {
        match self {
            Metric::SquaredEuclidean => "SquaredEuclidean",
            Metric::Euclidean => "Euclidean",
            Metric::InnerProduct => "InnerProduct",
            Metric::Cosine => "Cosine",
            Metric::Manhattan => "Manhattan",
            Metric::Hamming => "Hamming",
        }
    }
}

/// A forward value; its kind is the row's business, not the column's.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Raw bytes.
    Bytes(Bytes),
    /// UTF-8 text.
    String(String),
    /// A truth value.
    Bool(bool),
    /// A 32-bit signed integer.
    Int32(i32),
    /// A 64-bit signed integer.
    Int64(i64),
    /// A 32-bit unsigned integer.
    UInt32(u32),
    /// A 64-bit unsigned integer.
    UInt64(u64),
    /// A 32-bit float.
    Float(f32),
    /// A 64-bit float.
    Double(f64),
}

/// The kind of a forward value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// Raw bytes.
    Bytes,
    /// UTF-8 text.
    String,
    /// A truth value.
    Bool,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer.
    Int64,
    /// A 32-bit unsigned integer.
    UInt32,
    /// A 64-bit unsigned integer.
    UInt64,
    /// A 32-bit float.
    Float,
    /// A 64-bit float.
    Double,
}

impl ValueKind {
    /// Every kind with the name that users know it by.
    pub const ALL: [(&'static str, ValueKind); 9] = [
        ("bytes", ValueKind::Bytes),
        ("string", ValueKind::String),
        ("bool", ValueKind::Bool),
        ("int32", ValueKind::Int32),
        ("int64", ValueKind::Int64),
        ("uint32", ValueKind::UInt32),
        ("uint64", ValueKind::UInt64),
        ("float", ValueKind::Float),
        ("double", ValueKind::Double),
    ];

    /// The name that users know it by.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// The value as one of this kind: as it is, or a number that stays exactly the same number.
    pub fn convert(self, value: Value) -> std::result::Result<Value, Value> {
        if value.kind() == self {
            return Ok(value);
        }
        let converted = match (value.integer(), value.float()) {
            (Some(number), _) => match self {
                ValueKind::Int32 => i32::try_from(number).ok().map(Value::Int32),
                ValueKind::Int64 => i64::try_from(number).ok().map(Value::Int64),
                ValueKind::UInt32 => u32::try_from(number).ok().map(Value::UInt32),
                ValueKind::UInt64 => u64::try_from(number).ok().map(Value::UInt64),
                ValueKind::Float => {
                    Some(number as f32).filter(|n| *n as i128 == number).map(Value::Float)
                }
                ValueKind::Double => {
                    Some(number as f64).filter(|n| *n as i128 == number).map(Value::Double)
                }
                ValueKind::Bytes | ValueKind::String | ValueKind::Bool => None,
            },
            (None, Some(number)) => match self {
                ValueKind::Double => Some(Value::Double(number)),
                ValueKind::Float => {
                    let is_same = f64::from(number as f32) == number || number.is_nan();
                    is_same.then_some(Value::Float(number as f32))
                }
                _ => None,
            },
            (None, None) => None,
        };
        converted.ok_or(value)
    }
}

impl Value {
    /// The kind.
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Bytes(_) => ValueKind::Bytes,
            Value::String(_) => ValueKind::String,
            Value::Bool(_) => ValueKind::Bool,
            Value::Int32(_) => ValueKind::Int32,
            Value::Int64(_) => ValueKind::Int64,
            Value::UInt32(_) => ValueKind::UInt32,
            Value::UInt64(_) => ValueKind::UInt64,
            Value::Float(_) => ValueKind::Float,
            Value::Double(_) => ValueKind::Double,
        }
    }

    /// The value with its kind, for an error: texts are cut short.
    pub fn describe(&self) -> String {
        let kind = self.kind().name();
        match self {
            Value::Bytes(bytes) => format!("{} {kind}", bytes.len()),
            Value::String(text) => {
                format!("{kind} {:?}", text.chars().take(64).collect::<String>())
            }
            Value::Bool(truth) => format!("{kind} {truth}"),
            _ => match (self.integer(), self.float()) {
                (Some(number), _) => format!("{kind} {number}"),
                (_, number) => format!("{kind} {}", number.unwrap_or(f64::NAN)),
            },
        }
    }

    /// The number, of the four kinds of integers.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Value::Int32(number) => Some((*number).into()),
            Value::Int64(number) => Some((*number).into()),
            Value::UInt32(number) => Some((*number).into()),
            Value::UInt64(number) => Some((*number).into()),
            _ => None,
        }
    }

    /// The number, of the two kinds of floats.
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some((*number).into()),
            Value::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// Bytes of the value itself, without tags and lengths.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::String(text) => text.len(),
            Value::Bool(_) => 1,
            Value::Int32(_) | Value::UInt32(_) | Value::Float(_) => 4,
            Value::Int64(_) | Value::UInt64(_) | Value::Double(_) => 8,
        }
    }
}

/// The forward values of one row in schema order; `None` is unset. Cheap to clone.
pub type ForwardRow = Arc<[Option<Value>]>;

/// A position in the stream a repository collection follows, with the writer's own context text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LsnContext {
    /// The log sequence number.
    pub lsn: u64,
    /// The writer's words; stored and returned, never read.
    pub context: String,
}

/// What a row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Add a row under a key that must be free.
    Insert,
    /// Replace the whole row of a key that must exist.
    Update,
    /// Add a row, or replace the one that the key has.
    Upsert,
    /// Remove the row of a key that must exist.
    Delete,
}

/// The content of one row, checked against the schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// One vector per index column in schema order, little-endian as on the wire; `None` where the
    /// row has none in that column.
    pub vectors: Box<[Option<Bytes>]>,
    /// The forward values in schema order.
    pub forward: ForwardRow,
}

impl Document {
    /// Bytes of memory that the document takes while it is searched exactly, roughly.
    pub fn memory_bytes(&self) -> u64 {
        let vectors: usize = self.vectors.iter().flatten().map(Bytes::len).sum();
        let forward: usize =
            self.forward.iter().flatten().map(|value| 32 + value.payload_bytes()).sum();
        (vectors + forward) as u64
    }
}

/// What a checked row does to its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Add the document; the key must be free.
    Insert(Document),
    /// Replace the document; the key must exist.
    Update(Document),
    /// Add the document, or replace the one there is.
    Upsert(Document),
    /// Remove the key, which must exist.
    Delete,
    /// Remove the key, whose row must have expired.
    Expire,
}

/// Says whether a row is one of those meant.
pub trait RowTest: Send + Sync + std::fmt::Debug {
    /// True for a row that is meant. `forward` may have fewer values than there are columns.
    fn is_met(&self, key: u64, forward: &[Option<Value>]) -> bool;
}

/// What must hold of the row that a key has for a change of it to be made.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Its version is this one.
    Version(u64),
    /// It passes a test.
    Test(Arc<dyn RowTest>),
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Condition::Version(one), Condition::Version(other)) => one == other,
            (Condition::Test(one), Condition::Test(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// One row of a write request that passed every check that needs no state.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The primary key.
    pub key: u64,
    /// What to do.
    pub change: Change,
    /// Present exactly in repository collections.
    pub lsn: Option<LsnContext>,
    /// What must hold of the row that the key has.
    pub condition: Option<Condition>,
}
