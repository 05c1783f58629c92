//! Waiting until what a collection holds is indexed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Database, blocking};
use crate::collection::Collection;
use crate::error::{Error, Result};

/// Longest time that a caller waits.
const PATIENCE_MAX: Duration = Duration::from_secs(3_600);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

impl Database {
    /// Has begun at once what a collection would do when nothing is written any more, and waits until no
    /// work is due or under way, or until the time has passed. Gives the collection: it may have been
    /// altered, and so opened anew, meanwhile.
    pub async fn wait_indexed(
        self: &Arc<Self>,
        name: &str,
        patience: Duration,
    ) -> Result<Arc<Collection>> {
        if patience > PATIENCE_MAX {
            let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::LimitExceeded {
                what: "time to wait in milliseconds",
                value: milliseconds(patience),
                limit: milliseconds(PATIENCE_MAX),
                setting: "not adjustable",
            });
        }
        let began = Instant::now();
        let mut hurried = None;
        loop {
            let collection = self.collection(name)?;
            let is_known = hurried.as_ref().is_some_and(|hurry: &crate::collection::Hurry| {
                Arc::ptr_eq(hurry.collection(), &collection)
            });
            if !is_known {
                let collection = collection.clone();
                hurried = Some(blocking(move || Ok(collection.hurry())).await?);
            }
            let left = patience.saturating_sub(began.elapsed());
            if collection.indexing().is_settled || left.is_zero() {
                return Ok(collection);
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}
