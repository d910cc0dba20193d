//! OpenAI's images API: what its official clients send and read.
//!
//! Pictures come in the answer, base64 in JSON; with `stream` as server-sent events, pictures on the
//! way among them. Fields of our own stand beside theirs, and `hydit` in the answer.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{Extension, State};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Json, response::sse};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use hydit_graphs::manifest;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::drawing::{Asked, Drawing, Figures, Pictures};
use super::error::ErrorBody;
use super::openapi::{Checked, Drawable, SentEvent};
use super::path::Path;
use super::{ApiError, App, Client, Fields, PictureFields};
use crate::server::jobs::now;
use crate::server::scheduler::TaskEvent;
use hydit::artifacts::Artifacts;

/// Most pictures on the way.
const MAX_PARTIALS: usize = 3;
/// What answers say of a quality that cannot be chosen.
const QUALITY: &str = "high";
/// And of the background.
const BACKGROUND: &str = "opaque";

/// Its routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(generate))
        .routes(routes!(list_models))
        .routes(routes!(get_model))
}

/// What a picture is asked for in OpenAI's API.
#[derive(Debug, ToSchema)]
pub struct GenerationRequest {
    #[serde(flatten)]
    picture: PictureFields,
    /// Sends the answer as server-sent events; for one picture.
    #[schema(default = false)]
    stream: Option<bool>,
    /// With `stream`: how many pictures to send on the way.
    #[schema(minimum = 0, maximum = 3, default = 0)]
    partial_images: Option<usize>,
    #[serde(flatten)]
    #[expect(dead_code, reason = "only its schema is used")]
    ignored: Ignored,
}

/// Fields that OpenAI's clients may send and that mean nothing here.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Ignored {
    /// Pictures are in the answer, so only `b64_json`.
    #[schema(pattern = "^b64_json$")]
    response_format: Option<String>,
    /// Taken and not used.
    #[schema(pattern = "^(auto|low|medium|high|xhigh|max|standard|hd)$")]
    quality: Option<String>,
    /// Pictures have no transparency.
    #[schema(pattern = "^(auto|opaque)$")]
    background: Option<String>,
    /// Taken and not used.
    #[schema(pattern = "^(auto|low)$")]
    moderation: Option<String>,
    /// Taken and not used.
    #[schema(pattern = "^(vivid|natural)$")]
    style: Option<String>,
    /// Taken and not used.
    user: Option<String>,
    /// Taken and not used.
    safety_identifier: Option<String>,
}

impl GenerationRequest {
    fn take(mut fields: Fields) -> Result<GenerationRequest, ApiError> {
        let request = GenerationRequest {
            picture: PictureFields::take(&mut fields)?,
            stream: fields.flag("stream")?,
            partial_images: fields.whole("partial_images")?,
            ignored: Ignored::take(&mut fields)?,
        };
        fields.finish()?;
        let (stream, partials) = (request.streams(), request.partials());
        let refuse = |name, message: &str| Err(ApiError::field(name, message));
        if partials > MAX_PARTIALS {
            return refuse("partial_images", "partial_images: expected 0 to 3");
        }
        if partials > 0 && !stream {
            return refuse(
                "partial_images",
                "partial_images: they are sent only with stream: true",
            );
        }
        if stream && request.picture.n.is_some_and(|n| n != 1) {
            return refuse(
                "n",
                "n: a stream has one picture; ask for each in a request of its own",
            );
        }
        Ok(request)
    }

    fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    fn partials(&self) -> usize {
        self.partial_images.unwrap_or(0)
    }
}

impl Ignored {
    fn take(fields: &mut Fields) -> Result<Ignored, ApiError> {
        let response_format = fields.text("response_format")?;
        if response_format.as_deref().is_some_and(|format| format != "b64_json") {
            let message = "response_format: pictures are in the answer, so only b64_json; those of a job, \
                           POST /v1/jobs, have addresses";
            return Err(ApiError::field("response_format", message));
        }
        let qualities = ["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"];
        Ok(Ignored {
            response_format,
            quality: fields.word("quality", &qualities)?,
            background: fields.word("background", &["auto", "opaque"])?,
            moderation: fields.word("moderation", &["auto", "low"])?,
            style: fields.word("style", &["vivid", "natural"])?,
            user: fields.text("user")?,
            safety_identifier: fields.text("safety_identifier")?,
        })
    }
}

