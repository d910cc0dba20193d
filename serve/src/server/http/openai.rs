//! OpenAI's images API, as its official clients speak it.
//!
//! Images come in the answer, base64 in JSON; with `stream` as server-sent events, images on the
//! way among them. Fields of our own stand beside OpenAI's, and `hydit` in the answer.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::drawing::{Drawing, EncodedImages, ImageSpec};
use super::error::ApiError;
use super::fields::{Fields, read};
use super::guard::Client;
use super::image::ImageFields;
use crate::server::app::App;
use crate::server::clock::now;
use crate::server::figures::Figures;
use crate::server::scheduler::TaskEvent;

/// Maximum number of images on the way.
const MAX_PARTIALS: usize = 3;
/// The quality in answers: it cannot be chosen.
const QUALITY: &str = "high";
/// The background in answers: images have no transparency.
const BACKGROUND: &str = "opaque";

/// The routes of images.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/images/generations", post(generate))
}

/// What OpenAI's clients may send. The fields from `response_format` on are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct GenerationFields {
    stream: Option<bool>,
    partial_images: Option<usize>,
    response_format: Option<String>,
    quality: Option<String>,
    background: Option<String>,
    moderation: Option<String>,
    style: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(flatten)]
    image: Map<String, Value>,
}

impl GenerationFields {
    fn check(&self, image: &ImageFields) -> Result<(), ApiError> {
        let (stream, partials) = (self.stream.unwrap_or(false), self.partial_images.unwrap_or(0));
        let refuse = |name: &str, what: &str| Err(ApiError::field(name, format!("{name}: {what}")));
        if partials > MAX_PARTIALS {
            return refuse("partial_images", "expected 0 to 3");
        }
        if partials > 0 && !stream {
            return refuse("partial_images", "they are sent only with stream: true");
        }
        let one = Value::from(1);
        if stream && image.request.get("n").is_some_and(|n| !n.is_null() && *n != one) {
            return refuse("n", "a stream has one image; send a request for each");
        }
        if self.response_format.as_deref().is_some_and(|format| format != "b64_json") {
            let what = "images are part of the answer, so only b64_json; those of a job, POST \
                        /v1/jobs, have URLs";
            return refuse("response_format", what);
        }
        let qualities = &["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"];
        for (name, value, words) in [
            ("quality", &self.quality, &qualities[..]),
            ("background", &self.background, &["auto", "opaque"]),
            ("moderation", &self.moderation, &["auto", "low"]),
            ("style", &self.style, &["vivid", "natural"]),
        ] {
            if value.as_deref().is_some_and(|value| !words.contains(&value)) {
                return refuse(name, &format!("expected one of {}", words.join(", ")));
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct ImagesResponse {
    created: u64,
    data: Vec<ImageData>,
    background: &'static str,
    output_format: String,
    quality: &'static str,
    size: String,
    usage: Usage,
    hydit: Figures,
}

#[derive(Serialize)]
struct ImageData {
    b64_json: String,
}

/// What was used, in the shape that clients expect. Prompts are not counted; an output token is a
/// patch of an image.
#[derive(Serialize)]
struct Usage {
    input_tokens: usize,
    input_tokens_details: InputTokens,
    output_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct InputTokens {
    image_tokens: usize,
    text_tokens: usize,
}

/// Draws images. A client that closes the connection cancels them.
async fn generate(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let fields: GenerationFields = read(fields.0)?;
    let image: ImageFields = read(fields.image.clone())?;
    fields.check(&image)?;
    let partials = fields.partial_images.unwrap_or(0);
    let drawing = Drawing::begin(&app, &client, image, partials).await?;
    if fields.stream.unwrap_or(false) {
        return Ok(events(drawing));
    }
    let spec = Arc::clone(&drawing.spec);
    let EncodedImages { files, figures } = drawing.images().await?;
    let data = files.iter().map(|bytes| ImageData { b64_json: BASE64_STANDARD.encode(bytes) });
    let answer = ImagesResponse {
        created: now() / 1000,
        data: data.collect(),
        background: BACKGROUND,
        output_format: spec.output.format.to_string(),
        quality: QUALITY,
        size: figures.size.clone(),
        usage: usage(&spec),
        hydit: figures,
    };
    Ok(Json(answer).into_response())
}

/// The images on the way, then the image, as server-sent events. Dropping the stream cancels it.
fn events(drawing: Drawing) -> Response {
    let next = async |drawing: Option<Drawing>| {
        let mut drawing = drawing?;
        let event = match next_event(&mut drawing).await {
            Ok((event, true)) => return Some((Ok::<_, axum::Error>(event), None)),
            Ok((event, false)) => event,
            Err(error) => {
                let event = Event::default().event("error").data(error.json());
                return Some((Ok(event), None));
            }
        };
        Some((Ok(event), Some(drawing)))
    };
    Sse::new(stream::unfold(Some(drawing), next)).keep_alive(KeepAlive::default()).into_response()
}

/// The next event for the client, and whether it is the last.
async fn next_event(drawing: &mut Drawing) -> Result<(Event, bool), ApiError> {
    loop {
        match drawing.next().await? {
            TaskEvent::Partial { index, image } => {
                let file = drawing.encode_partial(image).await?;
                let more = json!({ "partial_image_index": index });
                return Ok((event(drawing, "image_generation.partial_image", &file, more), false));
            }
            TaskEvent::Done(output) => {
                let EncodedImages { files, figures } = drawing.encode(*output).await?;
                let more = json!({ "usage": usage(&drawing.spec), "hydit": figures });
                return Ok((event(drawing, "image_generation.completed", &files[0], more), true));
            }
            _ => {}
        }
    }
}

/// An event of this type, with an image and the fields `more`.
fn event(drawing: &Drawing, kind: &str, file: &[u8], more: Value) -> Event {
    let ImageSpec { request, output, .. } = &*drawing.spec;
    let mut body = json!({
        "type": kind,
        "b64_json": BASE64_STANDARD.encode(file),
        "created_at": now() / 1000,
        "size": format!("{}x{}", request.width, request.height),
        "quality": QUALITY,
        "background": BACKGROUND,
        "output_format": output.format,
    });
    let fields = body.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    Event::default().event(kind).data(body.to_string())
}

fn usage(spec: &ImageSpec) -> Usage {
    let model = &spec.artifacts.manifest.model;
    let unit = model.vae.factor() * model.transformer.patch_size;
    let request = &spec.request;
    let patches = request.num_images * (request.height / unit) * (request.width / unit);
    Usage {
        input_tokens: 0,
        input_tokens_details: InputTokens { image_tokens: 0, text_tokens: 0 },
        output_tokens: patches,
        total_tokens: patches,
    }
}
