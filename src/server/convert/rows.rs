//! Rows as they are stored, column by column.

use super::super::proto::voisin_v1 as wire;
use super::columnar::{element_type, wire_value};
use crate::query::{ColumnChoice, RowBatch, RowColumns, VectorBatch};
use crate::schema::{CollectionSchema, ForwardChoice, VectorColumn};

/// The columns that a caller wants of rows.
pub(in crate::server) fn column_choice(
    forwards: Option<wire::ForwardNames>,
    vectors: Option<wire::VectorNames>,
) -> ColumnChoice {
    ColumnChoice {
        forwards: match forwards {
            None => ForwardChoice::All,
            Some(forwards) => ForwardChoice::Named(forwards.names),
        },
        vectors: vectors.unwrap_or_default().names,
    }
}

/// Rows with the columns that were chosen.
pub(in crate::server) fn rows(
    batch: RowBatch,
    columns: &RowColumns,
    schema: &CollectionSchema,
) -> wire::Rows {
    let RowBatch { keys, forwards, vectors } = batch;
    let forward = |(position, name): (usize, &str)| {
        let values = forwards.iter().map(|row| wire_value(row.get(position).cloned().flatten()));
        wire::ForwardColumn { name: name.to_owned(), values: values.collect() }
    };
    wire::Rows {
        keys,
        forwards: columns.forward_names(schema).into_iter().enumerate().map(forward).collect(),
        vectors: vector_columns(vectors, &schema.columns),
    }
}

/// The vectors of rows, of the collection's index columns.
pub(super) fn vector_columns(
    batches: Vec<VectorBatch>,
    columns: &[VectorColumn],
) -> Vec<wire::VectorColumn> {
    let column = |batch: VectorBatch| {
        let column = &columns[batch.column];
        wire::VectorColumn {
            name: column.name.clone(),
            element: element_type(column.element).into(),
            dimension: column.dimension,
            vectors: batch.data.into(),
            counts: batch.counts.unwrap_or_default(),
        }
    };
    batches.into_iter().map(column).collect()
}