/// The pictures.
#[derive(Serialize, ToSchema)]
struct ImagesResponse {
    /// When, in seconds since 1970.
    created: u64,
    /// Each picture.
    data: Vec<ImageData>,
    /// Always `opaque`.
    background: &'static str,
    /// `png`, `jpeg` or `webp`.
    output_format: String,
    /// Always `high`: there is nothing to choose.
    quality: &'static str,
    /// `WIDTHxHEIGHT` in pixels.
    size: String,
    usage: Usage,
    hydit: Figures,
}

/// A picture.
#[derive(Serialize, ToSchema)]
struct ImageData {
    /// Its file, in base64.
    b64_json: String,
}

/// What was used, in the shape that clients expect.
#[derive(Serialize, ToSchema)]
struct Usage {
    /// Always 0: prompts are not counted.
    input_tokens: usize,
    input_tokens_details: InputTokens,
    /// Patches that the transformer worked on, of all pictures.
    output_tokens: usize,
    /// The same.
    total_tokens: usize,
}

/// What the input is made of.
#[derive(Serialize, ToSchema)]
struct InputTokens {
    /// Always 0.
    image_tokens: usize,
    /// Always 0.
    text_tokens: usize,
}

/// The models.
#[derive(Serialize, ToSchema)]
struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// Each model.
    data: Vec<Model>,
}

/// A model.
#[derive(Serialize, ToSchema)]
struct Model {
    /// Its name.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// When it was exported, in seconds since 1970.
    created: u64,
    /// Always `hydit`.
    owned_by: &'static str,
    hydit: ModelDefaults,
}

/// What a model is, and what it does where a request says nothing.
#[derive(Serialize, ToSchema)]
struct ModelDefaults {
    /// Whether it is the model of requests that name none.
    default: bool,
    /// Whether it is in memory; else it is loaded for the next request that names it.
    loaded: bool,
    /// The kind of model.
    variant: String,
    /// The type its graphs compute in.
    precision: String,
    /// `WIDTHxHEIGHT` in pixels.
    size: String,
    /// Denoising steps.
    steps: usize,
    /// The sampler.
    sampler: String,
    /// Guidance scale.
    guidance: f32,
}

/// Draws pictures.
///
/// The answer comes when they are done. A client that closes the connection cancels them.
#[utoipa::path(post, path = "/v1/images/generations", tag = "pictures",
    request_body = GenerationRequest,
    responses(
        (status = 200, description = "The pictures; with `stream` events `image_generation.partial_image`, then \
            `image_generation.completed` or `error`.",
            content((ImagesResponse = "application/json"), (SentEvent = "text/event-stream"))),
        Checked, Drawable,
        (status = 404, description = "There is no such model.", body = ErrorBody),
    ))]
async fn generate(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let request = GenerationRequest::take(fields)?;
    let (streams, partials) = (request.streams(), request.partials());
    let drawing = Drawing::begin(&app, &client, request.picture, partials).await?;
    if streams {
        return Ok(events(drawing));
    }
    let asked = Arc::clone(&drawing.asked);
    let Pictures { encoded, figures } = drawing.pictures().await?;
    let data = encoded.iter().map(|bytes| ImageData { b64_json: BASE64_STANDARD.encode(bytes) });
    let answer = ImagesResponse {
        created: now() / 1000,
        data: data.collect(),
        background: BACKGROUND,
        output_format: asked.output.format.to_string(),
        quality: QUALITY,
        size: figures.size.clone(),
        usage: usage(&asked),
        hydit: figures,
    };
    Ok(Json(answer).into_response())
}

/// The models that can be named.
#[utoipa::path(get, path = "/v1/models", tag = "pictures",
    responses((status = 200, description = "The models.", body = ModelList)))]
