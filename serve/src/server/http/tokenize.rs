//! How much of a prompt is read, before anything is drawn.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use hydit::artifacts::Artifacts;
use hydit::error::Error;
use hydit::pipeline::text::tokenizers;
use hydit::request::MAX_PROMPT;
use hydit::util::error_chain;
use hydit_input::tokenizer::PaddedTokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::error::ApiError;
use super::fields::{Fields, read, unknown};
use crate::server::app::App;
use crate::server::spawn::blocking;

/// Names of the text encoders, as diffusers has them.
const ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// The route of `POST /v1/tokenize`.
pub fn routes() -> Router<Arc<App>> {
    let last = Arc::new(Mutex::new(None::<Last>));
    Router::new().route("/v1/tokenize", post(tokenize)).layer(Extension(last))
}

/// The tokenizers of the model that was asked for last, which whoever draws with it has too. Held
/// while a prompt is read: one at a time.
struct Last {
    model: String,
    tokenizers: [Arc<PaddedTokenizer>; 2],
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<String>,
    prompt: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize)]
struct Tokenization {
    object: &'static str,
    model: String,
    characters: usize,
    encoders: Vec<Encoder>,
}

/// What a text encoder reads.
#[derive(Serialize)]
struct Encoder {
    name: &'static str,
    max_tokens: usize,
    characters: usize,
    truncated: bool,
}

async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(last): Extension<Arc<Mutex<Option<Last>>>>,
    Fields(fields): Fields,
) -> Result<Json<Tokenization>, ApiError> {
    let Asked { model, prompt, rest } = read(fields)?;
    if let Some(name) = rest.keys().next() {
        return Err(unknown(name));
    }
    let refuse = |what: String| ApiError::field("prompt", format!("prompt: {what}"));
    let prompt = prompt.ok_or_else(|| refuse("expected the text to read".to_string()))?;
    let characters = prompt.chars().count();
    if characters > MAX_PROMPT {
        return Err(refuse(format!("{characters} characters; at most {MAX_PROMPT}")));
    }
    let model = model.filter(|name| !name.is_empty());
    let (model, artifacts) = app.scheduler.model(model.as_deref())?;
    if artifacts.manifest.model.draws_classes() {
        let message = format!("model: {model} draws classes, and reads no texts");
        return Err(ApiError::field("model", message));
    }
    let (model, artifacts) = (model.to_string(), Arc::clone(artifacts));
    let mut last = last.lock_owned().await;
    let encoders = blocking(move || {
        let known = last.take().filter(|last| last.model == model);
        let known = known.map_or_else(|| Last::of(&model, &artifacts), Ok)?;
        let encoders = known.read(&prompt)?;
        *last = Some(known);
        Ok::<_, Error>((model, encoders))
    });
    let (model, encoders) = encoders.await.map_err(|error| {
        tracing::error!(error = error_chain(&error), "a prompt cannot be tokenized");
        let message = "the prompt cannot be tokenized; the server's log says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    })?;
    Ok(Json(Tokenization { object: "tokenization", model, characters, encoders }))
}

impl Last {
    fn of(model: &str, artifacts: &Artifacts) -> Result<Last, Error> {
        artifacts.check_tokenizers()?;
        Ok(Last { model: model.to_string(), tokenizers: tokenizers(artifacts)? })
    }

    fn read(&self, prompt: &str) -> Result<Vec<Encoder>, Error> {
        let both = ENCODERS.into_iter().zip(&self.tokenizers);
        both.map(|(name, tokenizer)| {
            let reading = tokenizer.reading(prompt).map_err(Error::Tokenizer)?;
            Ok(Encoder {
                name,
                max_tokens: tokenizer.length(),
                characters: reading.characters,
                truncated: reading.truncated,
            })
        })
        .collect()
    }
}
