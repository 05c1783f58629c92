//! The calls of our own contract, `voisin.v1`.

mod collections;
mod images;
mod read;
mod sent;
mod write;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::proto::voisin_v1::voisin_server::Voisin;
use super::proto::voisin_v1::{
    AlterCollectionRequest, ChangeAliasesReply, ChangeAliasesRequest, CollectionInfo, CountReply,
    CountRequest, CreateCollectionRequest, DeleteReply, DeleteRequest, DescribeCollectionRequest,
    DropCollectionReply, DropCollectionRequest, EmbedImagesReply, EmbedImagesRequest, GetRequest,
    ListCollectionsReply, ListCollectionsRequest, ListModelsReply, ListModelsRequest, QueryReply,
    QueryRequest, ReadRequest, Rows, ScrollReply, ScrollRequest, SearchByImageReply,
    SearchByImageRequest, StatsReply, StatsRequest, WaitIndexedReply, WaitIndexedRequest, WriteAck,
    WriteImagesRequest, WriteRequest,
};
use super::{Phases, convert, limits, status};
use crate::config::LimitsConfig;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, ForwardChoice};

/// What every method returns.
type Reply<T> = std::result::Result<Response<T>, Status>;
/// The messages of a reply that is a stream.
type Streamed<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

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
    type WriteStreamStream = Streamed<WriteAck>;
    type EmbedImagesStream = Streamed<EmbedImagesReply>;
    type WriteImagesStream = Streamed<WriteAck>;
    type ReadStream = Streamed<Rows>;

    async fn query(&self, request: Request<QueryRequest>) -> Reply<QueryReply> {
        let started = Instant::now();
        answer("Query", search(&self.database, request.into_inner(), started).await)
    }

    async fn create_collection(
        &self,
        request: Request<CreateCollectionRequest>,
    ) -> Reply<CollectionInfo> {
        let database = Arc::clone(&self.database);
        answer("CreateCollection", collections::create(database, request.into_inner()).await)
    }

    async fn describe_collection(
        &self,
        request: Request<DescribeCollectionRequest>,
    ) -> Reply<CollectionInfo> {
        let described = collections::describe(&self.database, &request.into_inner().name);
        answer("DescribeCollection", described)
    }

    async fn list_collections(
        &self,
        _: Request<ListCollectionsRequest>,
    ) -> Reply<ListCollectionsReply> {
        answer("ListCollections", Ok(collections::list(&self.database)))
    }

    async fn alter_collection(
        &self,
        request: Request<AlterCollectionRequest>,
    ) -> Reply<CollectionInfo> {
        let database = Arc::clone(&self.database);
        answer("AlterCollection", collections::alter(database, request.into_inner()).await)
    }

    async fn drop_collection(
        &self,
        request: Request<DropCollectionRequest>,
    ) -> Reply<DropCollectionReply> {
        let database = Arc::clone(&self.database);
        answer("DropCollection", collections::drop_one(database, request.into_inner().name).await)
    }

    async fn change_aliases(
        &self,
        request: Request<ChangeAliasesRequest>,
    ) -> Reply<ChangeAliasesReply> {
        let database = Arc::clone(&self.database);
        answer("ChangeAliases", collections::change_aliases(database, request.into_inner()).await)
    }

    async fn write(&self, request: Request<WriteRequest>) -> Reply<WriteAck> {
        let (database, rows_max) = (Arc::clone(&self.database), self.write_rows_max);
        let ack = write::write(database, rows_max, request.into_inner()).await;
        Ok(Response::new(ack))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Reply<DeleteReply> {
        let database = Arc::clone(&self.database);
        answer("Delete", write::delete(database, request.into_inner()).await)
    }

    async fn get(&self, request: Request<GetRequest>) -> Reply<Rows> {
        answer("Get", read::get(&self.database, request.into_inner()).await)
    }

    async fn read(&self, request: Request<ReadRequest>) -> Reply<Self::ReadStream> {
        let stream = read::read(&self.database, request.into_inner(), self.phases.clone());
        answer("Read", stream.map(|stream| Box::pin(stream) as Self::ReadStream))
    }

    async fn scroll(&self, request: Request<ScrollRequest>) -> Reply<ScrollReply> {
        answer("Scroll", read::scroll(&self.database, request.into_inner()).await)
    }

    async fn count(&self, request: Request<CountRequest>) -> Reply<CountReply> {
        answer("Count", read::count(&self.database, request.into_inner()).await)
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Reply<StatsReply> {
        let collection = self.database.collection(&request.into_inner().collection);
        let reply = collection.map(|collection| {
            convert::stats_reply(
                &collection.stats(),
                collection.indexing(),
                collection.memory(),
                collection.written(),
                self.database.server_memory(),
                collection.unindexed(),
                collection.recall(),
            )
        });
        answer("Stats", reply)
    }

    async fn wait_indexed(&self, request: Request<WaitIndexedRequest>) -> Reply<WaitIndexedReply> {
        let WaitIndexedRequest { collection, timeout_ms } = request.into_inner();
        let patience = Duration::from_millis(timeout_ms);
        let waited = tokio::select! {
            waited = self.database.wait_indexed(&collection, patience) => waited,
            // A stop waits for the calls in progress.
            () = self.phases.clone().stopping() => Err(Error::Stopping),
        };
        let reply = waited.map(|collection| WaitIndexedReply {
            indexing: Some(convert::indexing_report(collection.indexing())),
        });
        answer("WaitIndexed", reply)
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Reply<Self::WriteStreamStream> {
        let (database, rows_max) = (Arc::clone(&self.database), self.write_rows_max);
        let write = move |request| write::write(Arc::clone(&database), rows_max, request);
        Ok(self.pump(request, write))
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Reply<ListModelsReply> {
        answer("ListModels", images::list(Arc::clone(&self.database)).await)
    }

    async fn embed_images(
        &self,
        request: Request<Streaming<EmbedImagesRequest>>,
    ) -> Reply<Self::EmbedImagesStream> {
        let database = Arc::clone(&self.database);
        let embed = move |request| images::embed(Arc::clone(&database), request);
        Ok(self.pump(request, embed))
    }

    async fn write_images(
        &self,
        request: Request<Streaming<WriteImagesRequest>>,
    ) -> Reply<Self::WriteImagesStream> {
        let (database, rows_max) = (Arc::clone(&self.database), self.write_rows_max);
        let mut turns = images::Turns::default();
        let write =
            move |request| images::write(Arc::clone(&database), rows_max, request, turns.next());
        Ok(self.pump(request, write))
    }

    async fn search_by_image(
        &self,
        request: Request<SearchByImageRequest>,
    ) -> Reply<SearchByImageReply> {
        let found = images::search(&self.database, request.into_inner()).await;
        answer("SearchByImage", found)
    }
}

impl Native {
    /// Vectors of the pictures of one request.
    pub(super) async fn embed(&self, request: EmbedImagesRequest) -> EmbedImagesReply {
        images::embed(Arc::clone(&self.database), request).await
    }

    /// Writes the pictures of one request.
    pub(super) async fn write_pictures(&self, request: WriteImagesRequest) -> WriteAck {
        let turn = images::Turns::default().next();
        images::write(Arc::clone(&self.database), self.write_rows_max, request, turn).await
    }

    /// Answers a stream of requests, each by itself and in their order.
    fn pump<Q, A, F>(
        &self,
        requests: Request<Streaming<Q>>,
        work: impl FnMut(Q) -> F + Send + 'static,
    ) -> Response<Streamed<A>>
    where
        Q: prost::Message + 'static,
        A: Send + 'static,
        F: Future<Output = A> + Send + 'static,
    {
        let bytes_max = self.message_bytes_max;
        let requests = requests.into_inner().map(move |read| {
            read.map_err(|status| limits::explain_oversized(&status, bytes_max).unwrap_or(status))
        });
        let stopping = self.phases.clone().stopping();
        Response::new(Box::pin(write::acknowledgements(requests, work, bytes_max, stopping)))
    }
}

/// The reply of a call, or the status that says why there is none.
fn answer<T>(call: &'static str, outcome: Result<T>) -> Reply<T> {
    outcome.map(Response::new).map_err(|error| {
        tracing::debug!(call, detail = %error, "refused");
        status::voisin_status(&error)
    })
}

/// Answers one query.
async fn search(
    database: &Database,
    mut request: QueryRequest,
    started: Instant,
) -> Result<QueryReply> {
    let collection = database.collection(&request.collection)?;
    let schema = collection.schema();
    sent::check_vectors_count(&request)?;
    if let Some(vectors) = &mut request.vectors {
        sent::round_doubles(vectors, schema, Error::query)?;
    }
    let mut query = convert::native_query(request)?;
    if query.column.is_empty() {
        query.column = only_column(schema)?.to_owned();
    }
    let forward_names = match &query.forwards {
        ForwardChoice::All => schema.forward_columns.clone(),
        ForwardChoice::Named(names) => names.clone(),
    };
    let reply = collection.query(query).await?;
    let elapsed = || started.elapsed();
    Ok(convert::query_reply(reply, &forward_names, &schema.columns, elapsed))
}

/// The index column of a collection that has one.
pub(in crate::server) fn only_column(schema: &CollectionSchema) -> Result<&str> {
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
