//! The document that describes the API, made from the code of its calls.

use std::sync::LazyLock;

use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{
    ContentBuilder, OpenApi as Document, PathItem, Ref, RefOr, Required, ResponseBuilder,
};
use utoipa::{Modify, OpenApi};

use super::refusal::Problem;
use super::{collections, images, keys, query, read, stats, write};

/// The paths and forms of all calls.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Voisin",
        description = "Vectors in, nearest neighbours out. The calls are those of the gRPC service `voisin.v1`, in JSON; bodies are of the type `application/json`, or `multipart/form-data` where they have pictures.",
    ),
    servers((url = "/")),
    tags(
        (name = "collections", description = "Collections and their other names."),
        (name = "rows", description = "Writing rows, reading them and finding the nearest."),
        (name = "pictures", description = "Models, and rows whose vectors they make of pictures."),
    ),
    paths(
        collections::list,
        collections::create,
        collections::describe,
        collections::alter,
        collections::remove,
        collections::aliases,
        collections::change_aliases,
        stats::stats,
        stats::wait_indexed,
        query::query,
        write::write,
        read::get_one,
        write::delete_one,
        read::get_many,
        read::scroll,
        read::read,
        read::count,
        write::delete_where,
        images::models,
        images::embed,
        images::write,
        images::search,
    ),
    components(schemas(Problem, keys::KeyForm, read::Row)),
    modifiers(&Refusals),
)]
struct Api;

/// Adds to every call how it may be refused, and which may come without a body: they ask for everything then.
struct Refusals;

/// HTTP status, when, and whether only calls with a body, or of something named, are refused so.
const REFUSALS: [(&str, &str, Only); 10] = [
    ("400", "The request can never succeed as it is.", Only::Any),
    ("403", "A form that a page of another site sent.", Only::WithForm),
    ("404", "There is no such collection, column or row.", Only::Named),
    ("405", "The path does not take this method.", Only::Any),
    (
        "409",
        "Something of that name exists already, or things are not in a state for the call.",
        Only::Named,
    ),
    ("413", "A configured limit is exceeded; a smaller request can succeed.", Only::Any),
    ("415", "The body is of another type.", Only::WithBody),
    ("429", "A queue is full, or there is no memory left to grow by; try again.", Only::Any),
    ("500", "The server failed.", Only::Any),
    ("503", "The server is stopping, or the collection is being altered; try again.", Only::Any),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Any,
    Named,
    WithBody,
    WithForm,
}

impl Modify for Refusals {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            let is_named = path.contains('{') || path.ends_with("/aliases");
            for (_, operation) in operations_of(item) {
                let is_optional =
                    ["/count", "/read", "/wait-indexed"].iter().any(|end| path.ends_with(end));
                if let Some(body) = &mut operation.request_body
                    && is_optional
                {
                    body.required = Some(Required::False);
                }
                for (status, description, only) in REFUSALS {
                    let is_meant = match only {
                        Only::Any => true,
                        Only::Named => is_named,
                        Only::WithBody => operation.request_body.is_some(),
                        Only::WithForm => has_form(operation),
                    };
                    if is_meant {
                        let content = ContentBuilder::new()
                            .schema(Some(Ref::from_schema_name("Problem")))
                            .build();
                        let response = ResponseBuilder::new()
                            .description(description)
                            .content("application/json", content)
                            .build();
                        let responses = &mut operation.responses.responses;
                        responses.insert(status.to_owned(), RefOr::T(response));
                    }
                }
            }
        }
    }
}

fn has_form(operation: &Operation) -> bool {
    let body = operation.request_body.as_ref();
    body.is_some_and(|body| body.content.contains_key("multipart/form-data"))
}

fn operations_of(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    let operations = operations.into_iter();
    operations.filter_map(|(method, slot)| Some((method, slot.as_mut()?))).collect()
}

/// Every call: its method, its path as routes write it, and its name.
pub(in crate::server) fn operations() -> Vec<(Method, String, String)> {
    let mut operations = Vec::new();
    for (path, mut item) in Api::openapi().paths.paths {
        for (method, operation) in operations_of(&mut item) {
            let name = operation.operation_id.clone().unwrap_or_default();
            operations.push((method, path.clone(), name));
        }
    }
    operations
}

/// The document, `/api/v1/openapi.json`.
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| Api::openapi().to_json().unwrap_or_else(|error| error.to_string()));
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], TEXT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_described_with_its_name_and_its_refusals() {
        let document = serde_json::to_value(Api::openapi()).expect("JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let calls = operations();
        let mut names: Vec<&String> = calls.iter().map(|(.., name)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(
            (names.len(), names.iter().filter(|name| name.is_empty()).count()),
            (calls.len(), 0)
        );
        for (method, path, name) in &calls {
            let call = &document["paths"][path][method.as_str().to_lowercase()];
            assert!(call["summary"].is_string(), "{name} has no summary");
            assert!(call["responses"]["500"].is_object(), "{name} cannot fail");
            assert!(path.starts_with(super::super::ROOT), "{path}");
        }
    }
}
