//! Presets: the settings of an order under a name, kept for the client.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::drawing::ImageSpec;
use super::error::ApiError;
use super::fields::{Fields, read};
use super::guard::Client;
use super::image::{CLASS, ImageFields};
use super::path::Path;
use crate::server::app::App;
use crate::server::control::FIELD;
use crate::server::jobs::{MOST_PRESETS, Preset, Put};
use crate::server::text::is_plain;

/// Maximum number of characters of a name.
const MAX_NAME: usize = 64;
/// Maximum bytes of a preset: two prompts of the longest, and settings.
const MAX_BYTES: usize = 64 << 10;
/// Fields of an order that a preset cannot have.
const NOT_KEPT: [&str; 5] = ["image", "mask", "strength", "image_prompt", FIELD];

/// The routes of presets.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/presets", get(list))
        .route("/v1/presets/{name}", get(describe).put(put).delete(remove))
}

#[derive(Serialize)]
struct PresetList {
    object: &'static str,
    data: Vec<PresetView>,
    /// How many there may be.
    limit: usize,
}

#[derive(Serialize)]
struct PresetView {
    object: &'static str,
    name: String,
    settings: Value,
}

impl From<Preset> for PresetView {
    fn from(Preset { name, settings }: Preset) -> PresetView {
        // Of a damaged one the name is left, by which it can be removed.
        let settings = serde_json::from_slice(&settings).unwrap_or_else(|_| json!({}));
        PresetView { object: "preset", name, settings }
    }
}

async fn list(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
) -> Result<Json<PresetList>, ApiError> {
    let data = app.jobs.presets(client).await?.into_iter().map(PresetView::from).collect();
    Ok(Json(PresetList { object: "list", data, limit: MOST_PRESETS }))
}

async fn describe(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(name): Path<String>,
) -> Result<Json<PresetView>, ApiError> {
    let presets = app.jobs.presets(client).await?;
    let preset = presets.into_iter().find(|preset| preset.name == name);
    Ok(Json(preset.ok_or_else(|| unknown(&name))?.into()))
}

/// Keeps settings that the server would draw with now. With `If-None-Match: *` no other preset of
/// this name is replaced.
async fn put(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Fields(settings): Fields,
) -> Result<Response, ApiError> {
    check_name(&name)?;
    check(&app, &settings).await?;
    let settings: Map<String, Value> =
        settings.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let json = serde_json::to_vec(&settings).expect("it was JSON");
    if json.len() > MAX_BYTES {
        let message = format!("{} bytes of settings; at most {MAX_BYTES} are kept", json.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "preset_too_large", message));
    }
    let replaced = headers.get(header::IF_NONE_MATCH).is_none_or(|tags| tags != "*");
    let preset = Preset { name: name.clone(), settings: json };
    let status = match app.jobs.put_preset(client, preset, replaced).await? {
        Put::New => StatusCode::CREATED,
        Put::Replaced => StatusCode::OK,
        Put::Taken => {
            let message = format!("there is a preset {name:?} already");
            let status = StatusCode::PRECONDITION_FAILED;
            return Err(ApiError::new(status, "preset_exists", message));
        }
        Put::Full => {
            let message = format!("{MOST_PRESETS} presets are kept for a key; delete one first");
            return Err(ApiError::new(StatusCode::CONFLICT, "too_many_presets", message));
        }
    };
    let view = PresetView { object: "preset", name, settings: Value::Object(settings) };
    Ok((status, Json(view)).into_response())
}

async fn remove(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    match app.jobs.remove_preset(client, name.clone()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown(&name)),
    }
}

/// A name is one line that people can read and write in a path.
fn check_name(name: &str) -> Result<(), ApiError> {
    let short = (1..=MAX_NAME).contains(&name.chars().count());
    if short && name.chars().all(is_plain) && name.trim() == name && ![".", ".."].contains(&name) {
        return Ok(());
    }
    let message = format!(
        "name: expected 1 to {MAX_NAME} characters that can be seen, without spaces around them"
    );
    Err(ApiError::field("name", message))
}

/// Checks settings as those of an order, for which a prompt may still be missing.
async fn check(app: &Arc<App>, settings: &Map<String, Value>) -> Result<(), ApiError> {
    let given = |name: &&str| settings.get(*name).is_some_and(|value| !value.is_null());
    if let Some(name) = NOT_KEPT.into_iter().find(given) {
        let message = format!("{name}: images, and what belongs to them, are not part of a preset");
        return Err(ApiError::field(name, message));
    }
    let mut order = settings.clone();
    let prompt = order.get("prompt").filter(|prompt| **prompt != json!(""));
    if prompt.is_none_or(Value::is_null) && !given(&CLASS) {
        let model = order.get("model").and_then(Value::as_str).filter(|name| !name.is_empty());
        let (_, artifacts) = app.scheduler.model(model)?;
        order
            .insert("prompt".to_string(), json!(artifacts.manifest.model.prompt_or_class("a cat")));
    }
    let fields: ImageFields = read(order)?;
    ImageSpec::check(app, fields).await?;
    Ok(())
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(MAX_NAME).collect();
    let message = format!("there is no preset {name:?}");
    ApiError::new(StatusCode::NOT_FOUND, "preset_not_found", message)
}
