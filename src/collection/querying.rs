//! Asking for the nearest rows: what a query means is settled first, then short ones are answered where
//! they came in and others on the threads of searches, over a moment of the collection.

use std::sync::Arc;
use std::time::Instant;

use super::by_rows::Moment;
use super::expiry::Expiry;
use super::{Collection, SharedFilter, now};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::query::filter::{Both, Filter};
use crate::query::{
    Hit, KnnReply, Place, QueryProfile, ReplyLimits, RowFilter, View, execute, is_short,
};
use crate::schema::{KnnPlan, KnnRequest, RawFilter};

/// A query with all that is settled about it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    plan: &'a KnnPlan,
    /// Which rows may be found; `None` for all.
    filter: Option<&'a SharedFilter>,
    moment: &'a Moment,
    /// How long was taken so far.
    profile: QueryProfile,
}

impl Collection {
    /// Answers a KNN query.
    pub async fn query(self: &Arc<Self>, request: KnnRequest) -> Result<KnnReply> {
        self.query_among(request, None).await
    }

    /// A filter over this collection's columns.
    pub fn filter(&self, raw: &RawFilter) -> Result<SharedFilter> {
        Ok(Arc::new(Filter::parse(&raw.text, &raw.params, &self.schema)?))
    }

    /// [`Collection::query`] among the rows that a filter lets through, beside its own. At least `topk`
    /// rows are found where that many are live and let through.
    pub async fn query_among(
        self: &Arc<Self>,
        mut request: KnnRequest,
        filter: Option<SharedFilter>,
    ) -> Result<KnnReply> {
        let started = Instant::now();
        self.check_open()?;
        let own = request.filter.take().transpose().map_err(Error::query)?;
        let mut plan = self.schema.check_query(request, self.config.limits.query_vectors_max)?;
        let asked_for = self.expiry.as_ref().and_then(|expiry| expiry.widen(&mut plan));
        let own = own.map(|raw| self.filter(&raw)).transpose()?;
        let filter = match (filter, own) {
            (Some(given), Some(own)) => Some(Arc::new(Both(given, own)) as SharedFilter),
            (given, own) => given.or(own),
        };
        // Of everything, all is found at the first try.
        let filter = if plan.options.all_within { self.among_current(filter)? } else { filter };
        let mut profile = QueryProfile { validate: started.elapsed(), ..QueryProfile::default() };
        let mut moment = Moment::of(self.published.snapshot());
        let is_by_rows = !plan.options.examples.is_empty();
        // Handing a short query to another thread and back would cost more than the search. A caller
        // who asks on and on makes room for others now and then.
        tokio::task::consume_budget().await;
        if !is_by_rows {
            let asked = Asked { plan: &plan, filter: filter.as_ref(), moment: &moment, profile };
            if let Some(reply) = self.search(Place::Socket, &Cancel::default(), asked)? {
                return Ok(reply.with_forwards(asked_for));
            }
        }
        let queued = Instant::now();
        let collection = self.clone();
        self.compute
            .search(move |cancel| {
                profile.queue = queued.elapsed();
                if is_by_rows {
                    moment = collection.resolve(&mut plan, cancel)?;
                }
                let among = filter.as_ref();
                let asked = Asked { plan: &plan, filter: among, moment: &moment, profile };
                let reply = collection.search(Place::Search, cancel, asked)?;
                if among.is_some() {
                    collection.schedule_forward_indexes();
                }
                let reply = reply.ok_or_else(|| Error::internal("a search was cut short"))?;
                Ok(reply.with_forwards(asked_for))
            })
            .await
    }

    /// Answers a query, or gives `None` where it is too long for its place.
    fn search(&self, place: Place, cancel: &Cancel, asked: Asked<'_>) -> Result<Option<KnnReply>> {
        let reply = self.search_once(place, cancel, asked)?;
        let is_among =
            |expiry: &Expiry, reply: &KnnReply| expiry.is_among(asked.plan, &reply.results, now());
        match (&self.expiry, &reply) {
            (Some(expiry), Some(found)) if is_among(expiry, found) => {}
            _ => return Ok(reply),
        }
        match place {
            Place::Socket => Ok(None),
            Place::Search => {
                let filter = self.among_current(asked.filter.cloned())?;
                self.search_once(place, cancel, Asked { filter: filter.as_ref(), ..asked })
            }
        }
    }

    /// [`Collection::search`] where rows past their time may be found.
    fn search_once(
        &self,
        place: Place,
        cancel: &Cancel,
        asked: Asked<'_>,
    ) -> Result<Option<KnnReply>> {
        let filter = asked.filter.map(|filter| &**filter as &dyn RowFilter);
        let limits = ReplyLimits {
            results_max: u64::from(self.config.limits.query_results_max),
            bytes_max: self.config.limits.reply_bytes_max,
        };
        let Moment { snapshot, hidden } = asked.moment;
        let segments = snapshot.segments();
        let (schema, sequence) = (&*self.schema, snapshot.sequence);
        let view = View { schema, segments: &segments, filter, hidden, sequence, cancel };
        match place {
            Place::Socket if !is_short(&view, asked.plan) => Ok(None),
            place => {
                let reply =
                    execute(&self.compute, place, &view, asked.plan, limits, asked.profile)?;
                if reply.is_some() {
                    let column = &self.schema.columns[asked.plan.column];
                    self.live.offer(asked.plan, column, asked.filter);
                }
                Ok(reply)
            }
        }
    }

    /// The row of a key, with score 0.
    pub async fn get(self: &Arc<Self>, key: u64) -> Result<Option<Hit>> {
        self.check_open()?;
        let collection = self.clone();
        let found = self.compute.search(move |_| Ok(collection.published.forward(key))).await?;
        let expiry = self.expiry.as_ref();
        let found = found
            .filter(|forward| !expiry.is_some_and(|expiry| expiry.has_expired(forward, now())));
        Ok(found.map(|forward| Hit { key, score: 0.0, forward }))
    }
}
