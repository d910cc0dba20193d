//! The web UI's options: of these only the model can be chosen here, by each client for itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use serde_json::{Value, json};

use super::desk::Desk;
use super::lists::title;
use crate::server::app::App;
use crate::server::http::error::ApiError;
use crate::server::http::fields::Fields;
use crate::server::http::guard::Client;

/// The option that names the model.
pub const MODEL: &str = "sd_model_checkpoint";

/// The options in effect.
pub async fn get(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
) -> Result<Json<Value>, ApiError> {
    let chosen = desk.model(&client);
    let (name, artifacts) = app.scheduler.model(chosen.as_deref())?;
    Ok(Json(json!({
        MODEL: title(name, artifacts),
        "sd_checkpoint_hash": artifacts.hash,
        "samples_format": "png",
        "enable_pnginfo": true,
    })))
}

/// Chooses the model; the other options are ignored.
pub async fn set(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
    Fields(fields): Fields,
) -> Result<Json<Value>, ApiError> {
    if let Some(model) = chosen(fields.get(MODEL))? {
        let (name, _) = app.scheduler.model(Some(&model))?;
        desk.choose(&client, name);
    }
    Ok(Json(Value::Null))
}

/// The model that is called so, by its name or its title; none where none is named.
///
/// # Errors
/// 400 when it is no text.
pub fn chosen(value: Option<&Value>) -> Result<Option<String>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let name = text.split_once(" [").map_or(text.as_str(), |(name, _)| name).trim();
            Ok((!name.is_empty()).then(|| name.to_string()))
        }
        Some(_) => Err(ApiError::field(MODEL, format!("{MODEL}: expected the name of a model"))),
    }
}
