//! What operators need: health checks, metrics, version.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::server::app::App;
use crate::server::metrics;

/// The routes for operators.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/version", get(version))
}

/// Tells that the process answers at all.
async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Tells whether requests for images and jobs are accepted.
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    match app.scheduler.ready().and_then(|()| app.jobs.ready()) {
        Ok(()) => Ok(Json(json!({ "status": "ready" }))),
        Err(why) => Err(ApiError {
            retry_after: Some(Duration::from_secs(1)),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why)
        }),
    }
}

async fn metrics_text(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = metrics::text(app.scheduler.waiting());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "hydit-serve", "version": env!("CARGO_PKG_VERSION") }))
}
