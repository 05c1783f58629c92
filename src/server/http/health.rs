//! Whether the process lives, whether it is ready, and what it is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use super::Http;
use crate::embedding::Provider;
use crate::error::Error;

pub(super) async fn healthz() -> &'static str {
    "ok"
}

pub(super) async fn about() -> Json<serde_json::Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }))
}

/// A collection that cannot be served is listed, but does not make the others unreachable.
pub(super) async fn readyz(State(http): State<Http>) -> (StatusCode, Json<serde_json::Value>) {
    let provider = http.database.embedding().report().provider;
    readiness(http.phases.is_stopping(), &http.database.unserved(), &provider)
}

fn readiness(
    is_stopping: bool,
    unserved: &[(String, String)],
    provider: &Result<Provider, String>,
) -> (StatusCode, Json<serde_json::Value>) {
    let unserved: Vec<serde_json::Value> = unserved
        .iter()
        .map(|(collection, reason)| json!({ "collection": collection, "reason": reason }))
        .collect();
    // What runs models, or why nothing does: vectors are served without.
    let embedding = match provider {
        Ok(provider) => json!({ "provider": provider.name() }),
        Err(problem) => json!({ "provider": null, "problem": problem }),
    };
    let (status, body) = if is_stopping {
        let reason = Error::Stopping.to_string();
        let body = json!({ "ready": false, "reason": reason, "unserved": unserved, "embedding": embedding });
        (StatusCode::SERVICE_UNAVAILABLE, body)
    } else {
        (StatusCode::OK, json!({ "ready": true, "unserved": unserved, "embedding": embedding }))
    };
    (status, Json(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_phase_and_lists_what_is_not_served() {
        let unserved = [("photos".to_owned(), "damaged at byte 7".to_owned())];
        let listed = json!([{ "collection": "photos", "reason": "damaged at byte 7" }]);

        let (status, Json(body)) = readiness(false, &unserved, &Ok(Provider::Cpu));
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            json!({ "ready": true, "unserved": listed, "embedding": { "provider": "CPUExecutionProvider" } })
        );

        let (status, Json(body)) = readiness(true, &unserved, &Err("no library".to_owned()));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            json!({
                "ready": false,
                "reason": "the server is stopping",
                "unserved": listed,
                "embedding": { "provider": null, "problem": "no library" },
            })
        );
    }
}
