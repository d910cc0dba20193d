//! The list of LoRAs that requests may name.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use hydit::util::error_chain;
use serde::Serialize;

use super::error::ApiError;
use crate::server::app::App;

/// The route of LoRAs.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/loras", get(list))
}

#[derive(Serialize)]
struct LoraList {
    object: &'static str,
    data: Vec<Lora>,
}

#[derive(Serialize)]
struct Lora {
    id: String,
    object: &'static str,
}

/// Names of those that are in the folder now. All models have the same.
///
/// # Errors
/// When the folder cannot be read.
pub fn names(app: &App) -> Result<Vec<String>, ApiError> {
    let (_, artifacts) = app.scheduler.model(None)?;
    artifacts.loras.names().map_err(|error| {
        tracing::error!(error = error_chain(&error), "the folder of LoRAs cannot be read");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the folder of LoRAs cannot be read; the server's log says why",
        )
    })
}

async fn list(State(app): State<Arc<App>>) -> Result<Json<LoraList>, ApiError> {
    let names = names(&app)?;
    let data = names.into_iter().map(|id| Lora { id, object: "lora" }).collect();
    Ok(Json(LoraList { object: "list", data }))
}
