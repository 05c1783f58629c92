//! The values of a forward column of a sealed segment, where they lie in the mapped file: kind by kind
//! and batch by batch, for whoever looks at many of them.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, LargeBinaryArray, LargeStringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

use super::rows_file::RowsFile;
use crate::schema::{Datum, Number};

/// Rows of a word of a bitmap.
const WORD: usize = u64::BITS as usize;

/// A forward column, or the primary keys, of a segment.
#[derive(Debug)]
pub struct ForwardColumn<'a> {
    /// The batches in row order; all but the last have the same number of rows.
    pub batches: Vec<ForwardBatch<'a>>,
    /// That number: a power of two, 64 at least.
    pub batch_rows: usize,
}

/// The values of a run of rows.
#[derive(Debug)]
pub struct ForwardBatch<'a> {
    /// How many rows there are.
    pub rows: usize,
    /// The values of each kind; a row has a value in one of them at most.
    pub parts: Vec<Part<'a>>,
}

/// The values of one kind in a run of rows.
#[derive(Debug)]
pub struct Part<'a> {
    /// One value for each row, whatever it may be where the row has none of this kind.
    pub values: Values<'a>,
    present: Option<&'a NullBuffer>,
}

/// Values of one kind.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Raw bytes.
    Bytes(&'a LargeBinaryArray),
    /// Text.
    Text(&'a LargeStringArray),
    /// Truth values.
    Bool(&'a BooleanArray),
    /// 32-bit signed integers.
    Int32(&'a [i32]),
    /// 64-bit signed integers.
    Int64(&'a [i64]),
    /// 32-bit unsigned integers.
    UInt32(&'a [u32]),
    /// 64-bit unsigned integers.
    UInt64(&'a [u64]),
    /// 32-bit floats.
    Float(&'a [f32]),
    /// 64-bit floats.
    Double(&'a [f64]),
}

impl Values<'_> {
    /// True for the six kinds of numbers.
    pub fn are_numbers(&self) -> bool {
        !matches!(self, Values::Bytes(_) | Values::Text(_) | Values::Bool(_))
    }
}

impl<'a> Part<'a> {
    fn of_array(array: &'a ArrayRef) -> Option<Self> {
        let values = match array.data_type() {
            DataType::LargeBinary => Values::Bytes(array.as_binary()),
            DataType::LargeUtf8 => Values::Text(array.as_string()),
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>().values()),
            DataType::Float32 => Values::Float(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Values::Double(array.as_primitive::<Float64Type>().values()),
            _ => return None,
        };
        Some(Part { values, present: array.nulls() })
    }

    /// True when the row has a value of this kind.
    pub fn is_present(&self, row: usize) -> bool {
        self.present.is_none_or(|present| row < present.len() && present.is_valid(row))
    }

    /// True when every row has one.
    pub fn is_complete(&self) -> bool {
        self.present.is_none_or(|present| present.null_count() == 0)
    }

    /// Which of so many rows have a value of this kind, 64 to a word, the first in the lowest bit.
    pub fn present_words(&self, rows: usize) -> Vec<u64> {
        match self.present {
            Some(present) => {
                present.inner().bit_chunks().iter_padded().take(rows.div_ceil(WORD)).collect()
            }
            None => full_words(rows),
        }
    }

    /// The value of a row, if it has one of this kind.
    pub fn datum(&self, row: usize) -> Option<Datum<'a>> {
        if !self.is_present(row) {
            return None;
        }
        let int = |number: i128| Datum::Number(Number::Int(number));
        let float = |number: f64| Datum::Number(Number::Float(number));
        Some(match self.values {
            Values::Bytes(array) => Datum::Bytes((row < array.len()).then(|| array.value(row))?),
            Values::Text(array) => Datum::Text((row < array.len()).then(|| array.value(row))?),
            Values::Bool(array) => Datum::Bool((row < array.len()).then(|| array.value(row))?),
            Values::Int32(values) => int((*values.get(row)?).into()),
            Values::Int64(values) => int((*values.get(row)?).into()),
            Values::UInt32(values) => int((*values.get(row)?).into()),
            Values::UInt64(values) => int((*values.get(row)?).into()),
            Values::Float(values) => float((*values.get(row)?).into()),
            Values::Double(values) => float(*values.get(row)?),
        })
    }
}

/// The words of a bitmap that has all of so many rows.
pub fn full_words(rows: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; rows.div_ceil(WORD)];
    if let Some(last) = words.last_mut().filter(|_| !rows.is_multiple_of(WORD)) {
        *last = (1 << (rows % WORD)) - 1;
    }
    words
}

impl<'a> ForwardBatch<'a> {
    /// The value of a row of this batch.
    pub fn datum(&self, row: usize) -> Datum<'a> {
        self.parts.iter().find_map(|part| part.datum(row)).unwrap_or(Datum::Null)
    }
}

impl<'a> ForwardColumn<'a> {
    /// The values of a forward column by its position in the schema.
    pub(super) fn new(file: &'a RowsFile, column: usize) -> Self {
        let batch = |rows, array: Option<&'a ArrayRef>| {
            let parts = match array.map(|array| (array, array.as_struct_opt())) {
                Some((_, Some(kinds))) => {
                    kinds.columns().iter().filter_map(Part::of_array).collect()
                }
                Some((array, None)) => Part::of_array(array).into_iter().collect(),
                None => Vec::new(),
            };
            ForwardBatch { rows, parts }
        };
        let batches = file.batches.iter();
        let batches = batches.map(|found| batch(found.rows.len(), found.column(column)));
        ForwardColumn { batches: batches.collect(), batch_rows: file.batch_rows() }
    }

    /// The primary keys, as if they were a forward column.
    pub(super) fn of_keys(file: &'a RowsFile) -> Self {
        let batches = file.batches.iter().map(|batch| ForwardBatch {
            rows: batch.rows.len(),
            parts: vec![Part { values: Values::UInt64(&batch.rows.keys), present: None }],
        });
        ForwardColumn { batches: batches.collect(), batch_rows: file.batch_rows() }
    }

    /// The value of a row.
    pub fn datum(&self, row: u32) -> Datum<'a> {
        let batch = self.batches.get(row as usize / self.batch_rows);
        batch.map_or(Datum::Null, |batch| batch.datum(row as usize % self.batch_rows))
    }
}
