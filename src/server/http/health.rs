//! Whether the process lives, whether it is ready, and what it is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use super::Http;
use crate::error::Error;

pub(super) async fn healthz() -> &'static str {
    "ok"
}

pub(super) async fn about() -> Json<serde_json::Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }))
}

/// A collection that cannot be served is listed, but does not make the others unreachable.
pub(super) async fn readyz(State(http): State<Http>) -> (StatusCode, Json<serde_json::Value>) {
    readiness(http.phases.is_stopping(), &http.database.unserved())
}

fn readiness(
    is_stopping: bool,
    unserved: &[(String, String)],
) -> (StatusCode, Json<serde_json::Value>) {
    let unserved: Vec<serde_json::Value> = unserved
        .iter()
        .map(|(collection, reason)| json!({ "collection": collection, "reason": reason }))
        .collect();
    let (status, body) = if is_stopping {
        let reason = Error::Stopping.to_string();
        let body = json!({ "ready": false, "reason": reason, "unserved": unserved });
        (StatusCode::SERVICE_UNAVAILABLE, body)
    } else {
        (StatusCode::OK, json!({ "ready": true, "unserved": unserved }))
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

        let (status, Json(body)) = readiness(false, &unserved);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, json!({ "ready": true, "unserved": listed }));

        let (status, Json(body)) = readiness(true, &unserved);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            json!({ "ready": false, "reason": "the server is stopping", "unserved": listed })
        );
    }
}
