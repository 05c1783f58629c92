//! The JSON API under `/api/v1`: another form of our own contract, `voisin.v1`. A request becomes a
//! message of the contract, its service answers, and the answer becomes JSON; what calls mean is
//! decided there alone.

mod collections;
mod columns;
mod filter;
mod forms;
mod hits;
mod images;
mod keys;
mod object;
mod openapi;
mod query;
mod read;
mod refusal;
mod stats;
mod values;
mod vectors;
mod write;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{
    FromRequest, FromRequestParts, MatchedPath, OriginalUri, RawPathParams, Request, State,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::ser::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{Http, body, if_long};
use crate::error::Error;
use crate::server::metrics::Failed;

use keys::KeyForm;
pub(super) use keys::line_key;
pub(in crate::server) use openapi::operations;
pub(super) use refusal::{Refused, no_row};

/// Where all of it lies.
const ROOT: &str = "/api/v1";

/// What every call returns.
pub(super) type Outcome<T> = Result<T, Refused>;

/// The routes.
pub(super) fn routes(http: Http) -> Router<Http> {
    let routes = Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/collections", get(collections::list))
        .route(
            "/collections/{name}",
            put(collections::create)
                .get(collections::describe)
                .patch(collections::alter)
                .delete(collections::remove),
        )
        .route("/aliases", get(collections::aliases).post(collections::change_aliases))
        .route("/collections/{name}/stats", get(stats::stats))
        .route("/collections/{name}/wait-indexed", post(stats::wait_indexed))
        .route("/collections/{name}/query", post(query::query))
        .route("/collections/{name}/rows", post(write::write))
        .route("/collections/{name}/rows/{key}", get(read::get_one).delete(write::delete_one))
        .route("/collections/{name}/get", post(read::get_many))
        .route("/collections/{name}/scroll", post(read::scroll))
        .route("/collections/{name}/read", post(read::read))
        .route("/collections/{name}/count", post(read::count))
        .route("/collections/{name}/delete", post(write::delete_where))
        .route("/models", get(images::models))
        .route("/embed", post(images::embed))
        .route("/collections/{name}/images", post(images::write))
        .route("/collections/{name}/search-by-image", post(images::search))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(http, metered));
    // The folder itself is not among what is nested below it.
    Router::new().route(&format!("{ROOT}/"), any(nothing_here)).nest(ROOT, routes)
}

async fn nothing_here(OriginalUri(uri): OriginalUri, request: Request) -> Refused {
    let words = format!("there is nothing at {}", uri.path());
    body::discard(request.into_body()).await;
    Refused::new(StatusCode::NOT_FOUND, tonic::Code::Unimplemented, words)
}

async fn wrong_method(OriginalUri(uri): OriginalUri, request: Request) -> Refused {
    let words = format!("{} does not take {}", uri.path(), request.method());
    body::discard(request.into_body()).await;
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, tonic::Code::Unimplemented, words)
}

/// Counts the calls by the operations of the document.
async fn metered(
    State(http): State<Http>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let running = http.metrics.operation(request.method(), path);
    let response = next.run(request).await;
    let failed = response.extensions().get::<Failed>().map(ToString::to_string);
    match (failed, response.status()) {
        (Some(code), _) => running.end(Some(&code)),
        (None, status) if status.is_success() => running.end(None),
        (None, status) => running.end(Some(status.as_str())),
    }
    response
}

/// An answer in JSON.
struct Answer<T> {
    status: StatusCode,
    body: T,
    /// How large it is, roughly.
    bytes: usize,
}

impl<T> Answer<T> {
    /// A short one.
    fn short(body: T) -> Self {
        Answer { status: StatusCode::OK, body, bytes: 0 }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match if_long(self.bytes, || serde_json::to_vec(&self.body)) {
            Ok(text) => {
                let json = HeaderValue::from_static("application/json");
                (self.status, [(header::CONTENT_TYPE, json)], text).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Refused::from(Error::internal(error.to_string())).into_response()
            }
        }
    }
}

/// What a request's line says: path and query string.
pub(super) struct Line {
    params: Vec<(String, String)>,
    query: Vec<(String, String)>,
    /// Counts the call among those in progress.
    _in_progress: OwnedSemaphorePermit,
}

impl FromRequestParts<Http> for Line {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Outcome<Self> {
        let in_progress = http.begin().ok_or_else(|| Refused::from(Error::Stopping))?;
        let params = RawPathParams::from_request_parts(parts, http).await;
        let params = params.map_err(|error| Refused::invalid(error.body_text()))?;
        let params = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Line {
            params: params.collect(),
            query: query_string(parts.uri.query().unwrap_or_default())?,
            _in_progress: in_progress,
        })
    }
}

