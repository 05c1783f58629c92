//! Keys and forward values of arrays: which type becomes which kind, and what cannot be told exactly.
//!
//! | Arrow | Kind |
//! | --- | --- |
//! | int8, int16, int32; int64 | int32; int64 |
//! | uint8, uint16, uint32; uint64 | uint32; uint64 |
//! | float16, float32; float64 | float; double |
//! | bool, text, bytes | bool, string, bytes |
//! | timestamp, duration, time, date | int64: milliseconds of seconds, days and milliseconds, else microseconds |
//! | dictionary | that of its values |
//! | a struct of nullable fields called as kinds | that of the field that is set |

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_schema::{DataType, TimeUnit};
use arrow_select::take::take;
use bytes::Bytes;

use crate::schema::{Value, ValueKind};
use crate::segment::{KindSet, value_at};

/// A key that cannot be stored.
const NO_KEY: u64 = u64::MAX;

/// True for types that keys can have: whole numbers, of several kinds where only some are large.
pub fn is_integer(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => {
            KindSet::of_type(data_type).is_some()
                && fields.iter().all(|field| field.data_type().is_integer())
        }
        other => other.is_integer(),
    }
}

/// What a count of units of time is multiplied with, or divided by.
#[derive(Debug, Clone, Copy)]
enum Scale {
    Times(i64),
    Parts(i64),
}

/// How a type that is not read as it is becomes milliseconds or microseconds.
fn time_scale(data_type: &DataType) -> Option<Scale> {
    Some(match data_type {
        DataType::Date32 => Scale::Times(86_400_000),
        DataType::Date64 => Scale::Times(1),
        DataType::Timestamp(unit, _)
        | DataType::Duration(unit)
        | DataType::Time32(unit)
        | DataType::Time64(unit) => match unit {
            TimeUnit::Second => Scale::Times(1_000),
            TimeUnit::Millisecond | TimeUnit::Microsecond => Scale::Times(1),
            TimeUnit::Nanosecond => Scale::Parts(1_000),
        },
        _ => return None,
    })
}

/// The kind of all values of a type; `None` where there are several, or the type is no forward column's.
pub fn value_kind(data_type: &DataType) -> Option<ValueKind> {
    Some(match data_type {
        DataType::Dictionary(_, values) => return value_kind(values),
        DataType::Utf8View | DataType::Utf8 => ValueKind::String,
        DataType::BinaryView | DataType::Binary | DataType::FixedSizeBinary(_) => ValueKind::Bytes,
        DataType::Int8 | DataType::Int16 => ValueKind::Int32,
        DataType::UInt8 | DataType::UInt16 => ValueKind::UInt32,
        DataType::Float16 => ValueKind::Float,
        other if time_scale(other).is_some() => ValueKind::Int64,
        other => return KindSet::of_type(other)?.only(),
    })
}

/// Says why a type cannot be that of a forward column, if it cannot.
pub fn check_values(data_type: &DataType) -> std::result::Result<(), String> {
    match data_type {
        DataType::Dictionary(_, values) => check_values(values),
        other if value_kind(other).is_some() || KindSet::of_type(other).is_some() => Ok(()),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Err(format!(
            "of type {data_type}, and forward values are no decimals; cast it to a double or to text"
        )),
        nested if nested.is_nested() => {
            Err(format!("of type {nested}, and forward columns have values that are not nested"))
        }
        other => Err(format!("of type {other}, which forward columns do not have")),
    }
}

