//! Filters: expressions over forward columns that say which rows a call may find. `docs/filters.md` has
//! the language.
//!
//! The text becomes words (`token`), a tree (`parse`), and an expression over the columns of a
//! collection (`bind`), whose meaning for one row (`expr`) is the truth that all else agrees with.
//!
//! Sealed segments are evaluated as a whole (`columnar`): conditions on one column (`test`) by looking up
//! the rows in the order of its values or by tight loops over these (`scan`), arithmetic and comparisons
//! of columns run by run (`lanes`).

mod arithmetic;
mod bind;
mod columnar;
mod columns;
mod expr;
mod fault;
mod lanes;
mod parse;
mod pattern;
mod scan;
mod syntax;
mod test;
mod token;
mod value_set;

use std::sync::Arc;

use bind::Binder;
use expr::{Expr, PlainRow};

use super::execute::{RowFilter, SegmentRef};
use crate::error::{Error, Result};
use crate::index::RowSet;
use crate::schema::{CollectionSchema, FilterParam, RawFilter, Value};
use crate::segment::GrowingView;

/// Longest text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 65_536;
/// Most values of a list parameter.
const LIST_VALUES_MAX: usize = 1_000_000;
/// Longest text with parameters of a filter whose rows are remembered.
const WORDS_BYTES_MAX: usize = 4_096;
/// What a refusal says instead of a setting.
const FIXED: &str = "not adjustable";

/// An expression over the forward columns of a collection, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Filter {
    expr: Expr,
    /// What it is remembered by; `None` where it is not to be.
    words: Option<Arc<str>>,
    /// What was parsed; `None` where it is large.
    source: Option<Arc<RawFilter>>,
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
        let mut sorted: Vec<&(String, FilterParam)> = params.iter().collect();
        sorted.sort_by_key(|(name, _)| name);
        let words = format!("{text} {sorted:?}");
        let is_small = words.len() <= WORDS_BYTES_MAX;
        let source = || Arc::new(RawFilter { text: text.to_owned(), params: params.to_vec() });
        Ok(Filter { expr, words: is_small.then(|| words.into()), source: is_small.then(source) })
    }

    /// The same filter, for one use: what it lets through is not worth remembering.
    pub fn once(self) -> Filter {
        Filter { words: None, ..self }
    }

    /// Rows that are not sealed lie row by row, and are looked at so.
    fn growing_rows(&self, view: &GrowingView) -> RowSet {
        let mut rows = Vec::new();
        for block in &view.blocks {
            for (place, forward) in block.forward.iter().enumerate() {
                let key = block.rows.keys.get(place);
                if key.is_some_and(|key| self.matches(*key, forward)) {
                    rows.push(block.first_row + place as u32);
                }
            }
        }
        RowSet::from_rows(view.rows, &rows)
    }

    /// True for a row that the filter lets through: its key, and its forward values in schema order.
    pub fn matches(&self, key: u64, forward: &[Option<Value>]) -> bool {
        self.expr.truth(&PlainRow { key, forward }) == Some(true)
    }
}

impl RowFilter for Filter {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        match segment {
            SegmentRef::Sealed(sealed) => {
                let find = || RowSet::from_words(columnar::rows(sealed, &self.expr));
                match &self.words {
                    Some(words) => sealed.rows_of_filter(words, find),
                    None => Arc::new(find()),
                }
            }
            SegmentRef::Growing(view) => Arc::new(self.growing_rows(view)),
        }
    }

    fn cost(&self, segment: &SegmentRef<'_>) -> u64 {
        if let (SegmentRef::Sealed(sealed), Some(words)) = (segment, &self.words)
            && sealed.knows_filter(words)
        {
            return 0;
        }
        let mut values = 0;
        self.expr.for_each_read(&mut |read| {
            values += match (segment, read) {
                // What is left is a pass over the bitmap.
                (SegmentRef::Sealed(sealed), Some(column)) if sealed.has_order(column) => {
                    segment.rows() / 64
                }
                _ => segment.rows(),
            };
        });
        values.max(segment.rows() / 64)
    }

    fn sources(&self) -> Option<Vec<&RawFilter>> {
        Some(vec![self.source.as_deref()?])
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

    fn sources(&self) -> Option<Vec<&RawFilter>> {
        let mut sources = self.0.sources()?;
        sources.extend(self.1.sources()?);
        Some(sources)
    }
}

#[cfg(test)]
mod tests;
