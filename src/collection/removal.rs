//! Deleting rows by what they hold: those of a filter, and those that have expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Collection, now};
use crate::error::{Error, Result};
use crate::query::filter::Filter;
use crate::query::{ColumnChoice, RowFilter, SegmentRef};
use crate::schema::{Change, Condition, ForwardChoice, RawFilter, Row, RowTest, Value};

/// Rows deleted by one write.
const BATCH_ROWS: usize = 10_000;

impl RowTest for Filter {
    fn is_met(&self, key: u64, forward: &[Option<Value>]) -> bool {
        self.matches(key, forward)
    }
}

impl Collection {
    /// Deletes the rows that a filter lets through when the call begins and still lets through when it
    /// comes to them, and says how many these were. Where it fails, those deleted before stay deleted.
    pub async fn delete_where(self: &Arc<Self>, raw: &RawFilter) -> Result<u64> {
        if self.schema.follows_repository() {
            let detail = format!(
                "collection {:?} follows a repository, whose deletes carry a position each",
                self.schema.name
            );
            return Err(Error::InvalidArgument { detail });
        }
        let filter = Arc::new(Filter::parse(&raw.text, &raw.params, &self.schema)?);
        let nothing = ColumnChoice { forwards: ForwardChoice::Named(vec![]), vectors: vec![] };
        let reader = self.reader(&nothing, Some(filter.clone()), None)?;
        let mut deleted = 0;
        loop {
            let (batch, has_more) = reader.next(BATCH_ROWS, u64::MAX).await?;
            let condition = || Some(Condition::Test(filter.clone()));
            let rows: Vec<Row> =
                batch.keys.into_iter().map(|key| removal(key, condition())).collect();
            if !rows.is_empty() {
                deleted += self.submit(rows).await?.rows_applied;
            }
            if !has_more {
                return Ok(deleted);
            }
        }
    }

    /// Deletes what has expired, behind everything else. At most one run is under way.
    pub(super) fn expire_rows(self: &Arc<Self>) {
        if self.expiry.is_none() || self.is_expiring.swap(true, Ordering::SeqCst) {
            return;
        }
        let collection = self.clone();
        self.compute.spawn_seal(move || {
            if let Err(error) = collection.delete_expired() {
                // Tried again in a second; until then they are not found all the same.
                tracing::debug!(collection = collection.schema.name, %error, "expired rows not deleted");
            }
            collection.is_expiring.store(false, Ordering::SeqCst);
        });
    }

    fn delete_expired(self: &Arc<Self>) -> Result<()> {
        let Some(expiry) = &self.expiry else { return Ok(()) };
        let expired = expiry.expired(&self.schema, now())?;
        let snapshot = self.published.snapshot();
        for segment in snapshot.segments() {
            let rows = expired.rows(&segment);
            let is_live = |row: &u32| segment.is_live(*row, snapshot.sequence);
            let keys: Vec<u64> = rows
                .iter()
                .filter(is_live)
                .filter_map(|row| SegmentRef::key(&segment, row))
                .collect();
            for keys in keys.chunks(BATCH_ROWS) {
                if self.is_stopping() {
                    return Ok(());
                }
                let rows =
                    keys.iter().map(|key| Row { change: Change::Expire, ..removal(*key, None) });
                let answer = self.enqueue(rows.collect())?;
                answer.blocking_recv().unwrap_or(Err(Error::Stopping))?;
            }
        }
        Ok(())
    }
}

fn removal(key: u64, condition: Option<Condition>) -> Row {
    Row { key, change: Change::Delete, lsn: None, condition }
}