async fn list_models(State(app): State<Arc<App>>) -> Json<ModelList> {
    let models = app.scheduler.models().iter();
    let data = models.map(|(name, artifacts)| model(&app, name, artifacts)).collect();
    Json(ModelList { object: "list", data })
}

/// One of them.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "pictures",
    params(("model" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The model.", body = Model),
        (status = 404, description = "There is no such model.", body = ErrorBody),
    ))]
async fn get_model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let (name, artifacts) = app.scheduler.model(Some(&name))?;
    Ok(Json(model(&app, name, artifacts)))
}

fn model(app: &App, name: &str, artifacts: &Artifacts) -> Model {
    let manifest = &artifacts.manifest;
    let defaults = &manifest.variant.defaults;
    let [height, width] = defaults.image_size;
    let first = app.settings.models.first();
    Model {
        id: name.to_string(),
        object: "model",
        created: exported(artifacts),
        owned_by: "hydit",
        hydit: ModelDefaults {
            default: first.is_some_and(|(first, _)| first == name),
            loaded: app.scheduler.is_loaded(name),
            variant: manifest.variant.name.clone(),
            precision: manifest.precision.to_string(),
            size: format!("{width}x{height}"),
            steps: defaults.steps,
            sampler: defaults.sampler.clone(),
            guidance: defaults.guidance_scale,
        },
    }
}

/// The pictures on the way, then the picture; dropping the stream cancels it.
fn events(drawing: Drawing) -> Response {
    let next = async |drawing: Option<Drawing>| {
        let mut drawing = drawing?;
        let event = match next_event(&mut drawing).await {
            Ok((event, true)) => return Some((Ok::<_, axum::Error>(event), None)),
            Ok((event, false)) => event,
            Err(error) => {
                let event = sse::Event::default().event("error").data(error.json());
                return Some((Ok(event), None));
            }
        };
        Some((Ok(event), Some(drawing)))
    };
    Sse::new(stream::unfold(Some(drawing), next)).keep_alive(KeepAlive::default()).into_response()
}

/// The next event that the client hears of, and whether it is the last.
async fn next_event(drawing: &mut Drawing) -> Result<(sse::Event, bool), ApiError> {
    loop {
        match drawing.next().await? {
            TaskEvent::Partial { index, image } => {
                let picture = drawing.partial(image).await?;
                let mut body = event(&drawing.asked, "image_generation.partial_image", &picture);
                body["partial_image_index"] = json!(index);
                return Ok((named(&body), false));
            }
            TaskEvent::Done(drawn) => {
                let Pictures { encoded, figures } = drawing.finish(*drawn).await?;
                let mut body = event(&drawing.asked, "image_generation.completed", &encoded[0]);
                body["usage"] = json!(usage(&drawing.asked));
                body["hydit"] = json!(figures);
                return Ok((named(&body), true));
            }
            _ => {}
        }
    }
}

fn event(asked: &Asked, kind: &str, picture: &[u8]) -> serde_json::Value {
    json!({
        "type": kind,
        "b64_json": BASE64_STANDARD.encode(picture),
        "created_at": now() / 1000,
        "size": format!("{}x{}", asked.request.width, asked.request.height),
        "quality": QUALITY,
        "background": BACKGROUND,
        "output_format": asked.output.format,
    })
}

/// An event under the name that its body has.
fn named(body: &serde_json::Value) -> sse::Event {
    let name = body["type"].as_str().expect("every event has a type");
    sse::Event::default().event(name).data(body.to_string())
}

fn usage(asked: &Asked) -> Usage {
    let model = &asked.artifacts.manifest.model;
    let unit = model.vae.factor() * model.transformer.patch_size;
    let request = &asked.request;
    let patches = request.num_images * (request.height / unit) * (request.width / unit);
    Usage {
        input_tokens: 0,
        input_tokens_details: InputTokens { image_tokens: 0, text_tokens: 0 },
        output_tokens: patches,
        total_tokens: patches,
    }
}

fn exported(artifacts: &Artifacts) -> u64 {
    let manifest = std::fs::metadata(artifacts.path.join(manifest::FILE));
    let written = manifest.ok().and_then(|file| file.modified().ok());
    let since = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}
