//! What operators need: alive, ready, metrics, version.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::{ApiError, App};
use crate::server::metrics;

/// Its routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics_text))
        .routes(routes!(version))
}

/// A word that all is well.
#[derive(Serialize, ToSchema)]
struct Status {
    /// `ok` or `ready`.
    status: &'static str,
}

/// What is served.
#[derive(Serialize, ToSchema)]
struct Version {
    /// The program.
    name: &'static str,
    /// Its version.
    version: &'static str,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/health", tag = "operations", security(()),
    responses((status = 200, description = "It does.", body = Status)))]
async fn health() -> Json<Status> {
    Json(Status { status: "ok" })
}

/// Whether requests for pictures are taken.
#[utoipa::path(get, path = "/ready", tag = "operations", security(()),
    responses(
        (status = 200, description = "They are.", body = Status),
        (status = 503, description = "Starting, draining, or no engine alive; Retry-After says when to ask again.", body = ErrorBody),
    ))]
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Status>, ApiError> {
    match app.scheduler.ready() {
        Ok(()) => Ok(Json(Status { status: "ready" })),
        Err(why) => Err(ApiError {
            retry_after: Some(Duration::from_secs(1)),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why)
        }),
    }
}

/// All metrics, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")))]
async fn metrics_text(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = metrics::text(app.scheduler.waiting());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// What is served.
#[utoipa::path(get, path = "/version", tag = "operations",
    responses((status = 200, description = "The program and its version.", body = Version)))]
async fn version() -> Json<Version> {
    Json(Version { name: "hydit-serve", version: env!("CARGO_PKG_VERSION") })
}
