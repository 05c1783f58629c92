//! The vectors of one index column of a sealed segment, numbered as the nodes of its index are.

use super::rows_file::RowsFile;
use crate::index::Vectors;

/// The vectors of an index column; rows without one are left out.
pub(super) struct ColumnVectors<'a> {
    rows: &'a RowsFile,
    column: usize,
    /// Row of each node, where some rows have no vector.
    pub row_of_id: Option<Box<[u32]>>,
}

impl<'a> ColumnVectors<'a> {
    pub fn new(rows: &'a RowsFile, column: usize) -> Self {
        ColumnVectors { rows, column, row_of_id: rows_with_vector(rows, column) }
    }

    pub fn get(&self, node: u32) -> &'a [u8] {
        let row = self.row_of_id.as_ref().map_or(node, |rows| rows[node as usize]);
        let found = self.rows.locate(row);
        found.and_then(|(batch, at)| batch.rows.columns[self.column].vector(at)).unwrap_or_default()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (0..self.count()).map(|node| self.get(node as u32))
    }
}

impl Vectors for ColumnVectors<'_> {
    fn count(&self) -> usize {
        self.row_of_id.as_ref().map_or(self.rows.rows as usize, |rows| rows.len())
    }

    fn vector(&self, node: u32) -> &[u8] {
        self.get(node)
    }
}

/// The rows that have a vector in a column, or `None` when all do.
fn rows_with_vector(rows: &RowsFile, column: usize) -> Option<Box<[u32]>> {
    let has_gaps = rows.batches.iter().any(|batch| {
        let block = &batch.rows.columns[column];
        block.count_present(batch.rows.len()) < batch.rows.len()
    });
    has_gaps.then(|| {
        let present = rows.batches.iter().flat_map(|batch| {
            let block = &batch.rows.columns[column];
            let places = (0..batch.rows.len()).filter(|place| block.is_present(*place));
            places.map(|place| batch.first_row + place as u32)
        });
        present.collect()
    })
}