/// The pairs of a query string. `+` is a space, as forms have it.
fn query_string(text: &str) -> Outcome<Vec<(String, String)>> {
    let decoded = |part: &str| {
        let part = part.replace('+', " ");
        let text = percent_decode_str(&part).decode_utf8().map(|text| text.into_owned());
        text.map_err(|_| Refused::invalid(format!("the query string holds no text: {part:?}")))
    };
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decoded(name)?, decoded(value)?));
    }
    Ok(pairs)
}

impl Line {
    /// A part of the path; the routes name it.
    pub(super) fn param(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The collection.
    fn name(&self) -> &str {
        self.param("name")
    }

    /// Refuses what the query string holds beside these.
    pub(super) fn takes(&self, names: &[&str]) -> Outcome<()> {
        for (position, (name, _)) in self.query.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                let known = if names.is_empty() { "none" } else { &names.join(", ") };
                let words =
                    format!("unknown parameter {name:?} in the query string; known: {known}");
                return Err(Refused::invalid(words));
            }
            if self.query[..position].iter().any(|(before, _)| before == name) {
                return Err(Refused::invalid(format!("parameter {name:?} is given twice")));
            }
        }
        Ok(())
    }

    /// A parameter of the query string.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter that is a list with commas; without text it is an empty one.
    fn list(&self, name: &str) -> Option<Vec<String>> {
        let text = self.query(name)?;
        let parts = text.split(',').filter(|part| !part.is_empty());
        Some(parts.map(str::to_owned).collect())
    }

    /// How keys are to be written.
    fn keys(&self) -> Outcome<KeyForm> {
        match self.query("keys") {
            None | Some("number") => Ok(KeyForm::Number),
            Some("text") => Ok(KeyForm::Text),
            Some(other) => {
                Err(Refused::invalid(format!("keys is {other:?}; it must be number or text")))
            }
        }
    }
}

/// The line and the body of a request.
struct Call {
    line: Line,
    body: Vec<u8>,
}

impl FromRequest<Http> for Call {
    type Rejection = Refused;

    async fn from_request(request: Request, http: &Http) -> Outcome<Self> {
        let (mut parts, text) = request.into_parts();
        let checked = match Line::from_request_parts(&mut parts, http).await {
            Ok(line) if text.is_end_stream() => Ok(line),
            Ok(line) => check_type(&parts.headers).map(|()| line),
            Err(refused) => Err(refused),
        };
        let line = match checked {
            Ok(line) => line,
            Err(refused) => {
                body::discard(text).await;
                return Err(refused);
            }
        };
        let bytes_max = http.limits.message_bytes_max;
        let body = body::read(text, bytes_max, http.database.memory()).await?;
        Ok(Call { line, body })
    }
}

impl Call {
    /// The body as what it must be.
    fn read<'de, T: serde::Deserialize<'de>>(&'de self) -> Outcome<T> {
        let read = if_long(self.body.len(), || read_object(&self.body));
        read.map_err(|words| Refused::invalid(format!("the body cannot be read: {words}")))
    }

    /// The same, where the body may be left out.
    fn read_or_default<T: DeserializeOwned + Default>(&self) -> Outcome<T> {
        match self.body.trim_ascii().is_empty() {
            true => Ok(T::default()),
            false => self.read(),
        }
    }
}

/// Reads an object; refusals name what of it is wrong.
fn read_object<'de, T: serde::Deserialize<'de>>(text: &'de [u8]) -> Result<T, String> {
    // Forms with names would be read from lists, too.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let object = serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(object)
}

/// Insists on JSON being called so: no page of another site can then make a browser send it unasked.
fn check_type(headers: &HeaderMap) -> Outcome<()> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let words = format!("content-encoding {encoding:?} is not taken; send the body plain");
        return Err(Refused::of_type(words));
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Refused::of_type(format!(
            "content-type is {:?}; it must be application/json",
            given.unwrap_or_default()
        ))),
    }
}

/// What a call of the service answers.
fn message<T>(reply: Result<tonic::Response<T>, tonic::Status>) -> Outcome<T> {
    reply.map(tonic::Response::into_inner).map_err(Refused::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_are_decoded() {
        let pairs = query_string("a=b%20c&d=e+f&g&&h=%C3%A9=").expect("text");
        let expected = [("a", "b c"), ("d", "e f"), ("g", ""), ("h", "\u{e9}=")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
        assert!(query_string("a=%FF").is_err());
    }

    #[test]
    fn only_json_is_taken_and_must_say_that_it_is() {
        let check = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(name, HeaderValue::from_static(value));
            check_type(&headers).is_ok()
        };
        assert!(check("content-type", "application/json; charset=utf-8"));
        assert!(check("content-encoding", "identity"));
        assert!(!check("content-type", "text/plain"));
        assert!(!check("content-encoding", "gzip"));
        assert!(check_type(&HeaderMap::new()).is_err());
    }
}
