//! The REST API of Proxima BE 0.2: JSON in, the same calls as over gRPC, JSON out. Every outcome of a
//! call is HTTP 200; whether it succeeded is told by the code inside.

use std::future::Future;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::proxima_json::{self, Message};
use super::{Http, body, if_long};
use crate::error::{Error, Result};
use crate::server::metrics::Failed;
use crate::server::proto::proxima::proxima_service_server::ProximaService;
use crate::server::proto::proxima::{
    CollectionConfig, CollectionName, DescribeCollectionResponse, GetDocumentRequest,
    GetDocumentResponse, GetVersionRequest, GetVersionResponse, ListCollectionsResponse,
    ListCondition, QueryRequest, QueryResponse, StatsCollectionResponse, Status, WriteRequest,
};
use crate::server::status::{DETAIL_KEY, Refusal};

/// What a path asks for. Names are as they stand in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    Version,
    Collections,
    Collection(&'a str),
    Stats(&'a str),
    Write(&'a str),
    Query(&'a str),
    Document(&'a str),
}

/// The calls as metrics name them: as gRPC does.
pub(in crate::server) const REST_CALLS: [&str; 10] = [
    UNKNOWN,
    "create_collection",
    "describe_collection",
    "drop_collection",
    "get_document_by_key",
    "get_version",
    "list_collections",
    "query",
    "stats_collection",
    "write",
];
/// A route that is none, or a method that it does not take.
const UNKNOWN: &str = "unknown";

impl<'a> Route<'a> {
    /// The call that a method makes of the route.
    fn call(self, method: &Method) -> &'static str {
        match (self, method) {
            (Route::Version, _) => "get_version",
            (Route::Collections, &Method::GET) => "list_collections",
            (Route::Collection(_), &Method::GET) => "describe_collection",
            (Route::Collection(_), &Method::POST) => "create_collection",
            (Route::Collection(_), &Method::DELETE) => "drop_collection",
            (Route::Stats(_), &Method::GET) => "stats_collection",
            (Route::Write(_), &Method::POST) => "write",
            (Route::Query(_), &Method::POST) => "query",
            (Route::Document(_), &Method::GET) => "get_document_by_key",
            _ => UNKNOWN,
        }
    }

    fn of(path: &'a str) -> Option<Self> {
        match path {
            "/service_version" => return Some(Route::Version),
            "/v1/collections" => return Some(Route::Collections),
            _ => {}
        }
        let below = path.strip_prefix("/v1/collection/")?;
        Some(match below.split_once('/') {
            None => Route::Collection(below),
            Some((name, "stats")) => Route::Stats(name),
            Some((name, "index")) => Route::Write(name),
            Some((name, "query")) => Route::Query(name),
            Some((name, "doc")) => Route::Document(name),
            Some(_) => return None,
        })
    }
}

/// Answers everything that no other route does.
pub(super) async fn answer(State(http): State<Http>, request: Request) -> Response {
    let route = Route::of(request.uri().path());
    let call = route.map_or(UNKNOWN, |route| route.call(request.method()));
    let running = http.metrics.rest(call);
    let (head, body) = request.into_parts();
    let response = dispatch(&http, &head.method, &head.uri, body).await;
    match (response.status(), response.extensions().get()) {
        (StatusCode::OK, None) => running.end(None),
        (StatusCode::OK, Some(failed)) => running.end(Some(&Failed::to_string(failed))),
        (status, _) => running.end(Some(status.as_str())),
    }
    response
}

async fn dispatch(http: &Http, method: &Method, uri: &Uri, body: Body) -> Response {
    let Some(route) = Route::of(uri.path()) else {
        body::discard(body).await;
        let words = format!("there is nothing at {}\n", uri.path());
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let calls = Rest { http, uri };
    match (route, method) {
        (Route::Version, _) => calls.without_body(body, calls.version()).await,
        (Route::Collections, &Method::GET) => calls.without_body(body, calls.list()).await,
        (Route::Collections, _) => wrong_method::<ListCollectionsResponse>(body, "GET").await,
        (Route::Collection(name), &Method::GET) => {
            calls.without_body(body, calls.describe(name)).await
        }
        (Route::Collection(name), &Method::DELETE) => {
            calls.without_body(body, calls.drop(name)).await
        }
        (Route::Collection(name), &Method::POST) => calls.create(name, body).await,
        (Route::Collection(_), _) => wrong_method_of_many(body).await,
        (Route::Stats(name), &Method::GET) => calls.without_body(body, calls.stats(name)).await,
        (Route::Stats(_), _) => wrong_method::<StatsCollectionResponse>(body, "GET").await,
        (Route::Write(name), &Method::POST) => calls.write(name, body).await,
        (Route::Write(_), _) => wrong_method::<Status>(body, "POST").await,
        (Route::Query(name), &Method::POST) => calls.query(name, body).await,
        (Route::Query(_), _) => wrong_method::<QueryResponse>(body, "POST").await,
        (Route::Document(name), &Method::GET) => {
            calls.without_body(body, calls.document(name)).await
        }
        (Route::Document(_), _) => wrong_method::<GetDocumentResponse>(body, "GET").await,
    }
}

/// A message that answers a call, and can say that it failed.
trait Answer: Message {
    fn refused(status: Status) -> Self;
}

impl Answer for Status {
    fn refused(status: Status) -> Self {
        status
    }
}

macro_rules! answer {
    ($($type:ty),* $(,)?) => {
        $(impl Answer for $type {
            fn refused(status: Status) -> Self {
                Self { status: Some(status), ..Self::default() }
            }
        })*
    };
}

answer!(
    DescribeCollectionResponse,
    GetDocumentResponse,
    GetVersionResponse,
    ListCollectionsResponse,
    QueryResponse,
    StatsCollectionResponse,
);

/// What a call of the service returns; none ever uses the error side.
type Reply<T> = std::result::Result<tonic::Response<T>, tonic::Status>;

/// The calls, each as one method: read, call, write.
struct Rest<'a> {
    http: &'a Http,
    uri: &'a Uri,
}

impl Rest<'_> {
    async fn version(&self) -> Reply<GetVersionResponse> {
        self.http.proxima.get_version(tonic::Request::new(GetVersionRequest {})).await
    }

    async fn list(&self) -> Reply<ListCollectionsResponse> {
        let repository_name = self.parameter("repository").unwrap_or_default();
        let condition = tonic::Request::new(ListCondition { repository_name });
        self.http.proxima.list_collections(condition).await
    }

    async fn describe(&self, name: &str) -> Reply<DescribeCollectionResponse> {
        self.http.proxima.describe_collection(self.named(name)).await
    }

    async fn drop(&self, name: &str) -> Reply<Status> {
        self.http.proxima.drop_collection(self.named(name)).await
    }

    async fn stats(&self, name: &str) -> Reply<StatsCollectionResponse> {
        self.http.proxima.stats_collection(self.named(name)).await
    }

    async fn document(&self, name: &str) -> Reply<GetDocumentResponse> {
        let Some(key) = self.parameter("key") else {
            return Ok(refused(&Refusal::malformed("the query string has no key")));
        };
        let request = GetDocumentRequest {
            collection_name: self.name(name),
            primary_key: leading_number(&key),
            debug_mode: false,
        };
        self.http.proxima.get_document_by_key(tonic::Request::new(request)).await
    }

    async fn create(&self, name: &str, body: Body) -> Response {
        self.with_body(body, async |mut config: CollectionConfig| {
            if config.collection_name.is_empty() {
                config.collection_name = self.name(name);
            }
            self.http.proxima.create_collection(tonic::Request::new(config)).await
        })
        .await
    }

    async fn write(&self, name: &str, body: Body) -> Response {
        self.with_body(body, async |mut request: WriteRequest| {
            request.collection_name = self.name(name);
            self.http.proxima.write(tonic::Request::new(request)).await
        })
        .await
    }

    async fn query(&self, name: &str, body: Body) -> Response {
        self.with_body(body, async |mut request: QueryRequest| {
            request.collection_name = self.name(name);
            self.http.proxima.query(tonic::Request::new(request)).await
        })
        .await
    }

    /// Makes a call whose body, if any, has no meaning.
    async fn without_body<A: Answer>(
        &self,
        body: Body,
        call: impl Future<Output = Reply<A>>,
    ) -> Response {
        body::discard(body).await;
        match self.http.begin() {
            Some(_in_progress) => respond(call.await),
            None => respond::<A>(Ok(refused(&Refusal::from(Error::Stopping)))),
        }
    }

    /// Reads the body and makes the call.
    async fn with_body<Q: Message, A: Answer>(
        &self,
        body: Body,
        call: impl AsyncFnOnce(Q) -> Reply<A>,
    ) -> Response {
        let Some(_in_progress) = self.http.begin() else {
            body::discard(body).await;
            return respond::<A>(Ok(refused(&Refusal::from(Error::Stopping))));
        };
        respond(match self.read(body).await {
            Ok(Ok(request)) => call(request).await,
            Ok(Err(words)) => Ok(refused(&Refusal::malformed(words))),
            Err(error) => Ok(refused(&Refusal::from(error))),
        })
    }

    async fn read<Q: Message>(&self, body: Body) -> Result<std::result::Result<Q, String>> {
        let bytes_max = self.http.limits.message_bytes_max;
        let text = body::read(body, bytes_max, self.http.database.memory()).await?;
        Ok(if_long(text.len(), || proxima_json::read(&text)))
    }

    fn named(&self, name: &str) -> tonic::Request<CollectionName> {
        tonic::Request::new(CollectionName { collection_name: self.name(name) })
    }

    /// The collection that a path means: the name as it stands there, which is the original's rule, or
    /// where no collection has that name, what its %XX stand for. Clients encode letters that a path
    /// cannot hold, and would else not reach the collections that they name in a body.
    fn name(&self, raw: &str) -> String {
        if !raw.contains('%') || self.http.database.has(raw) {
            return raw.to_owned();
        }
        decoded(raw)
    }

    /// A parameter of the query string, decoded; the first where it is repeated.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs =
            self.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| decoded(value))
    }
}

