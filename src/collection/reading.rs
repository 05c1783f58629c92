//! Reading rows: those of keys, how many there are, and all of one moment in key order, however long
//! that takes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::snapshot::Snapshot;
use super::{Collection, now};
use crate::cancel::Cancel;
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::index::RowSet;
use crate::query::filter::Both;
use crate::query::{
    AHEAD_ROWS, ColumnChoice, RowBatch, RowColumns, RowFilter, RowPlace, SegmentRef, View,
    count_rows, fetch_rows, next_rows,
};
use crate::schema::CollectionSchema;

/// The rows a filter lets through, as it is taken along.
pub type SharedFilter = Arc<dyn RowFilter>;

/// All rows of one moment, or those of a filter, in key order. Holds that moment's segments.
pub struct Reader {
    schema: Arc<CollectionSchema>,
    compute: Arc<Compute>,
    snapshot: Arc<Snapshot>,
    columns: RowColumns,
    filter: Option<SharedFilter>,
    progress: Mutex<Progress>,
    /// A place among the open readers.
    _permit: OwnedSemaphorePermit,
}

/// How far a reader has come.
#[derive(Default)]
struct Progress {
    /// The rows of each segment that the filter lets through, once it was asked.
    allowed: Option<Vec<Arc<RowSet>>>,
    /// The rows that come next, without gaps.
    ahead: VecDeque<RowPlace>,
    /// The key that `ahead` begins behind.
    after: Option<u64>,
}

impl Reader {
    /// The columns that are read.
    pub fn columns(&self) -> &RowColumns {
        &self.columns
    }

    /// The collection's declaration.
    pub fn schema(&self) -> &CollectionSchema {
        &self.schema
    }

    /// The next rows, and whether there are more: at most `rows_max`, fewer where they have `bytes_max`
    /// bytes. Waits for a search thread, however many wait.
    pub async fn next(
        self: &Arc<Self>,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<(RowBatch, bool)> {
        let reader = self.clone();
        let read = move |cancel: &Cancel| {
            reader.read(&mut reader.progress.lock(), rows_max, bytes_max, cancel)
        };
        self.compute.search_in_turn(read).await
    }

    /// The rows behind a key, and whether there are more.
    async fn page(
        self: &Arc<Self>,
        after: Option<u64>,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<(RowBatch, bool)> {
        let reader = self.clone();
        let read = move |cancel: &Cancel| {
            let mut progress = reader.progress.lock();
            if progress.after != after {
                progress.ahead.clear();
                progress.after = after;
            }
            reader.read(&mut progress, rows_max, bytes_max, cancel)
        };
        self.compute.search(read).await
    }

    /// Where it fails, `progress` goes on to hold what comes behind its key.
    fn read(
        &self,
        progress: &mut Progress,
        rows_max: usize,
        bytes_max: u64,
        cancel: &Cancel,
    ) -> Result<(RowBatch, bool)> {
        let segments = self.snapshot.segments();
        let view = view(&self.schema, &segments, &self.snapshot, cancel);
        if let (Some(filter), None) = (&self.filter, &progress.allowed) {
            progress.allowed = Some(segments.iter().map(|segment| filter.rows(segment)).collect());
        }
        let look_ahead = |progress: &mut Progress| -> Result<()> {
            if progress.ahead.is_empty() {
                let count = AHEAD_ROWS.max(rows_max);
                let allowed = progress.allowed.as_deref();
                progress.ahead = next_rows(&view, allowed, progress.after, count)?.into();
            }
            Ok(())
        };
        look_ahead(progress)?;
        let places: Vec<RowPlace> = progress.ahead.iter().take(rows_max).copied().collect();
        let batch = fetch_rows(&view, &self.columns, &places, bytes_max)?;
        progress.ahead.drain(..batch.keys.len());
        progress.after = batch.keys.last().copied().or(progress.after);
        look_ahead(progress)?;
        Ok((batch, !progress.ahead.is_empty()))
    }
}

fn view<'a>(
    schema: &'a CollectionSchema,
    segments: &'a [SegmentRef<'a>],
    snapshot: &Snapshot,
    cancel: &'a Cancel,
) -> View<'a> {
    View { schema, segments, filter: None, hidden: &[], sequence: snapshot.sequence, cancel }
}

/// Readers that are kept between the calls of those who page through a collection.
#[derive(Default)]
pub(super) struct Scrolls {
    open: Mutex<HashMap<Uuid, OpenScroll>>,
}

struct OpenScroll {
    reader: Arc<Reader>,
    used: Instant,
}

impl Scrolls {
    /// Closes those that nobody has read by for so long.
    pub(super) fn expire(&self, idle: Duration) {
        self.open.lock().retain(|_, scroll| scroll.used.elapsed() < idle);
    }

    fn find(&self, id: Uuid) -> Option<Arc<Reader>> {
        let mut open = self.open.lock();
        let found = open.get_mut(&id)?;
        found.used = Instant::now();
        Some(found.reader.clone())
    }
}

/// A page of a scroll.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The rows, in key order.
    pub rows: RowBatch,
    /// The columns that these have.
    pub columns: RowColumns,
    /// Where the next page begins; `None` behind the last.
    pub cursor: Option<String>,
}

/// What a page of a scroll begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    scroll: Uuid,
    after: u64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self> {
        let parts = text.split_once('-').and_then(|(scroll, after)| {
            let scroll = Uuid::try_parse(scroll).ok()?;
            Some(Cursor { scroll, after: u64::from_str_radix(after, 16).ok()? })
        });
        parts.ok_or_else(|| Error::query("the cursor is not one that a scroll returned"))
    }

    fn text(&self) -> String {
        format!("{}-{:x}", self.scroll.simple(), self.after)
    }
}

