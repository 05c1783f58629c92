//! Writes of the Proxima BE contract: row by row.

use super::super::proto::proxima;
use super::{element, value};
use crate::schema::{LsnContext, Operation, RawRow, RawVector, RawVectorMeta, RawWrite};

use proxima::generic_value::ValueOneof;
use proxima::write_request::{IndexColumnMeta, Row};

/// A write request; requests of only deletes have no `row_meta`.
pub(in crate::server) fn raw_write(wire: proxima::WriteRequest) -> RawWrite {
    let meta = wire.row_meta.unwrap_or_default();
    RawWrite {
        forward_names: meta.forward_column_names,
        vector_metas: meta.index_column_metas.into_iter().map(vector_meta).collect(),
        rows: wire.rows.into_iter().map(raw_row).collect(),
    }
}

fn vector_meta(wire: IndexColumnMeta) -> RawVectorMeta {
    RawVectorMeta {
        column: wire.column_name,
        element: element(wire.data_type),
        dimension: wire.dimension,
    }
}

fn raw_row(wire: Row) -> RawRow {
    let forward = wire.forward_column_values.unwrap_or_default().values;
    let vectors = wire.index_column_values.unwrap_or_default().values;
    RawRow {
        key: wire.primary_key,
        operation: operation(wire.operation_type),
        forward: forward.into_iter().map(value).collect(),
        vectors: vectors.into_iter().map(raw_vector).collect(),
        lsn: wire.lsn_context.map(|lsn| LsnContext { lsn: lsn.lsn, context: lsn.context }),
        condition: None,
    }
}

/// An unknown number deletes, as in the original.
fn operation(number: i32) -> Operation {
    use proxima::OperationType;
    match OperationType::try_from(number) {
        Ok(OperationType::OpInsert) => Operation::Insert,
        Ok(OperationType::OpUpdate) => Operation::Update,
        Ok(OperationType::OpDelete) | Err(_) => Operation::Delete,
    }
}

fn raw_vector(wire: proxima::GenericValue) -> RawVector {
    match wire.value_oneof {
        Some(ValueOneof::BytesValue(bytes)) => RawVector::Bytes(bytes),
        Some(ValueOneof::StringValue(text)) => RawVector::Text(text),
        Some(
            ValueOneof::BoolValue(_)
            | ValueOneof::Int32Value(_)
            | ValueOneof::Int64Value(_)
            | ValueOneof::Uint32Value(_)
            | ValueOneof::Uint64Value(_)
            | ValueOneof::FloatValue(_)
            | ValueOneof::DoubleValue(_),
        )
        | None => RawVector::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::schema::{ElementType, Value};

    fn values(kinds: Vec<Option<ValueOneof>>) -> proxima::GenericValueList {
        let values =
            kinds.into_iter().map(|value_oneof| proxima::GenericValue { value_oneof }).collect();
        proxima::GenericValueList { values }
    }

    #[test]
    fn a_row_keeps_values_vectors_and_lsn_in_the_order_sent() {
        let features = Bytes::from_static(&[1, 2, 3, 4]);
        let row = Row {
            primary_key: 7,
            operation_type: 1,
            forward_column_values: Some(values(vec![None, Some(ValueOneof::Uint32Value(5))])),
            index_column_values: Some(values(vec![
                Some(ValueOneof::BytesValue(features.clone())),
                Some(ValueOneof::StringValue("[1]".into())),
                Some(ValueOneof::FloatValue(1.0)),
                None,
            ])),
            lsn_context: Some(proxima::LsnContext { lsn: 3, context: "c".into() }),
        };
        let meta = |name: &str, data_type| IndexColumnMeta {
            column_name: name.into(),
            data_type,
            dimension: 1,
        };
        let raw = raw_write(proxima::WriteRequest {
            row_meta: Some(proxima::write_request::RowMeta {
                forward_column_names: vec!["a".into(), "b".into()],
                index_column_metas: vec![meta("x", 23), meta("y", 0)],
            }),
            rows: vec![row],
            ..Default::default()
        });
        assert_eq!(raw.forward_names, ["a", "b"]);
        assert_eq!(raw.vector_metas[0].column, "x");
        assert_eq!(raw.vector_metas[0].element, Ok(ElementType::Fp32));
        assert_eq!(raw.vector_metas[1].element, Err("DT_UNDEFINED".into()));
        let row = &raw.rows[0];
        assert_eq!((row.key, row.operation), (7, Operation::Update));
        assert_eq!(row.forward, [None, Some(Value::UInt32(5))]);
        assert!(matches!(&row.vectors[0], RawVector::Bytes(bytes) if *bytes == features));
        assert!(matches!(&row.vectors[1], RawVector::Text(text) if text == "[1]"));
        assert!(matches!(row.vectors[2], RawVector::Other));
        assert!(matches!(row.vectors[3], RawVector::Other));
        assert_eq!(row.lsn, Some(LsnContext { lsn: 3, context: "c".into() }));
    }

    #[test]
    fn operations_map_and_unknown_ones_delete() {
        let numbers = [0, 1, 2, 3, -1];
        let [insert, update, delete, unknown, negative] = numbers.map(operation);
        assert_eq!((insert, update), (Operation::Insert, Operation::Update));
        assert_eq!([delete, unknown, negative], [Operation::Delete; 3]);
    }

    #[test]
    fn a_delete_needs_nothing_but_its_key() {
        let row = Row { primary_key: 3, operation_type: 2, ..Default::default() };
        let raw = raw_write(proxima::WriteRequest { rows: vec![row], ..Default::default() });
        assert!(raw.forward_names.is_empty() && raw.vector_metas.is_empty());
        assert_eq!((raw.rows[0].key, raw.rows[0].operation), (3, Operation::Delete));
        assert!(raw.rows[0].vectors.is_empty() && raw.rows[0].lsn.is_none());
    }
}
