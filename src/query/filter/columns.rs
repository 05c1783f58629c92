//! The columns of a sealed segment that a filter reads, and its rows one by one.

use super::expr::{Expr, Row};
use super::test::Subject;
use crate::schema::{Datum, Number};
use crate::segment::{ForwardBatch, ForwardColumn, Sealed};

/// The columns that a filter reads.
pub(super) struct Columns<'a> {
    keys: ForwardColumn<'a>,
    /// By position in the schema; `None` for those that the filter does not read.
    forward: Vec<Option<ForwardColumn<'a>>>,
}

impl<'a> Columns<'a> {
    pub fn new(sealed: &'a Sealed, expr: &Expr) -> Self {
        let mut forward = Vec::new();
        expr.for_each_read(&mut |read| {
            let Some(column) = read else { return };
            if forward.len() <= column {
                forward.resize_with(column + 1, || None);
            }
            forward[column].get_or_insert_with(|| sealed.forward_column(column));
        });
        Columns { keys: sealed.key_column(), forward }
    }

    /// The values that a condition is about.
    pub fn of(&self, subject: Subject) -> &ForwardColumn<'a> {
        match subject {
            Subject::Key => &self.keys,
            // Those that a filter reads are here; the keys stand for none.
            Subject::Column(column) => {
                self.forward.get(column).and_then(Option::as_ref).unwrap_or(&self.keys)
            }
        }
    }

    /// The batches of rows, by those of the keys.
    pub fn batches(&self) -> &[ForwardBatch<'a>] {
        &self.keys.batches
    }

    /// A row by its number.
    pub fn row(&self, row: u32) -> ColumnRow<'_, 'a> {
        ColumnRow { columns: self, row }
    }
}

/// A row of a segment.
#[derive(Clone, Copy)]
pub(super) struct ColumnRow<'c, 'a> {
    columns: &'c Columns<'a>,
    row: u32,
}

impl<'c> Row<'c> for ColumnRow<'c, '_> {
    fn key(&self) -> u64 {
        match self.columns.keys.datum(self.row) {
            Datum::Number(Number::Int(key)) => key as u64,
            _ => 0,
        }
    }

    fn value(&self, column: usize) -> Datum<'c> {
        self.columns.of(Subject::Column(column)).datum(self.row)
    }
}
