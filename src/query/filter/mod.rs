//! Filters: expressions over forward columns that say which rows a call may find. `docs/filters.md` has
//! the language.
//!
//! The text becomes words (`token`), a tree (`parse`), and an expression over the columns of a
//! collection (`bind`), whose meaning for one row (`expr`) is the truth that all else agrees with.

mod arithmetic;
mod bind;
mod expr;
mod fault;
mod parse;
mod pattern;
mod syntax;
mod token;
mod value_set;

use std::sync::Arc;

use bind::Binder;
use expr::{Expr, PlainRow};

use super::execute::{RowFilter, SegmentRef};
use crate::error::{Error, Result};
use crate::index::RowSet;
use crate::schema::{CollectionSchema, FilterParam, Value};

/// Longest text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 65_536;
/// Most values of a list parameter.
const LIST_VALUES_MAX: usize = 1_000_000;
/// What a refusal says instead of a setting.
const FIXED: &str = "not adjustable";

/// An expression over the forward columns of a collection, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Filter {
    expr: Expr,
}

impl Filter {
    /// Checks the text of a filter and its parameters against the columns of a collection. What is wrong
    /// is told with the character that it begins at.
    pub fn parse(
        text: &str,
        params: &[(String, FilterParam)],
        schema: &CollectionSchema,
    ) -> Result<Filter> {
        let limit = |what, value: usize, limit: usize| match value > limit {
            true => Err(Error::LimitExceeded {
                what,
                value: value as u64,
                limit: limit as u64,
                setting: FIXED,
            }),
            false => Ok(()),
        };
        limit("length of a filter in bytes", text.len(), TEXT_BYTES_MAX)?;
        for (_, param) in params {
            if let FilterParam::List(values) = param {
                limit("number of values of a filter parameter", values.len(), LIST_VALUES_MAX)?;
            }
        }
        let mut binder = Binder::new(schema, params);
        let tree = parse::parse(text).map_err(|fault| fault.in_text(text))?;
        let expr = binder.condition(&tree).map_err(|fault| fault.in_text(text))?;
        if let Some(name) = binder.unused() {
            let detail = format!("parameter {{{name}}} is not in the filter");
            return Err(Error::InvalidFilter { detail, position: None, excerpt: String::new() });
        }
        Ok(Filter { expr })
    }

    /// True for a row that the filter lets through: its key, and its forward values in schema order.
    pub fn matches(&self, key: u64, forward: &[Option<Value>]) -> bool {
        self.expr.truth(&PlainRow { key, forward }) == Some(true)
    }
}

impl RowFilter for Filter {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let matches = |row| {
            let key = segment.key(row);
            key.is_some_and(|key| self.matches(key, &segment.forward(row)))
        };
        Arc::new(RowSet::from_fn(segment.rows() as u32, matches))
    }

    fn cost(&self, segment: &SegmentRef<'_>) -> u64 {
        segment.rows().saturating_mul(self.expr.values())
    }
}

/// The rows that both of two filters let through.
pub struct Both(pub Arc<dyn RowFilter>, pub Arc<dyn RowFilter>);

impl RowFilter for Both {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let first = self.0.rows(segment);
        if first.is_empty() {
            return first;
        }
        Arc::new(first.intersection(&self.1.rows(segment)))
    }

    fn cost(&self, segment: &SegmentRef<'_>) -> u64 {
        self.0.cost(segment).saturating_add(self.1.cost(segment))
    }
}

#[cfg(test)]
mod tests;
