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

impl Value {
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
    /// Remove the key, which must exist.
    Delete,
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
}
