//! All conversion between protobuf messages and the domain, by hand: what a message means is
//! decided here and nowhere else. Nothing here checks against a schema; a field that has no
//! meaning at all (such as an unknown number) is carried on as such for the domain to refuse.

mod collection;
mod columnar;
mod native_collection;
mod native_query;
mod query;
mod rows;
mod stats;
mod write;

pub(super) use collection::{collection_info, collection_stats, new_collection};
pub(super) use columnar::{
    acknowledge, columnar_write, element_type, known_element, operation_type, refuse,
    value as native_value, wire_value,
};
pub(super) use native_collection::{
    alias_changes, alteration, declared, described, value_kind, value_type,
};
pub(super) use native_query::{filter, metric, native_query, query_reply, wire_metric};
pub(super) use query::{Timeline, debug_info, document, knn_request, results};
pub(super) use rows::{column_choice, rows};
pub(super) use stats::{indexing_report, stats_reply};
pub(super) use write::raw_write;

use super::proto::proxima;
use super::proto::proxima::generic_value::ValueOneof;
use crate::schema::{ElementType, Value};

/// What a data type means for a vector: `Err` holds the words for one that is no vector's.
fn element(data_type: i32) -> Result<ElementType, String> {
    use proxima::DataType;
    let Ok(known) = DataType::try_from(data_type) else {
        return Err(format!("unknown data type {data_type}"));
    };
    match known {
        DataType::DtVectorBinary32 => Ok(ElementType::Binary32),
        DataType::DtVectorBinary64 => Ok(ElementType::Binary64),
        DataType::DtVectorFp16 => Ok(ElementType::Fp16),
        DataType::DtVectorFp32 => Ok(ElementType::Fp32),
        DataType::DtVectorInt4 => Ok(ElementType::Int4),
        DataType::DtVectorInt8 => Ok(ElementType::Int8),
        DataType::DtVectorInt16 => Ok(ElementType::Int16),
        DataType::DtUndefined
        | DataType::DtBinary
        | DataType::DtString
        | DataType::DtBool
        | DataType::DtInt32
        | DataType::DtInt64
        | DataType::DtUint32
        | DataType::DtUint64
        | DataType::DtFloat
        | DataType::DtDouble
        | DataType::DtVectorFp64 => Err(known.as_str_name().to_owned()),
    }
}

fn data_type(element: ElementType) -> proxima::DataType {
    use proxima::DataType;
    match element {
        ElementType::Fp32 => DataType::DtVectorFp32,
        ElementType::Fp16 => DataType::DtVectorFp16,
        ElementType::Int8 => DataType::DtVectorInt8,
        ElementType::Int4 => DataType::DtVectorInt4,
        ElementType::Int16 => DataType::DtVectorInt16,
        ElementType::Binary32 => DataType::DtVectorBinary32,
        ElementType::Binary64 => DataType::DtVectorBinary64,
    }
}

fn value(wire: proxima::GenericValue) -> Option<Value> {
    Some(match wire.value_oneof? {
        ValueOneof::BytesValue(bytes) => Value::Bytes(bytes),
        ValueOneof::StringValue(text) => Value::String(text),
        ValueOneof::BoolValue(truth) => Value::Bool(truth),
        ValueOneof::Int32Value(number) => Value::Int32(number),
        ValueOneof::Int64Value(number) => Value::Int64(number),
        ValueOneof::Uint32Value(number) => Value::UInt32(number),
        ValueOneof::Uint64Value(number) => Value::UInt64(number),
        ValueOneof::FloatValue(number) => Value::Float(number),
        ValueOneof::DoubleValue(number) => Value::Double(number),
    })
}

fn generic_value(value: Option<Value>) -> proxima::GenericValue {
    let value_oneof = value.map(|value| match value {
        Value::Bytes(bytes) => ValueOneof::BytesValue(bytes),
        Value::String(text) => ValueOneof::StringValue(text),
        Value::Bool(truth) => ValueOneof::BoolValue(truth),
        Value::Int32(number) => ValueOneof::Int32Value(number),
        Value::Int64(number) => ValueOneof::Int64Value(number),
        Value::UInt32(number) => ValueOneof::Uint32Value(number),
        Value::UInt64(number) => ValueOneof::Uint64Value(number),
        Value::Float(number) => ValueOneof::FloatValue(number),
        Value::Double(number) => ValueOneof::DoubleValue(number),
    });
    proxima::GenericValue { value_oneof }
}

fn pairs(wire: Vec<proxima::KeyValuePair>) -> Vec<(String, String)> {
    wire.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_of_every_kind_come_back_as_they_went() {
        let values = [
            None,
            Some(Value::Bytes(Bytes::from_static(b"\x00\xff"))),
            Some(Value::String("\u{e9}".into())),
            Some(Value::Bool(true)),
            Some(Value::Int32(i32::MIN)),
            Some(Value::Int64(i64::MIN)),
            Some(Value::UInt32(u32::MAX)),
            Some(Value::UInt64(u64::MAX)),
            Some(Value::Float(0.1)),
            Some(Value::Double(0.1)),
        ];
        for one in values {
            assert_eq!(value(generic_value(one.clone())), one);
        }
    }

    #[test]
    fn vector_types_map_both_ways_and_all_others_keep_their_name() {
        let elements = [
            (20, ElementType::Binary32),
            (21, ElementType::Binary64),
            (22, ElementType::Fp16),
            (23, ElementType::Fp32),
            (25, ElementType::Int4),
            (26, ElementType::Int8),
            (27, ElementType::Int16),
        ];
        for (number, one) in elements {
            assert_eq!(element(number), Ok(one));
            assert_eq!(data_type(one) as i32, number);
        }
        assert_eq!(element(0), Err("DT_UNDEFINED".into()));
        assert_eq!(element(9), Err("DT_DOUBLE".into()));
        assert_eq!(element(24), Err("DT_VECTOR_FP64".into()));
        assert_eq!(element(99), Err("unknown data type 99".into()));
    }
}
