//! A filter whose names and parameters are resolved, and what it says of one row: the plain meaning of
//! the language, which every quicker way of evaluating agrees with.

use std::cmp::Ordering;

use super::arithmetic::negative;
use super::pattern::Pattern;
use super::syntax::{Arithmetic, Comparison};
use super::value_set::ValueSet;
use crate::schema::{Datum, Number, Value};

/// A part of a filter.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    /// A value known beforehand.
    Constant(Constant),
    /// A forward column by its position in the schema.
    Column(usize),
    /// The primary key.
    Key,
    /// A number with the other sign.
    Negative(Box<Expr>),
    /// An operation on two numbers.
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// Comparisons of neighbours, all of which hold.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// Whether a value is in a list.
    In(Box<Expr>, ValueSet),
    /// Whether a text is as a pattern says.
    Like(Box<Expr>, Pattern),
    /// Whether a value is unset.
    IsNull(Box<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// All of these.
    And(Vec<Expr>),
    /// Any of these.
    Or(Vec<Expr>),
}

/// A value known beforehand.
#[derive(Debug, Clone)]
pub(super) enum Constant {
    /// The result of arithmetic without one.
    Null,
    Truth(bool),
    Number(Number),
    Text(String),
    Bytes(Vec<u8>),
}

impl Constant {
    pub fn datum(&self) -> Datum<'_> {
        match self {
            Constant::Null => Datum::Null,
            Constant::Truth(truth) => Datum::Bool(*truth),
            Constant::Number(number) => Datum::Number(*number),
            Constant::Text(text) => Datum::Text(text),
            Constant::Bytes(bytes) => Datum::Bytes(bytes),
        }
    }
}

impl From<Datum<'_>> for Constant {
    fn from(datum: Datum<'_>) -> Self {
        match datum {
            Datum::Null => Constant::Null,
            Datum::Bool(truth) => Constant::Truth(truth),
            Datum::Number(number) => Constant::Number(number),
            Datum::Text(text) => Constant::Text(text.to_owned()),
            Datum::Bytes(bytes) => Constant::Bytes(bytes.to_vec()),
        }
    }
}

/// A row as filters see it.
pub(super) trait Row<'r> {
    /// The primary key.
    fn key(&self) -> u64;
    /// The value of a forward column.
    fn value(&self, column: usize) -> Datum<'r>;
}

/// A row by its key and its forward values in schema order.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainRow<'r> {
    pub key: u64,
    pub forward: &'r [Option<Value>],
}

impl<'r> Row<'r> for PlainRow<'r> {
    fn key(&self) -> u64 {
        self.key
    }

    fn value(&self, column: usize) -> Datum<'r> {
        let value = self.forward.get(column).and_then(Option::as_ref);
        value.map_or(Datum::Null, Datum::from)
    }
}

impl Expr {
    /// Shows all that is read to `look`, as often as it is: columns, and `None` for the key.
    pub fn for_each_read(&self, look: &mut impl FnMut(Option<usize>)) {
        match self {
            Expr::Column(column) => look(Some(*column)),
            Expr::Key => look(None),
            Expr::Constant(_) => {}
            Expr::Negative(inner)
            | Expr::In(inner, _)
            | Expr::Like(inner, _)
            | Expr::IsNull(inner)
            | Expr::Not(inner) => inner.for_each_read(look),
            Expr::Arithmetic(_, left, right) => {
                left.for_each_read(look);
                right.for_each_read(look);
            }
            Expr::Compare(first, rest) => {
                first.for_each_read(look);
                rest.iter().for_each(|(_, expr)| expr.for_each_read(look));
            }
            Expr::And(terms) | Expr::Or(terms) => {
                terms.iter().for_each(|term| term.for_each_read(look));
            }
        }
    }

    /// What the part is worth in a row. A condition that is unknown is null.
    pub fn value<'r>(&'r self, row: &impl Row<'r>) -> Datum<'r> {
        match self {
            Expr::Constant(constant) => constant.datum(),
            Expr::Column(column) => row.value(*column),
            Expr::Key => Datum::Number(Number::Int(row.key().into())),
            Expr::Negative(inner) => number(inner.number(row).and_then(negative)),
            Expr::Arithmetic(operator, left, right) => {
                let operands = left.number(row).zip(right.number(row));
                number(operands.and_then(|(left, right)| operator.apply(left, right)))
            }
            condition => condition.truth(row).map_or(Datum::Null, Datum::Bool),
        }
    }

    /// The number that the part is in a row, if it is one.
    pub fn number<'r>(&'r self, row: &impl Row<'r>) -> Option<Number> {
        match self.value(row) {
            Datum::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Whether the part holds in a row; `None` where that is unknown, since something is unset.
    pub fn truth<'r>(&'r self, row: &impl Row<'r>) -> Option<bool> {
        match self {
            Expr::Compare(first, rest) => {
                let mut left = first.value(row);
                all(rest.iter().map(|(comparison, right)| {
                    let right = right.value(row);
                    let truth = comparison.truth(&left, &right);
                    left = right;
                    truth
                }))
            }
            Expr::In(inner, set) => match inner.value(row) {
                Datum::Null => None,
                value => Some(set.contains(&value)),
            },
            Expr::Like(inner, pattern) => match inner.value(row) {
                Datum::Null => None,
                Datum::Text(text) => Some(pattern.matches(text)),
                _ => Some(false),
            },
            Expr::IsNull(inner) => Some(matches!(inner.value(row), Datum::Null)),
            Expr::Not(inner) => inner.truth(row).map(|truth| !truth),
            Expr::And(terms) => all(terms.iter().map(|term| term.truth(row))),
            // Not all are false.
            Expr::Or(terms) => all(terms.iter().map(|term| term.truth(row).map(|truth| !truth)))
                .map(|truth| !truth),
            value => match value.value(row) {
                Datum::Null => None,
                Datum::Bool(truth) => Some(truth),
                _ => Some(false),
            },
        }
    }
}

fn number<'a>(number: Option<Number>) -> Datum<'a> {
    number.map_or(Datum::Null, Datum::Number)
}

/// False where any is false, else unknown where any is, else true.
fn all(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for truth in truths {
        match truth {
            Some(false) => return Some(false),
            None => result = None,
            Some(true) => {}
        }
    }
    result
}

impl Comparison {
    /// Whether it holds between two values: unknown where one is unset, false where they are of two
    /// kinds. NaN is not equal to anything, nor less or greater.
    pub fn truth(self, left: &Datum<'_>, right: &Datum<'_>) -> Option<bool> {
        if matches!(left, Datum::Null) || matches!(right, Datum::Null) {
            return None;
        }
        let order = left.order(right);
        Some(match self {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => left.is_alike(right) && order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        })
    }
}
