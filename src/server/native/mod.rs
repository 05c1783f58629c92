//! The calls of our own contract, `voisin.v1`.

mod write_stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::proto::voisin_v1::voisin_server::Voisin;
use super::proto::voisin_v1::{
    QueryReply, QueryRequest, StatsReply, StatsRequest, WriteAck, WriteRequest,
};
use super::{Phases, convert, limits, status};
use crate::config::LimitsConfig;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, ForwardChoice};

/// The service.
pub(super) struct Native {
    database: Arc<Database>,
    message_bytes_max: usize,
    write_rows_max: u32,
    phases: Phases,
}

impl Native {
    pub(super) fn new(database: Arc<Database>, limits: &LimitsConfig, phases: Phases) -> Self {
        Native {
            database,
            message_bytes_max: limits.message_bytes_max,
            write_rows_max: limits.write_rows_max,
            phases,
        }
    }
}

#[tonic::async_trait]
impl Voisin for Native {
    type WriteStreamStream =
        Pin<Box<dyn Stream<Item = std::result::Result<WriteAck, Status>> + Send>>;

    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> std::result::Result<Response<QueryReply>, Status> {
        let started = Instant::now();
        let reply = search(&self.database, request.into_inner(), started).await;
        reply.map(Response::new).map_err(|error| {
            tracing::debug!(call = "Query", detail = %error, "refused");
            status::voisin_status(&error)
        })
    }

    async fn stats(
        &self,
        request: Request<StatsRequest>,
    ) -> std::result::Result<Response<StatsReply>, Status> {
        let collection = self.database.collection(&request.into_inner().collection);
        let collection = collection.map_err(|error| status::voisin_status(&error))?;
        Ok(Response::new(convert::stats_reply(
            &collection.stats(),
            collection.indexing(),
            collection.memory(),
            self.database.server_memory(),
        )))
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> std::result::Result<Response<Self::WriteStreamStream>, Status> {
        let bytes_max = self.message_bytes_max;
        let requests = request.into_inner().map(move |read| {
            read.map_err(|status| limits::explain_oversized(&status, bytes_max).unwrap_or(status))
        });
        let (database, rows_max) = (Arc::clone(&self.database), self.write_rows_max);
        let write = move |request| write_stream::write(Arc::clone(&database), rows_max, request);
        Ok(Response::new(Box::pin(write_stream::acknowledgements(
            requests,
            write,
            bytes_max,
            self.phases.clone().stopping(),
        ))))
    }
}

/// Answers one query.
async fn search(
    database: &Database,
    mut request: QueryRequest,
    started: Instant,
) -> Result<QueryReply> {
    let collection = database.collection(&request.collection)?;
    let schema = collection.schema();
    if let Some(vectors) = &mut request.vectors
        && vectors.name.is_empty()
    {
        vectors.name = only_column(schema)?.to_owned();
    }
    let query = convert::native_query(request)?;
    let forward_names = match &query.forwards {
        ForwardChoice::All => schema.forward_columns.clone(),
        ForwardChoice::Named(names) => names.clone(),
    };
    let reply = collection.query(query).await?;
    Ok(convert::query_reply(reply, &forward_names, || started.elapsed()))
}

/// The index column of a collection that has one.
fn only_column(schema: &CollectionSchema) -> Result<&str> {
    match &schema.columns[..] {
        [column] => Ok(&column.name),
        columns => {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            Err(Error::query(format!(
                "the index column is not named; the collection has {}",
                names.join(", ")
            )))
        }
    }
}
