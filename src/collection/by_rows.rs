//! Queries that are made of rows: "more like these".

use std::sync::Arc;

use super::snapshot::Snapshot;
use super::{Collection, now};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::query::{View, resolve_examples};
use crate::schema::KnnPlan;

/// What a query sees of a collection.
pub(super) struct Moment {
    /// The rows.
    pub snapshot: Arc<Snapshot>,
    /// Those that it does not find, by segment and row, ascending.
    pub hidden: Vec<(u32, u32)>,
}

impl Moment {
    /// All rows of a snapshot.
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        Moment { snapshot, hidden: Vec::new() }
    }
}

impl Collection {
    /// Makes the query vectors of a query by rows, and says at which moment these are what they are.
    pub(super) fn resolve(&self, plan: &mut KnnPlan, cancel: &Cancel) -> Result<Moment> {
        let keys: Vec<u64> = plan.options.examples.keys().collect();
        let (snapshot, mut places) = self.published.places(&keys);
        let (segments, sequence) = (snapshot.segments(), snapshot.sequence);
        if let Some(expiry) = &self.expiry {
            let now = now();
            places.retain(|place| {
                !expiry.has_expired(&segments[place.segment as usize].forward(place.row), now)
            });
        }
        let (schema, segments) = (&*self.schema, &segments[..]);
        let view = View { schema, segments, filter: None, hidden: &[], sequence, cancel };
        let hidden = resolve_examples(&view, plan, &places)?;
        let (made, limit) = (plan.vectors.len() as u64, self.config.limits.query_vectors_max);
        if made > u64::from(limit) {
            return Err(Error::LimitExceeded {
                what: "number of query vectors, which are those of a row,",
                value: made,
                limit: limit.into(),
                setting: "limits.query_vectors_max",
            });
        }
        Ok(Moment { snapshot, hidden })
    }
}
