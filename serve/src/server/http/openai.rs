//! OpenAI's images API, as its official clients speak it.
//!
//! Images come in the answer, base64 in JSON; with `stream` as server-sent events, images on the
//! way among them. Fields of our own stand beside OpenAI's, and `hydit` in the answer.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use hydit::image::Format;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::base64::Base64;
use super::body::Place;
use super::drawing::{Carried, Drawing, EncodedImages, ImageSpec};
use super::error::ApiError;
use super::fields::{Fields, read};
use super::form::Form;
use super::guard::Client;
use super::image::ImageFields;
use super::sent_events::{event, sent_events};
use crate::server::app::App;
use crate::server::clock::now;
use crate::server::figures::Figures;
use crate::server::init_image::Files;
use crate::server::scheduler::TaskEvent;

/// Maximum number of images on the way.
const MAX_PARTIALS: usize = 3;
/// The quality in answers: it cannot be chosen.
const QUALITY: &str = "high";
/// The background in answers: images have no transparency.
const BACKGROUND: &str = "opaque";

/// The routes of images.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/images/generations", post(generate))
        .route("/v1/images/edits", post(edit))
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
    input_fidelity: Option<String>,
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
            ("input_fidelity", &self.input_fidelity, &["high", "low"]),
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
struct ImagesResponse<'a> {
    created: u64,
    data: Vec<ImageData<'a>>,
    background: &'static str,
    output_format: Format,
    output_compression: u8,
    quality: &'static str,
    size: &'a str,
    usage: Usage,
    hydit: &'a Figures,
}

#[derive(Serialize)]
struct ImageData<'a> {
    b64_json: Base64<'a>,
}

#[derive(Serialize)]
struct ImageEvent<'a> {
    r#type: &'a str,
    b64_json: Base64<'a>,
    created_at: u64,
    size: String,
    quality: &'static str,
    background: &'static str,
    output_format: Format,
    #[serde(flatten)]
    more: &'a Value,
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

/// What the events of a stream are called.
#[derive(Clone, Copy)]
struct EventNames {
    partial: &'static str,
    completed: &'static str,
}

/// Draws images. A client that closes the connection cancels them.
async fn generate(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    place: Option<Extension<Place>>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let names = EventNames {
        partial: "image_generation.partial_image",
        completed: "image_generation.completed",
    };
    let place = place.map(|Extension(place)| place);
    draw(&app, &client, fields.0, Files::default(), place, names).await
}

/// As [`generate`], from the image of a form.
async fn edit(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Form { fields, files, place }: Form,
) -> Result<Response, ApiError> {
    let names =
        EventNames { partial: "image_edit.partial_image", completed: "image_edit.completed" };
    if files.image.is_none() && files.controls.is_empty() {
        return Err(ApiError::field("image", "image is missing: send the file to change"));
    }
    draw(&app, &client, fields, files, place, names).await
}

async fn draw(
    app: &Arc<App>,
    client: &Client,
    fields: Map<String, Value>,
    files: Files,
    place: Option<Place>,
    names: EventNames,
) -> Result<Response, ApiError> {
    let mut fields: GenerationFields = read(fields)?;
    // An image in base64 among them is not to be kept while the pictures are drawn.
    let image = ImageFields { files, place, ..read(std::mem::take(&mut fields.image))? };
    fields.check(&image)?;
    let partials = fields.partial_images.unwrap_or(0);
    let drawing = Drawing::begin(app, client, image, partials, Carried::Base64).await?;
    if fields.stream.unwrap_or(false) {
        return Ok(events(drawing, names));
    }
    let body = drawing.answer(answer).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The body of an answer.
fn answer(spec: &ImageSpec, images: EncodedImages) -> Vec<u8> {
    let EncodedImages { files, figures } = images;
    let answer = ImagesResponse {
        created: now() / 1000,
        data: files.iter().map(|file| ImageData { b64_json: Base64(file) }).collect(),
        background: BACKGROUND,
        output_format: spec.output.format,
        output_compression: spec.output.quality,
        quality: QUALITY,
        size: &figures.size,
        usage: usage(spec),
        hydit: &figures,
    };
    serde_json::to_vec(&answer).expect("strings and numbers are valid JSON")
}

/// The images on the way, then the image, as server-sent events. Dropping the stream cancels it.
fn events(drawing: Drawing, names: EventNames) -> Response {
    sent_events(stream::unfold(Some(drawing), move |drawing| async move {
        let mut drawing = drawing?;
        match next_event(&mut drawing, names).await {
            Ok((event, last)) => Some((event, (!last).then_some(drawing))),
            Err(error) => Some((event("error", None, &error.body()), None)),
        }
    }))
}

/// The next event for the client, and whether it is the last.
async fn next_event(drawing: &mut Drawing, names: EventNames) -> Result<(Bytes, bool), ApiError> {
    loop {
        match drawing.next().await? {
            TaskEvent::Partial { index, image } => {
                let write = move |spec: &ImageSpec, file: &[u8]| {
                    let more = json!({ "partial_image_index": index });
                    image_event(spec, names.partial, file, &more)
                };
                return Ok((drawing.encode_partial(image, write).await?, false));
            }
            TaskEvent::Done(output) => {
                let write = move |spec: &ImageSpec, EncodedImages { files, figures }| {
                    let more = json!({ "usage": usage(spec), "hydit": figures });
                    image_event(spec, names.completed, &files[0], &more)
                };
                return Ok((drawing.encode(*output, write).await?, true));
            }
            _ => {}
        }
    }
}

/// An event of this type, with an image and the fields `more`.
fn image_event(spec: &ImageSpec, kind: &str, file: &[u8], more: &Value) -> Bytes {
    let ImageSpec { request, output, .. } = spec;
    let body = ImageEvent {
        r#type: kind,
        b64_json: Base64(file),
        created_at: now() / 1000,
        size: format!("{}x{}", request.width, request.height),
        quality: QUALITY,
        background: BACKGROUND,
        output_format: output.format,
        more,
    };
    event(kind, None, &body)
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
