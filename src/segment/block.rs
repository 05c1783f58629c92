//! Rows side by side in memory: keys, LSNs and vectors of a run of rows, each column contiguous.
//! Growing segments make blocks from what is written, sealed ones see theirs in mapped files.

use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};

use crate::schema::ForwardRow;

/// The vectors of one index column for a run of rows.
#[derive(Debug, Clone)]
pub struct ColumnBlock {
    /// Bytes of one vector; 0 for a column that can hold none.
    pub vector_bytes: usize,
    /// The vectors, row after row, in the stored (little-endian) form; zeros where a row has none.
    pub data: Buffer,
    /// Which rows have a vector; `None` when all do.
    pub present: Option<BooleanBuffer>,
}

impl ColumnBlock {
    /// The stored vector of a row, if it has one.
    pub fn vector(&self, row: usize) -> Option<&[u8]> {
        if !self.is_present(row) {
            return None;
        }
        self.data.get(row * self.vector_bytes..(row + 1) * self.vector_bytes)
    }

    /// True when the row has a vector.
    pub fn is_present(&self, row: usize) -> bool {
        match &self.present {
            None => self.vector_bytes > 0,
            Some(present) => row < present.len() && present.value(row),
        }
    }

    /// Rows that have a vector, of `rows` in all.
    pub fn count_present(&self, rows: usize) -> usize {
        match &self.present {
            None if self.vector_bytes == 0 => 0,
            None => rows,
            Some(present) => present.count_set_bits(),
        }
    }
}

/// A row's forward values as one for each of so many columns: what was written before the last of them
/// were added has fewer.
pub fn complete(forward: ForwardRow, columns: usize) -> ForwardRow {
    if forward.len() >= columns {
        return forward;
    }
    let mut forward = forward.to_vec();
    forward.resize(columns, None);
    forward.into()
}

/// Everything but forward values and delete marks for a run of rows.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The primary keys.
    pub keys: ScalarBuffer<u64>,
    /// The LSNs, in repository collections.
    pub lsns: Option<ScalarBuffer<u64>>,
    /// One entry per index column, in schema order.
    pub columns: Vec<ColumnBlock>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
