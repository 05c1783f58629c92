//! Rows side by side in memory: keys, LSNs and vectors of a run of rows, each column contiguous.
//! Growing segments make blocks from what is written, sealed ones see theirs in mapped files.

use std::ops::Range;

use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};

use crate::schema::ForwardRow;

/// The vectors of one index column for a run of rows.
#[derive(Debug, Clone)]
pub struct ColumnBlock {
    /// Bytes of one vector; 0 for a column that can hold none.
    pub vector_bytes: usize,
    /// The vectors, row after row, in the stored (little-endian) form; zeros where a row of a column with
    /// one vector for each has none.
    pub data: Buffer,
    /// Which rows have a vector; `None` when all do, and where there are `lists`.
    pub present: Option<BooleanBuffer>,
    /// Which vectors are a row's, in columns that take several.
    pub lists: Option<Lists>,
}

/// Which of the vectors of a block are a row's.
#[derive(Debug, Clone)]
pub struct Lists {
    /// Row i has the vectors from `starts[i]` up to `starts[i + 1]` of the block: one entry for each row
    /// and one more, the first 0, none below the one before.
    pub starts: ScalarBuffer<i64>,
    /// The node that the block's first vector is, in a sealed segment.
    pub first_node: u32,
}

impl Lists {
    /// Lists that end at these vectors, in a block of which no vector is a node yet.
    pub fn of_ends(ends: Vec<i64>) -> Self {
        Lists { starts: std::iter::once(0).chain(ends).collect(), first_node: 0 }
    }

    /// The vectors of a row.
    #[inline]
    pub fn of_row(&self, row: usize) -> Range<usize> {
        match self.starts.get(row..).unwrap_or_default() {
            [start, end, ..] => *start as usize..*end as usize,
            _ => 0..0,
        }
    }

    /// Vectors of all rows.
    pub fn count(&self) -> usize {
        self.starts.last().map_or(0, |end| *end as usize)
    }
}

impl ColumnBlock {
    /// The stored vector of a row, if it has one; all its vectors, one after the other, where it has
    /// several.
    pub fn vectors(&self, row: usize) -> Option<&[u8]> {
        let places = match &self.lists {
            Some(lists) => lists.of_row(row),
            None if self.is_present(row) => row..row + 1,
            None => return None,
        };
        let bytes = places.start * self.vector_bytes..places.end * self.vector_bytes;
        self.data.get(bytes).filter(|vectors| !vectors.is_empty())
    }

    /// The stored vector of a node, which is one of a row's.
    #[inline]
    pub fn node(&self, node: u32, row: usize) -> Option<&[u8]> {
        let place = match &self.lists {
            None => row,
            Some(lists) => node.checked_sub(lists.first_node)? as usize,
        };
        self.data.get(place * self.vector_bytes..(place + 1) * self.vector_bytes)
    }

    /// Vectors of a row: none or one, but where rows may have several.
    pub fn count_of(&self, row: usize) -> usize {
        match &self.lists {
            Some(lists) => lists.of_row(row).len(),
            None => usize::from(self.is_present(row)),
        }
    }

    /// Vectors of all rows, which are `rows`.
    pub fn count(&self, rows: usize) -> usize {
        match (&self.lists, &self.present) {
            (Some(lists), _) => lists.count(),
            (None, None) if self.vector_bytes == 0 => 0,
            (None, None) => rows,
            (None, Some(present)) => present.count_set_bits(),
        }
    }

    /// True when the row has a vector, in a column with one for each.
    fn is_present(&self, row: usize) -> bool {
        match &self.present {
            None => self.vector_bytes > 0,
            Some(present) => row < present.len() && present.value(row),
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
