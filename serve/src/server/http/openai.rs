//! OpenAI's images API, as its official clients speak it.
//!
//! Images come in the answer, base64 in JSON; or as addresses, or as a file; with `stream` as
//! server-sent events, images on the way among them. Fields of our own stand beside OpenAI's, and
//! `hydit` in the answer.

mod answer;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::post;
use futures_util::stream;
use hydit::image::Format;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::answer::{BACKGROUND, QUALITY, ResponseFormat, answer, usage};
use super::base64::Base64;
use super::body::Place;
use super::drawing::{Carried, Drawing, EncodedImages, ImageSpec};
use super::error::ApiError;
use super::fields::{Fields, read};
use super::form::Form;
use super::guard::Client;
use super::image::ImageFields;
use super::lent::Base;
use super::sent_events::{event, sent_events};
use crate::server::app::App;
use crate::server::clock::now;
use crate::server::init_image::Files;
use crate::server::scheduler::TaskEvent;

/// Maximum number of images on the way.
const MAX_PARTIALS: usize = 3;

/// The routes of images.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/images/generations", post(generate))
        .route("/v1/images/edits", post(edit))
}

/// What OpenAI's clients may send. The fields from `quality` on are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct GenerationFields {
    stream: Option<bool>,
    partial_images: Option<usize>,
    response_format: Option<ResponseFormat>,
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
        let several = image.request.get("n").is_some_and(|n| !n.is_null() && *n != one);
        if stream && several {
            return refuse("n", "a stream has one image; send a request for each");
        }
        let format = self.response_format.unwrap_or_default();
        if stream && format != ResponseFormat::B64Json {
            return refuse("response_format", "a stream has its images in it: only b64_json");
        }
        if several && format == ResponseFormat::File {
            return refuse("n", "a file is one image; ask for the others by url or b64_json");
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
    base: Base,
    fields: Fields,
) -> Result<Response, ApiError> {
    let names = EventNames {
        partial: "image_generation.partial_image",
        completed: "image_generation.completed",
    };
    let place = place.map(|Extension(place)| place);
    draw(&app, &client, fields.0, Files::default(), place, base, names).await
}

/// As [`generate`], from the image of a form.
async fn edit(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    base: Base,
    Form { fields, files, place }: Form,
) -> Result<Response, ApiError> {
    let names =
        EventNames { partial: "image_edit.partial_image", completed: "image_edit.completed" };
    if files.image.is_none() && files.controls.is_empty() {
        return Err(ApiError::field("image", "image is missing: send the file to change"));
    }
    draw(&app, &client, fields, files, place, base, names).await
}

async fn draw(
    app: &Arc<App>,
    client: &Client,
    fields: Map<String, Value>,
    files: Files,
    place: Option<Place>,
    base: Base,
    names: EventNames,
) -> Result<Response, ApiError> {
    let mut fields: GenerationFields = read(fields)?;
    // An image in base64 among them is not to be kept while the pictures are drawn.
    let image = ImageFields { files, place, ..read(std::mem::take(&mut fields.image))? };
    fields.check(&image)?;
    let partials = fields.partial_images.unwrap_or(0);
    let format = fields.response_format.unwrap_or_default();
    let carried = match format {
        ResponseFormat::B64Json => Carried::Base64,
        ResponseFormat::Url | ResponseFormat::File => Carried::Bytes,
    };
    let drawing = Drawing::begin(app, client, image, partials, carried).await?;
    if fields.stream.unwrap_or(false) {
        return Ok(events(drawing, names));
    }
    let jobs = Arc::clone(&app.jobs);
    drawing.answer(move |spec, images| answer(spec, images, format, &jobs, &base)).await?
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