/// Text with its %XX replaced, unless they stand for no text.
fn decoded(raw: &str) -> String {
    percent_decode_str(raw).decode_utf8().map_or_else(|_| raw.to_owned(), |text| text.into_owned())
}

/// The number that text begins with, as C's `strtoull` reads it: 0 where there is none, the largest
/// where it is too large, and below 0 counted down from there.
fn leading_number(text: &str) -> u64 {
    let text = text.trim_ascii_start();
    let (is_negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let mut number: u64 = 0;
    for digit in digits.bytes().take_while(u8::is_ascii_digit) {
        let more = number.checked_mul(10).and_then(|tens| tens.checked_add((digit - b'0').into()));
        match more {
            Some(more) => number = more,
            None => return u64::MAX,
        }
    }
    if is_negative { number.wrapping_neg() } else { number }
}

/// A refusal that no call of the service has made.
fn refused<A: Answer>(refusal: &Refusal) -> tonic::Response<A> {
    tracing::debug!(code = refusal.code, detail = refusal.detail, "refused over HTTP");
    let mut reply = tonic::Response::new(A::refused(refusal.status()));
    reply.extensions_mut().insert(Failed::Code(refusal.code));
    if let Some(value) = refusal.detail_value() {
        reply.metadata_mut().insert(DETAIL_KEY, value);
    }
    reply
}

fn respond<A: Answer>(reply: Reply<A>) -> Response {
    let reply =
        reply.unwrap_or_else(|status| refused(&Refusal::from(Error::internal(status.message()))));
    let detail = reply.metadata().get(DETAIL_KEY);
    let detail = detail.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    let mut response = json(StatusCode::OK, reply.get_ref(), detail);
    if let Some(failed) = reply.extensions().get::<Failed>() {
        response.extensions_mut().insert(*failed);
    }
    response
}

fn json(status: StatusCode, message: &impl Message, detail: Option<HeaderValue>) -> Response {
    let text = match proxima_json::write(message) {
        Ok(text) => text,
        Err(words) => {
            tracing::error!(words, "an answer cannot be written as JSON");
            return (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
        }
    };
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(detail) = detail {
        headers.insert(DETAIL_KEY, detail);
    }
    response
}

/// A known route that takes one other method.
async fn wrong_method<A: Answer>(body: Body, allowed: &'static str) -> Response {
    body::discard(body).await;
    let status = Status { code: -2010, reason: "Invalid Query: invalid http method".to_owned() };
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &A::refused(status), None);
    // The original spells it so; the standard's name is for everybody else.
    let headers = response.headers_mut();
    headers.insert("allowed", HeaderValue::from_static(allowed));
    headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The route of a collection, which takes three methods and words its refusal differently.
async fn wrong_method_of_many(body: Body) -> Response {
    body::discard(body).await;
    let status = Status { code: -2010, reason: ": invalid http method".to_owned() };
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &status, None);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_calls_and_names_stay_as_they_are() {
        for (path, route) in [
            ("/service_version", Some(Route::Version)),
            ("/v1/collections", Some(Route::Collections)),
            ("/v1/collection/a%20b", Some(Route::Collection("a%20b"))),
            ("/v1/collection/", Some(Route::Collection(""))),
            ("/v1/collection/a/stats", Some(Route::Stats("a"))),
            ("/v1/collection/a/index", Some(Route::Write("a"))),
            ("/v1/collection/stats/query", Some(Route::Query("stats"))),
            ("/v1/collection//doc", Some(Route::Document(""))),
            ("/v1/collection", None),
            ("/v1/collections/", None),
            ("/v1/collection/a/", None),
            ("/v1/collection/a/b", None),
            ("/v1/collection/a/stats/b", None),
            ("/version", None),
            ("/V1/collections", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn keys_are_read_as_c_reads_them() {
        for (text, key) in [
            ("7", 7),
            (" \t12ab", 12),
            ("", 0),
            ("abc", 0),
            ("+5", 5),
            ("-1", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("1.5", 1),
            ("\u{e9}", 0),
        ] {
            assert_eq!(leading_number(text), key, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_text_when_decoded_stays_as_it_is() {
        assert_eq!(decoded("a%20b%C3%A9"), "a b\u{e9}");
        assert_eq!(decoded("%FF"), "%FF");
        assert_eq!(decoded("100%"), "100%");
    }
}
