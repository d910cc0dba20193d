//! OpenAI's list of models.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use hydit::artifacts::Artifacts;
use hydit_graphs::manifest;
use serde::Serialize;

use super::error::ApiError;
use super::path::Path;
use crate::server::app::App;

/// The routes of models.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/models", get(list)).route("/v1/models/{model}", get(describe))
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    hydit: ModelDefaults,
}

#[derive(Serialize)]
struct ModelDefaults {
    default: bool,
    aliases: Vec<String>,
    loaded: bool,
    variant: String,
    precision: String,
    size: String,
    /// Those that it draws, or was trained for where any other multiple of 16 works too.
    sizes: Vec<String>,
    steps: usize,
    sampler: String,
    guidance: f32,
}

async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    let models = app.scheduler.models().iter();
    let data = models.map(|(name, artifacts)| model(&app, name, artifacts)).collect();
    Json(ModelList { object: "list", data })
}

async fn describe(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let (name, artifacts) = app.scheduler.model(Some(&name))?;
    Ok(Json(model(&app, name, artifacts)))
}

fn model(app: &App, name: &str, artifacts: &Artifacts) -> Model {
    let manifest = &artifacts.manifest;
    let defaults = &manifest.variant.defaults;
    let size = |[height, width]: [usize; 2]| format!("{width}x{height}");
    let first = app.settings.models.first();
    let aliases = app.settings.aliases.iter();
    Model {
        id: name.to_string(),
        object: "model",
        created: exported(artifacts),
        owned_by: "hydit",
        hydit: ModelDefaults {
            default: first.is_some_and(|(first, _)| first == name),
            aliases: aliases
                .filter(|(_, of)| *of == name)
                .map(|(alias, _)| alias.clone())
                .collect(),
            loaded: app.scheduler.is_loaded(name),
            variant: manifest.variant.name.clone(),
            precision: manifest.precision.to_string(),
            size: size(artifacts.usual_size()),
            sizes: artifacts.sizes().into_iter().map(size).collect(),
            steps: defaults.steps,
            sampler: defaults.sampler.clone(),
            guidance: defaults.guidance_scale,
        },
    }
}

/// When the model was exported, in seconds of Unix time.
fn exported(artifacts: &Artifacts) -> u64 {
    let manifest = std::fs::metadata(artifacts.path.join(manifest::FILE));
    let written = manifest.ok().and_then(|file| file.modified().ok());
    let since = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}
