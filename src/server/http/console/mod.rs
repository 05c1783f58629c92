//! The web page: its files, which lie in the binary, and the pictures of rows. All else it asks of the API
//! as any program does.

mod page;
mod pictures;
mod root;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::{Http, health};
pub(super) use pictures::Console;
pub(in crate::server) use root::check_root;

/// Where the page lies, as seen from `/`. Relative, so that it is found behind a proxy that adds a prefix.
const PLACE: HeaderValue = HeaderValue::from_static("console/");

/// The routes; without the page what programs find at `/`, alone.
pub(super) fn routes(enabled: bool) -> Router<Http> {
    match enabled {
        false => Router::new().route("/", get(health::about)),
        true => Router::new()
            .route("/", get(front))
            .route("/console", get(|| async { to_page() }))
            .route("/console/", get(page::index))
            .route("/console/about.json", get(about))
            .route("/console/{file}", get(page::file))
            .route("/pictures/{collection}/{key}", get(pictures::picture)),
    }
}

/// Shows people the page, and tells programs what they ask for.
async fn front(headers: HeaderMap) -> Response {
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    match wants_page(&headers) {
        true => (vary, to_page()).into_response(),
        false => (vary, health::about().await).into_response(),
    }
}

/// Browsers name HTML when they open a place; programs do not.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(header::ACCEPT).into_iter().filter_map(|line| line.to_str().ok());
    accepted.flat_map(|line| line.split(',')).any(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/html")
    })
}

fn to_page() -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, PLACE)]).into_response()
}

/// What the page must know of this server beside what the API tells.
async fn about(State(http): State<Http>) -> Response {
    let answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "picture_root": http.console.has_root(),
        "picture_bytes_max": http.limits.picture_bytes_max,
    });
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response()
}

/// Whether the caller has the very thing of this tag already.
fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    let named = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    named.is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_from_programs_by_what_they_accept() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_page(&headers)
        };
        assert!(wants("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(wants("application/xml, Text/HTML;q=0.9"));
        assert!(!wants("*/*"));
        assert!(!wants("application/json, text/plain"));
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_is_found_among_several() {
        let mut headers = HeaderMap::new();
        assert!(!has_already(&headers, "\"a\""));
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\", \"a\""));
        assert!(has_already(&headers, "\"a\""));
        assert!(!has_already(&headers, "\"c\""));
    }
}
