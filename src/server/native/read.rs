//! Rows as they are stored: of keys, all of them as a stream or page by page, and how many there are.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, Stream};
use tonic::Status;

use crate::collection::{Collection, Reader, SharedFilter};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::query::AHEAD_ROWS;
use crate::server::proto::voisin_v1::{
    CountReply, CountRequest, FilterValue, GetRequest, ReadRequest, Rows, ScrollReply,
    ScrollRequest,
};
use crate::server::{Phases, convert, status};

/// Bytes after which a message of a stream takes no further row.
const STREAM_BYTES: u64 = 1 << 20;

/// The rows of keys.
pub(super) async fn get(database: &Database, request: GetRequest) -> Result<Rows> {
    let collection = database.collection(&request.collection)?;
    let choice = convert::column_choice(request.forwards, request.vectors);
    let (rows, columns) = collection.rows(request.keys, &choice).await?;
    Ok(convert::rows(rows, &columns, collection.schema()))
}

/// A page of rows.
pub(super) async fn scroll(database: &Database, request: ScrollRequest) -> Result<ScrollReply> {
    let collection = database.collection(&request.collection)?;
    let choice = convert::column_choice(request.forwards, request.vectors);
    let filter = filter(&collection, request.filter, request.filter_params)?;
    let cursor = (!request.cursor.is_empty()).then_some(request.cursor.as_str());
    let page = collection.scroll(&choice, filter, cursor, request.limit as usize).await?;
    Ok(ScrollReply {
        rows: Some(convert::rows(page.rows, &page.columns, collection.schema())),
        cursor: page.cursor.unwrap_or_default(),
    })
}

/// How many rows there are.
pub(super) async fn count(database: &Database, request: CountRequest) -> Result<CountReply> {
    let collection = database.collection(&request.collection)?;
    let filter = filter(&collection, request.filter, request.filter_params)?;
    Ok(CountReply { rows: collection.count(filter).await? })
}

/// A filter of its parts; `None` where there is none.
fn filter(
    collection: &Collection,
    text: String,
    params: HashMap<String, FilterValue>,
) -> Result<Option<SharedFilter>> {
    let raw = convert::filter(text, params).map_err(Error::query)?;
    raw.map(|raw| collection.filter(&raw)).transpose()
}

/// All rows, message by message. Each is read when the one before it was taken.
pub(super) fn read(
    database: &Database,
    request: ReadRequest,
    phases: Phases,
) -> Result<impl Stream<Item = std::result::Result<Rows, Status>> + Send + use<>> {
    let collection = database.collection(&request.collection)?;
    let choice = convert::column_choice(request.forwards, request.vectors);
    let filter = filter(&collection, request.filter, request.filter_params)?;
    let reader = collection.reader(&choice, filter, request.after)?;
    Ok(stream::unfold(Some((reader, phases)), |state| async move {
        let (reader, phases) = state?;
        match next(&reader, &phases).await {
            Ok((rows, has_more)) => {
                let is_last_and_empty = !has_more && rows.keys.is_empty();
                let state = has_more.then_some((reader, phases));
                (!is_last_and_empty).then_some((Ok(rows), state))
            }
            Err(error) => Some((Err(status::voisin_status(&error)), None)),
        }
    }))
}

async fn next(reader: &Arc<Reader>, phases: &Phases) -> Result<(Rows, bool)> {
    if phases.is_stopping() {
        return Err(Error::Stopping);
    }
    let (batch, has_more) = reader.next(AHEAD_ROWS, STREAM_BYTES).await?;
    Ok((convert::rows(batch, reader.columns(), reader.schema()), has_more))
}
