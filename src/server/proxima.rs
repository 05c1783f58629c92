//! The calls of Proxima BE 0.2: convert, call, convert. Application errors travel in the reply's
//! body, never as gRPC errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tonic::{Request, Response};

use super::convert::{self, Timeline};
use super::metrics::Failed;
use super::proto::proxima::proxima_service_server::ProximaService;
use super::proto::proxima::{
    CollectionConfig, CollectionName, DescribeCollectionResponse, GetDocumentRequest,
    GetDocumentResponse, GetVersionRequest, GetVersionResponse, ListCollectionsResponse,
    ListCondition, QueryRequest, QueryResponse, StatsCollectionResponse, Status, WriteRequest,
    query_response,
};
use super::status::{self, DETAIL_KEY, Refusal};
use super::{limits, to_the_end};
use crate::collection::Collection;
use crate::config::LimitsConfig;
use crate::database::Database;
use crate::error::{Error, Result};

/// The version of the contract; all released clients accept it.
const CONTRACT_VERSION: &str = "0.2.0";

/// What every method returns; none ever uses the error side.
type Reply<T> = std::result::Result<Response<T>, tonic::Status>;

/// The service.
pub(super) struct Proxima {
    database: Arc<Database>,
    write_rows_max: u32,
    next_query_id: AtomicU64,
}

impl Proxima {
    pub(super) fn new(database: Arc<Database>, limits: &LimitsConfig) -> Self {
        Proxima {
            database,
            write_rows_max: limits.write_rows_max,
            next_query_id: AtomicU64::new(1),
        }
    }

    fn info(&self, collection: &Collection) -> super::proto::proxima::CollectionInfo {
        let magic_number = self.database.magic_number();
        convert::collection_info(collection.schema(), collection.latest_lsn(), magic_number)
    }

    async fn apply(&self, wire: WriteRequest) -> std::result::Result<(), Refusal> {
        let collection = self.database.collection(&wire.collection_name)?;
        limits::check_rows(wire.rows.len(), self.write_rows_max)?;
        let magic_number = Some(wire.magic_number);
        let outcome = collection.write(convert::raw_write(wire), magic_number).await?;
        match Refusal::of_rows(&outcome.failures) {
            // Repository writes answer success whatever happens to single rows.
            Some(refusal) if !collection.schema().follows_repository() => Err(refusal),
            Some(_) | None => Ok(()),
        }
    }

    async fn search(
        &self,
        wire: QueryRequest,
        timeline: &mut Timeline,
    ) -> Result<Vec<query_response::Result>> {
        let collection = self.database.collection(&wire.collection_name)?;
        let request = convert::knn_request(wire)?;
        timeline.before = timeline.started.elapsed();
        let reply = collection.query(request).await?;
        timeline.profile = reply.profile;
        let searched = timeline.started.elapsed();
        let results = convert::results(reply.results, &collection.schema().forward_columns);
        timeline.after = Some(timeline.started.elapsed().saturating_sub(searched));
        Ok(results)
    }
}

#[tonic::async_trait]
impl ProximaService for Proxima {
    async fn create_collection(&self, request: Request<CollectionConfig>) -> Reply<Status> {
        let declared = convert::new_collection(request.into_inner());
        let database = Arc::clone(&self.database);
        let outcome = to_the_end(async move { database.create_collection(declared).await }).await;
        Ok(answer("create_collection", outcome, |status, _| status))
    }

    async fn drop_collection(&self, request: Request<CollectionName>) -> Reply<Status> {
        let name = request.into_inner().collection_name;
        let database = Arc::clone(&self.database);
        let outcome = to_the_end(async move { database.drop_collection(&name).await }).await;
        Ok(answer("drop_collection", outcome, |status, _| status))
    }

    async fn describe_collection(
        &self,
        request: Request<CollectionName>,
    ) -> Reply<DescribeCollectionResponse> {
        let collection = self.database.collection(&request.get_ref().collection_name);
        let outcome = collection.map(|collection| self.info(&collection));
        Ok(answer("describe_collection", outcome, |status, collection| {
            DescribeCollectionResponse { status: Some(status), collection }
        }))
    }

