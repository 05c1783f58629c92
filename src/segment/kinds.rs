//! Forward values as Arrow arrays: values of one kind are an array of that kind's type, values of mixed
//! kinds a struct with one nullable field per kind, and a column without values is of type null.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeBinaryArray, LargeStringArray, NullArray, StructArray, UInt32Array, UInt64Array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields};
use bytes::Bytes;

use crate::schema::{Value, ValueKind};

/// The kinds of value a forward column holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindSet(u16);

fn kind_type(kind: usize) -> DataType {
    match kind {
        0 => DataType::LargeBinary,
        1 => DataType::LargeUtf8,
        2 => DataType::Boolean,
        3 => DataType::Int32,
        4 => DataType::Int64,
        5 => DataType::UInt32,
        6 => DataType::UInt64,
        7 => DataType::Float32,
        _ => DataType::Float64,
    }
}

impl KindSet {
    /// Adds the kind of a value.
    pub fn include(&mut self, value: &Value) {
        self.include_kind(value.kind());
    }

    /// Adds a kind.
    pub fn include_kind(&mut self, kind: ValueKind) {
        self.0 |= 1 << kind as usize;
    }

    /// The one kind of the set, where it has no other.
    pub fn only(self) -> Option<ValueKind> {
        let mut kinds = self.kinds();
        let only = kinds.next().filter(|_| kinds.next().is_none());
        only.map(|kind| ValueKind::ALL[kind].1)
    }

    /// Adds all kinds of another set.
    pub fn include_all(&mut self, other: KindSet) {
        self.0 |= other.0;
    }

    fn kinds(self) -> impl Iterator<Item = usize> {
        (0..ValueKind::ALL.len()).filter(move |kind| self.0 & (1 << kind) != 0)
    }

    /// The type of an array of such values.
    pub fn data_type(self) -> DataType {
        let kinds: Vec<usize> = self.kinds().collect();
        match kinds[..] {
            [] => DataType::Null,
            [kind] => kind_type(kind),
            _ => DataType::Struct(
                kinds
                    .iter()
                    .map(|&kind| Field::new(ValueKind::ALL[kind].0, kind_type(kind), true))
                    .collect(),
            ),
        }
    }

    /// The kinds of values in an array of that type; `None` where it is no type of values.
    pub fn of_type(data_type: &DataType) -> Option<KindSet> {
        match data_type {
            DataType::Null => Some(KindSet(0)),
            DataType::Struct(fields) => {
                let mut set = KindSet(0);
                for field in fields {
                    let kind = ValueKind::ALL.iter().position(|(name, _)| name == field.name())?;
                    (kind_type(kind) == *field.data_type()).then_some(())?;
                    set.0 |= 1 << kind;
                }
                Some(set)
            }
            single => (0..ValueKind::ALL.len())
                .find(|kind| kind_type(*kind) == *single)
                .map(|kind| KindSet(1 << kind)),
        }
    }
}

/// Values as an array of [`KindSet::data_type`]; those of kinds outside the set are null.
pub fn forward_array(kinds: KindSet, values: &[Option<&Value>]) -> ArrayRef {
    let each: Vec<usize> = kinds.kinds().collect();
    match each[..] {
        [] => Arc::new(NullArray::new(values.len())),
        [kind] => kind_array(kind, values),
        _ => {
            let fields: Fields = each
                .iter()
                .map(|&kind| Field::new(ValueKind::ALL[kind].0, kind_type(kind), true))
                .collect();
            let arrays = each.iter().map(|&kind| kind_array(kind, values)).collect();
            let set: Vec<bool> = values.iter().map(Option::is_some).collect();
            Arc::new(StructArray::new(fields, arrays, Some(NullBuffer::from(set))))
        }
    }
}

/// The values of one kind; rows of another kind are null.
fn kind_array(kind: usize, values: &[Option<&Value>]) -> ArrayRef {
    macro_rules! collect {
        ($array:ty, $pattern:pat => $value:expr) => {
            Arc::new(
                values
                    .iter()
                    .map(|value| match value {
                        Some($pattern) => Some($value),
                        _ => None,
                    })
                    .collect::<$array>(),
            )
        };
    }
    match kind {
        0 => collect!(LargeBinaryArray, Value::Bytes(v) => v.as_ref()),
        1 => collect!(LargeStringArray, Value::String(v) => v.as_str()),
        2 => collect!(BooleanArray, Value::Bool(v) => *v),
        3 => collect!(Int32Array, Value::Int32(v) => *v),
        4 => collect!(Int64Array, Value::Int64(v) => *v),
        5 => collect!(UInt32Array, Value::UInt32(v) => *v),
        6 => collect!(UInt64Array, Value::UInt64(v) => *v),
        7 => collect!(Float32Array, Value::Float(v) => *v),
        _ => collect!(Float64Array, Value::Double(v) => *v),
    }
}

/// The value of a row of such an array; `None` where it is unset, or where there is no such row.
pub fn value_at(array: &ArrayRef, row: usize) -> Option<Value> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::LargeBinary => {
            Value::Bytes(Bytes::copy_from_slice(array.as_binary::<i64>().value(row)))
        }
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(row).to_owned()),
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Value::Int32(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => Value::Int64(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt32 => Value::UInt32(array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => Value::UInt64(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 => Value::Float(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Struct(_) => {
            return array.as_struct().columns().iter().find_map(|field| value_at(field, row));
        }
        _ => return None,
    })
}
