//! Rows that expire: a while after the time in one of their forward columns they are not found any more,
//! and soon after they are deleted.
//!
//! Few rows are expired and still there at any moment, since they are looked for every second. A query
//! therefore runs as if there were none, looks whether it found one, and only then runs again among the
//! others.

use std::sync::Arc;

use super::SharedFilter;
use crate::error::Result;
use crate::index::RowSet;
use crate::query::filter::Filter;
use crate::query::{Hit, RowFilter, SegmentRef};
use crate::schema::{CollectionSchema, FilterParam, KnnPlan, Value};

/// When the rows of a collection expire.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// Where rows have the time that they expire after.
    pub position: usize,
    /// The column's name, in backticks.
    quoted: String,
    milliseconds: i64,
}

impl Expiry {
    /// `None` for a collection whose rows do not expire.
    pub fn of(schema: &CollectionSchema) -> Option<Self> {
        let ttl = schema.ttl.as_ref()?;
        Some(Expiry {
            position: schema.forward_position(&ttl.column)?,
            quoted: format!("`{}`", ttl.column.replace('`', "``")),
            milliseconds: i64::try_from(ttl.milliseconds).unwrap_or(i64::MAX),
        })
    }

    /// The latest time that has expired by `now`, in milliseconds since 1970.
    fn bound(&self, now: i64) -> i64 {
        now.saturating_sub(self.milliseconds)
    }

    /// True for a row with these forward values that has expired.
    pub fn has_expired(&self, forward: &[Option<Value>], now: i64) -> bool {
        self.is_over(forward.get(self.position).and_then(Option::as_ref), now)
    }

    fn is_over(&self, time: Option<&Value>, now: i64) -> bool {
        let bound = self.bound(now);
        match (time.and_then(Value::integer), time.and_then(Value::float)) {
            (Some(time), _) => time <= i128::from(bound),
            // As the filter compares: exactly, and never true of NaN.
            (None, Some(time)) => time <= bound as f64,
            (None, None) => false,
        }
    }

    /// Has the time fetched with each hit of a query. `None` where it is asked for anyhow, else the values
    /// of each hit that were asked for.
    pub fn widen(&self, plan: &mut KnnPlan) -> Option<usize> {
        let columns = plan.forwards.as_mut().filter(|columns| !columns.contains(&self.position))?;
        columns.push(self.position);
        Some(columns.len() - 1)
    }

    /// True where a hit of a [widened](Expiry::widen) plan has expired.
    pub fn is_among(&self, plan: &KnnPlan, hits: &[Vec<Hit>], now: i64) -> bool {
        let place = match &plan.forwards {
            None => Some(self.position),
            Some(columns) => columns.iter().position(|column| *column == self.position),
        };
        let time = |hit: &Hit| hit.forward.get(place?).cloned().flatten();
        hits.iter().flatten().any(|hit| self.is_over(time(hit).as_ref(), now))
    }

    /// Lets the rows through that have expired.
    pub fn expired(&self, schema: &CollectionSchema, now: i64) -> Result<Filter> {
        let bound = FilterParam::One(Value::Int64(self.bound(now)));
        let text = format!("{} <= {{at}}", self.quoted);
        // It is another one every millisecond.
        Ok(Filter::parse(&text, &[("at".to_owned(), bound)], schema)?.once())
    }

    /// Lets the rows through that have not.
    pub fn current(&self, schema: &CollectionSchema, now: i64) -> Result<SharedFilter> {
        Ok(Arc::new(Others(self.expired(schema, now)?)))
    }
}

/// The rows that a filter does not let through.
struct Others(Filter);

impl RowFilter for Others {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let rows = segment.rows() as u32;
        Arc::new(self.0.rows(segment).complement(rows))
    }

    fn cost(&self, segment: &SegmentRef<'_>) -> u64 {
        self.0.cost(segment)
    }
}