    async fn list_collections(
        &self,
        request: Request<ListCondition>,
    ) -> Reply<ListCollectionsResponse> {
        let wanted = &request.get_ref().repository_name;
        let mut collections = self.database.collections();
        collections.retain(|collection| {
            let repository = collection.schema().repository.as_ref();
            wanted.is_empty() || repository.is_some_and(|repository| repository.name == *wanted)
        });
        let collections = collections.iter().map(|collection| self.info(collection)).collect();
        Ok(Response::new(ListCollectionsResponse { status: Some(status::success()), collections }))
    }

    async fn stats_collection(
        &self,
        request: Request<CollectionName>,
    ) -> Reply<StatsCollectionResponse> {
        let collection = self.database.collection(&request.get_ref().collection_name);
        let outcome = collection.map(|collection| {
            convert::collection_stats(collection.stats(), collection.schema().columns.len())
        });
        Ok(answer("stats_collection", outcome, |status, collection_stats| {
            StatsCollectionResponse { status: Some(status), collection_stats }
        }))
    }

    async fn write(&self, request: Request<WriteRequest>) -> Reply<Status> {
        let outcome = self.apply(request.into_inner()).await;
        Ok(answer("write", outcome, |status, _| status))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Reply<QueryResponse> {
        let mut timeline = Timeline::start();
        let request = request.into_inner();
        let debug_mode = request.debug_mode;
        let outcome = self.search(request, &mut timeline).await;
        let latency_us = timeline.latency_us();
        let query_id = self.next_query_id.fetch_add(1, Ordering::Relaxed);
        let debug_info = match debug_mode {
            true => convert::debug_info(&timeline, query_id, latency_us),
            false => String::new(),
        };
        Ok(answer("query", outcome, |status, results| QueryResponse {
            status: Some(status),
            debug_info,
            latency_us,
            results: results.unwrap_or_default(),
        }))
    }

    async fn get_document_by_key(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Reply<GetDocumentResponse> {
        let outcome = async {
            let GetDocumentRequest { collection_name, primary_key, .. } = request.get_ref();
            let collection = self.database.collection(collection_name)?;
            let hit = collection.get(*primary_key).await?;
            Ok::<_, Error>(
                hit.map(|hit| convert::document(hit, &collection.schema().forward_columns)),
            )
        };
        Ok(answer("get_document_by_key", outcome.await, |status, document| GetDocumentResponse {
            status: Some(status),
            debug_info: String::new(),
            document: document.flatten(),
        }))
    }

    async fn get_version(&self, _: Request<GetVersionRequest>) -> Reply<GetVersionResponse> {
        let version = CONTRACT_VERSION.to_owned();
        Ok(Response::new(GetVersionResponse { status: Some(status::success()), version }))
    }
}

/// Builds the reply from the status and, where the call succeeded, its result. A failing reply
/// also carries what was wrong in full, and is logged.
fn answer<T, M>(
    call: &'static str,
    outcome: std::result::Result<T, impl Into<Refusal>>,
    build: impl FnOnce(Status, Option<T>) -> M,
) -> Response<M> {
    let refusal: Refusal = match outcome {
        Ok(result) => return Response::new(build(status::success(), Some(result))),
        Err(error) => error.into(),
    };
    tracing::debug!(call, code = refusal.code, detail = refusal.detail, "refused");
    let mut response = Response::new(build(refusal.status(), None));
    response.extensions_mut().insert(Failed::Code(refusal.code));
    if let Some(value) = refusal.detail_value() {
        response.metadata_mut().insert(DETAIL_KEY, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_reply_keeps_the_fixed_reason_and_carries_the_detail() {
        let missing = Error::CollectionNotFound { name: "photos".into() };
        let response = answer("test", Err::<(), _>(missing), |status, _| status);
        let detail = response.metadata().get(DETAIL_KEY).expect("a failing reply has a detail");
        assert_eq!(detail, "collection \"photos\" does not exist");
        let expected = Status { code: -4002, reason: "Collection Not Exist".into() };
        assert_eq!(response.into_inner(), expected);
    }

    #[test]
    fn a_reply_of_success_carries_its_result_and_nothing_else() {
        let response = answer("test", Ok::<_, Error>(7), |status, result| (status, result));
        assert!(response.metadata().is_empty());
        assert_eq!(response.into_inner(), (status::success(), Some(7)));
    }
}
