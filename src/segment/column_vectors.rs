//! The vectors of one index column of a sealed segment, numbered as the nodes of its index are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::rows_file::RowsFile;
use crate::index::Vectors;

/// Vectors between two looks whether to go on.
const LOOK: u32 = 256;

/// The vectors of an index column, row after row; rows without one are left out.
pub(super) struct ColumnVectors<'a> {
    rows: &'a RowsFile,
    column: usize,
    /// Row of each node, where some rows have no vector or several.
    pub row_of_id: Option<Box<[u32]>>,
}

impl<'a> ColumnVectors<'a> {
    pub fn new(rows: &'a RowsFile, column: usize) -> Self {
        ColumnVectors { rows, column, row_of_id: rows_of_nodes(rows, column) }
    }

    pub fn get(&self, node: u32) -> &'a [u8] {
        let row = self.row_of_id.as_ref().map_or(node, |rows| rows[node as usize]);
        let found = self.rows.locate(row);
        let vector = found.and_then(|(batch, at)| batch.rows.columns[self.column].node(node, at));
        vector.unwrap_or_default()
    }

    /// The key of the row that a node stands for; 0 where there is none.
    pub fn key(&self, node: u32) -> u64 {
        let row = self.row_of_id.as_ref().map_or(node, |rows| rows[node as usize]);
        let found = self.rows.locate(row);
        found.and_then(|(batch, at)| batch.rows.keys.get(at).copied()).unwrap_or_default()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (0..self.count()).map(|node| self.get(node as u32))
    }
}

impl<'a> ColumnVectors<'a> {
    /// The same until the flag is set: there are fewer then than it says there are, and whoever asked
    /// must throw away what it made of them.
    pub fn iter_until<'b>(
        &'b self,
        stop: &'b AtomicBool,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + 'b {
        Until { inner: self.iter(), stop, looked: 0 }
    }
}

/// Ends when a flag is set.
#[derive(Clone)]
struct Until<'b, I> {
    inner: I,
    stop: &'b AtomicBool,
    looked: u32,
}

impl<I: Iterator> Iterator for Until<'_, I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        if self.looked == 0 {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            self.looked = LOOK;
        }
        self.looked -= 1;
        self.inner.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Until<'_, I> {}

impl Vectors for ColumnVectors<'_> {
    fn count(&self) -> usize {
        self.row_of_id.as_ref().map_or(self.rows.rows as usize, |rows| rows.len())
    }

    fn vector(&self, node: u32) -> &[u8] {
        self.get(node)
    }
}

/// Vectors of a column.
pub(super) fn count_vectors(rows: &RowsFile, column: usize) -> usize {
    let batches = rows.batches.iter();
    batches.map(|batch| batch.rows.columns[column].count(batch.rows.len())).sum()
}

/// The row of each node of a column, or `None` when all rows have one vector.
fn rows_of_nodes(rows: &RowsFile, column: usize) -> Option<Box<[u32]>> {
    let counts = || {
        rows.batches.iter().flat_map(move |batch| {
            let block = &batch.rows.columns[column];
            let counts = (0..batch.rows.len()).map(|place| block.count_of(place));
            counts.enumerate().map(|(place, count)| (batch.first_row + place as u32, count))
        })
    };
    let is_even = rows.batches.iter().all(|batch| {
        let block = &batch.rows.columns[column];
        block.lists.is_none() && block.count(batch.rows.len()) == batch.rows.len()
    });
    if is_even || counts().all(|(_, count)| count == 1) {
        return None;
    }
    let mut row_of_id = Vec::with_capacity(count_vectors(rows, column));
    counts().for_each(|(row, count)| row_of_id.extend(std::iter::repeat_n(row, count)));
    Some(row_of_id.into())
}
