//! Columns of an answer, written row by row, so that nothing is built beside them.

use std::ops::Range;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::keys::KeyForm;
use super::values::ValueOut;
use super::vectors::VectorOut;
use crate::schema::{CollectionSchema, ElementType};
use crate::server::convert::known_element;
use crate::server::proto::voisin_v1::{self as wire};

/// The forward columns to return, as the contract has them; `None` is all of them.
pub(super) fn forward_names(names: Option<Vec<String>>) -> Option<wire::ForwardNames> {
    names.map(|names| wire::ForwardNames { names })
}

/// The index columns whose vectors to return, as the contract has them.
pub(super) fn vector_names(names: Vec<String>) -> Option<wire::VectorNames> {
    Some(wire::VectorNames { names })
}

/// The forward values of one row.
pub(super) struct ValuesOut<'a> {
    pub(super) columns: &'a [wire::ForwardColumn],
    pub(super) row: usize,
    pub(super) keys: KeyForm,
}

impl Serialize for ValuesOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        const UNSET: wire::Value = wire::Value { kind: None };
        let mut object = json.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            let value = column.values.get(self.row).unwrap_or(&UNSET);
            object.serialize_entry(&column.name, &ValueOut(value, self.keys))?;
        }
        object.end()
    }
}

/// The vectors of all rows, column by column.
pub(super) struct VectorColumns(Vec<VectorColumn>);

struct VectorColumn {
    name: String,
    element: ElementType,
    /// Bytes of one vector.
    vector_bytes: usize,
    /// Rows may have several.
    is_multi: bool,
    bytes: Bytes,
    /// Where in the bytes each row's vectors lie.
    places: Vec<Range<usize>>,
}

impl VectorColumns {
    /// Of as many rows as `rows`, of a collection of this declaration.
    pub(super) fn new(
        columns: Vec<wire::VectorColumn>,
        rows: usize,
        schema: &CollectionSchema,
    ) -> Self {
        let column = |column: wire::VectorColumn| {
            let element = known_element(column.element).ok()?;
            let vector_bytes = element.vector_bytes(column.dimension)?.max(1);
            let mut end = 0;
            let of_row = |row: usize| {
                let count = column.counts.get(row).map_or(1, |count| *count as usize);
                let begin = end;
                end = (begin + count * vector_bytes).min(column.vectors.len());
                begin..end
            };
            let places = (0..rows).map(of_row).collect();
            let declared = schema.column_position(&column.name).map(|at| &schema.columns[at]);
            let is_multi = declared.is_some_and(|declared| declared.multi.is_some());
            let (name, bytes) = (column.name, column.vectors);
            Some(VectorColumn { name, element, vector_bytes, is_multi, bytes, places })
        };
        VectorColumns(columns.into_iter().filter_map(column).collect())
    }

    /// Those of one row, where any were asked for.
    pub(super) fn of_row(&self, row: usize) -> Option<VectorsOut<'_>> {
        (!self.0.is_empty()).then_some(VectorsOut { columns: &self.0, row })
    }
}

/// The vectors of one row.
pub(super) struct VectorsOut<'a> {
    columns: &'a [VectorColumn],
    row: usize,
}

impl Serialize for VectorsOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let mut object = json.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            let bytes = &column.bytes[column.places[self.row].clone()];
            let one = |bytes| VectorOut { element: column.element, bytes };
            if column.is_multi {
                let all: Vec<VectorOut<'_>> = bytes.chunks(column.vector_bytes).map(one).collect();
                object.serialize_entry(&column.name, &all)?;
            } else {
                object.serialize_entry(&column.name, &(!bytes.is_empty()).then(|| one(bytes)))?;
            }
        }
        object.end()
    }
}