/// The values of an array. `fault` is called for rows whose value is not exactly one of ours.
pub fn values(
    array: &ArrayRef,
    mut fault: impl FnMut(usize, String),
) -> std::result::Result<Vec<Option<Value>>, String> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        let decoded = take(dictionary.values(), dictionary.keys(), None);
        return values(&decoded.map_err(|cause| cause.to_string())?, fault);
    }
    if let Some(scale) = time_scale(array.data_type()) {
        let counts = counts(array).ok_or("no count of units of time")?;
        let scaled = counts.into_iter().enumerate().map(|(row, count)| {
            let count = count?;
            let scaled = match scale {
                Scale::Times(times) => count.checked_mul(times),
                Scale::Parts(parts) => (count % parts == 0).then(|| count / parts),
            };
            if scaled.is_none() {
                fault(row, format!("{count} is not exact in {}", unit(array.data_type())));
            }
            scaled.map(Value::Int64)
        });
        return Ok(scaled.collect());
    }
    check_values(array.data_type())?;
    Ok(match array.data_type() {
        DataType::Utf8 => of(array.as_string::<i32>(), |text| Value::String(text.to_owned())),
        DataType::LargeUtf8 => of(array.as_string::<i64>(), |text| Value::String(text.to_owned())),
        DataType::Utf8View => of(array.as_string_view(), |text| Value::String(text.to_owned())),
        DataType::Binary => of(array.as_binary::<i32>(), bytes),
        DataType::LargeBinary => of(array.as_binary::<i64>(), bytes),
        DataType::BinaryView => of(array.as_binary_view(), bytes),
        DataType::FixedSizeBinary(_) => of(array.as_fixed_size_binary(), bytes),
        DataType::Boolean => of(array.as_boolean(), Value::Bool),
        DataType::Int8 => of(array.as_primitive::<Int8Type>(), |n| Value::Int32(n.into())),
        DataType::Int16 => of(array.as_primitive::<Int16Type>(), |n| Value::Int32(n.into())),
        DataType::Int32 => of(array.as_primitive::<Int32Type>(), Value::Int32),
        DataType::Int64 => of(array.as_primitive::<Int64Type>(), Value::Int64),
        DataType::UInt8 => of(array.as_primitive::<UInt8Type>(), |n| Value::UInt32(n.into())),
        DataType::UInt16 => of(array.as_primitive::<UInt16Type>(), |n| Value::UInt32(n.into())),
        DataType::UInt32 => of(array.as_primitive::<UInt32Type>(), Value::UInt32),
        DataType::UInt64 => of(array.as_primitive::<UInt64Type>(), Value::UInt64),
        DataType::Float16 => of(array.as_primitive::<Float16Type>(), |x| Value::Float(x.to_f32())),
        DataType::Float32 => of(array.as_primitive::<Float32Type>(), Value::Float),
        DataType::Float64 => of(array.as_primitive::<Float64Type>(), Value::Double),
        // Nothing, or a struct of kinds.
        _ => (0..array.len()).map(|row| value_at(array, row)).collect(),
    })
}

fn of<T>(
    array: impl IntoIterator<Item = Option<T>>,
    value: impl Fn(T) -> Value,
) -> Vec<Option<Value>> {
    array.into_iter().map(|item| item.map(&value)).collect()
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

fn unit(data_type: &DataType) -> &'static str {
    match time_scale(data_type) {
        Some(Scale::Parts(_)) => "microseconds",
        _ => "milliseconds of 64 bits",
    }
}

/// The counts of units of time as they are.
fn counts(array: &ArrayRef) -> Option<Vec<Option<i64>>> {
    let data = array.to_data();
    if matches!(array.data_type(), DataType::Date32 | DataType::Time32(_)) {
        let data = data.into_builder().data_type(DataType::Int32).build().ok()?;
        let counts = PrimitiveArray::<Int32Type>::from(data);
        return Some(counts.iter().map(|count| count.map(i64::from)).collect());
    }
    let data = data.into_builder().data_type(DataType::Int64).build().ok()?;
    Some(PrimitiveArray::<Int64Type>::from(data).iter().collect())
}

/// The keys of an array. `fault` is called for rows whose key cannot be one.
pub fn keys(array: &ArrayRef, mut fault: impl FnMut(usize, String)) -> Vec<u64> {
    macro_rules! widened {
        ($type:ty) => {
            integers::<$type>(array)
        };
    }
    let numbers: Vec<Option<i128>> = match array.data_type() {
        DataType::Int8 => widened!(Int8Type),
        DataType::Int16 => widened!(Int16Type),
        DataType::Int32 => widened!(Int32Type),
        DataType::Int64 => widened!(Int64Type),
        DataType::UInt8 => widened!(UInt8Type),
        DataType::UInt16 => widened!(UInt16Type),
        DataType::UInt32 => widened!(UInt32Type),
        DataType::UInt64 => widened!(UInt64Type),
        _ => (0..array.len()).map(|row| value_at(array, row)?.integer()).collect(),
    };
    let key = |(row, number): (usize, Option<i128>)| {
        let Some(number) = number else {
            fault(row, "no whole number, which keys are".to_owned());
            return NO_KEY;
        };
        match u64::try_from(number) {
            Ok(key) if key != NO_KEY => key,
            _ => {
                fault(row, format!("{number}, and keys are 0 to {}", NO_KEY - 1));
                NO_KEY
            }
        }
    };
    numbers.into_iter().enumerate().map(key).collect()
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &ArrayRef) -> Vec<Option<i128>> {
    array.as_primitive::<T>().iter().map(|number| number.map(Into::into)).collect()
}