impl Collection {
    /// Opens a reader of all rows behind the key `after`, or of those that the filter lets through.
    pub fn reader(
        &self,
        choice: &ColumnChoice,
        filter: Option<SharedFilter>,
        after: Option<u64>,
    ) -> Result<Arc<Reader>> {
        self.check_open()?;
        let columns = RowColumns::new(&self.schema, choice)?;
        let filter = self.among_current(filter)?;
        let permit = self.readers.clone().try_acquire_owned().map_err(|_| Error::Busy {
            what: "the table of open streams and scrolls",
            limit: u64::from(self.config.limits.readers_max),
            setting: "limits.readers_max",
        })?;
        Ok(Arc::new(Reader {
            schema: self.schema.clone(),
            compute: self.compute.clone(),
            snapshot: self.published.snapshot(),
            columns,
            filter,
            progress: Mutex::new(Progress { after, ..Progress::default() }),
            _permit: permit,
        }))
    }

    /// A page of at most `rows_max` rows. Without a cursor a scroll begins; with one, it goes on over the
    /// rows that it began with, whatever `filter` says now. The same cursor gives the same page again.
    pub async fn scroll(
        &self,
        choice: &ColumnChoice,
        filter: Option<SharedFilter>,
        cursor: Option<&str>,
        rows_max: usize,
    ) -> Result<Page> {
        self.check_open()?;
        self.check_page(rows_max)?;
        let bytes_max = self.config.limits.reply_bytes_max;
        let cursor = cursor.map(Cursor::parse).transpose()?;
        let reader = match cursor {
            None => self.reader(choice, filter, None)?,
            Some(cursor) => self.scrolls.find(cursor.scroll).ok_or(Error::ScrollGone)?,
        };
        let columns = reader.columns.clone();
        if columns != RowColumns::new(&self.schema, choice)? {
            return Err(Error::query("the columns are not those that the scroll began with"));
        }
        let after = cursor.map(|cursor| cursor.after);
        let (rows, has_more) = reader.page(after, rows_max, bytes_max).await?;
        let last = rows.keys.last().copied().filter(|_| has_more);
        let next = last.map(|after| {
            let scroll = cursor.map_or_else(Uuid::new_v4, |cursor| cursor.scroll);
            if cursor.is_none() {
                let open = OpenScroll { reader, used: Instant::now() };
                self.scrolls.open.lock().insert(scroll, open);
            }
            Cursor { scroll, after }.text()
        });
        Ok(Page { rows, columns, cursor: next })
    }

    /// A filter with the rows left out that have expired.
    pub(super) fn among_current(
        &self,
        filter: Option<SharedFilter>,
    ) -> Result<Option<SharedFilter>> {
        let Some(expiry) = &self.expiry else { return Ok(filter) };
        let current = expiry.current(&self.schema, now())?;
        Ok(Some(match filter {
            Some(filter) => Arc::new(Both(filter, current)),
            None => current,
        }))
    }

    fn check_page(&self, rows: usize) -> Result<()> {
        let limit = u64::from(self.config.limits.query_results_max);
        if rows == 0 {
            return Err(Error::query("limit is 0; it must be at least 1"));
        }
        if rows as u64 <= limit {
            return Ok(());
        }
        Err(Error::LimitExceeded {
            what: "number of rows asked for",
            value: rows as u64,
            limit,
            setting: "limits.query_results_max",
        })
    }

    /// The live rows of keys, in the order asked for, without the keys that have none.
    pub async fn rows(
        self: &Arc<Self>,
        keys: Vec<u64>,
        choice: &ColumnChoice,
    ) -> Result<(RowBatch, RowColumns)> {
        self.check_open()?;
        if !keys.is_empty() {
            self.check_page(keys.len())?;
        }
        let columns = RowColumns::new(&self.schema, choice)?;
        let collection = self.clone();
        let read = move |cancel: &Cancel| {
            let (snapshot, mut places) = collection.published.places(&keys);
            let segments = snapshot.segments();
            if let Some(expiry) = &collection.expiry {
                let now = now();
                places.retain(|place| {
                    let forward = segments[place.segment as usize].forward(place.row);
                    !expiry.has_expired(&forward, now)
                });
            }
            let view = view(&collection.schema, &segments, &snapshot, cancel);
            let bytes_max = collection.config.limits.reply_bytes_max;
            let rows = fetch_rows(&view, &columns, &places, bytes_max)?;
            match rows.keys.len() == places.len() {
                true => Ok((rows, columns)),
                false => Err(Error::LimitExceeded {
                    what: "size of the reply in bytes",
                    value: bytes_max + 1,
                    limit: bytes_max,
                    setting: "limits.reply_bytes_max",
                }),
            }
        };
        self.compute.search(read).await
    }

    /// How many live rows there are, or how many of those the filter lets through.
    pub async fn count(self: &Arc<Self>, filter: Option<SharedFilter>) -> Result<u64> {
        self.check_open()?;
        let filter = self.among_current(filter)?;
        let collection = self.clone();
        let count = move |cancel: &Cancel| {
            let snapshot = collection.published.snapshot();
            let segments = snapshot.segments();
            let view = view(&collection.schema, &segments, &snapshot, cancel);
            let allowed = filter.map(|filter| {
                segments.iter().map(|segment| filter.rows(segment)).collect::<Vec<_>>()
            });
            count_rows(&view, allowed.as_deref())
        };
        self.compute.search(count).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_others_are_refused() {
        let cursor = Cursor { scroll: Uuid::new_v4(), after: u64::MAX };
        assert_eq!(Cursor::parse(&cursor.text()).expect("it is one"), cursor);
        for text in ["", "-", "x-1", &cursor.text()[1..], &format!("{}0", cursor.text())] {
            assert!(Cursor::parse(text).is_err(), "{text:?}");
        }
    }
}
