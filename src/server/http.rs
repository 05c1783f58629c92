//! The HTTP listener: whether the process lives, whether it is ready, and what it is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::Phases;
use crate::database::Database;
use crate::error::{Error, Result};

/// What the routes answer from.
#[derive(Clone)]
struct Health {
    database: Arc<Database>,
    phases: Phases,
}

/// Serves until the gRPC side has drained, so that a stopping server still says it is not ready.
pub(super) async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    phases: Phases,
) -> Result<()> {
    let drained = phases.clone().drained();
    let routes = Router::new()
        .route("/", get(about))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .with_state(Health { database, phases });
    axum::serve(listener, routes)
        .with_graceful_shutdown(drained)
        .await
        .map_err(|error| Error::internal(format!("the HTTP server ended: {error}")))
}

async fn about() -> Json<serde_json::Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }))
}

/// A collection that cannot be served is listed, but does not make the others unreachable.
async fn readyz(State(health): State<Health>) -> (StatusCode, Json<serde_json::Value>) {
    readiness(health.phases.is_stopping(), &health.database.unserved())
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
