//! The Open Inference Protocol, version 2, over REST: a model is one unit, prompt in and picture out.
//!
//! As KServe and Triton speak it: `specification/protocol/inference_rest.md` of
//! kserve/open-inference-protocol, with Triton's binary tensor data extension. [`tensors`] knows what
//! the tensors mean, [`wire`] how they are written.

pub mod schema;
mod tensors;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::response;
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::tensors::{Datatype, Declared, INPUTS, OUTPUTS};
use self::wire::{InferRequest, InferResponse, JSON_LENGTH};
use super::drawing::Drawing;
use super::openapi::{Answers, CHECKED, DRAWABLE, responses};
use super::path::Path;
use super::{ApiError, App, Client};

/// The version of every model: folders have none.
const VERSION: &str = "1";

/// Its routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(server))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(model))
        .routes(routes!(model_version))
        .routes(routes!(model_ready))
        .routes(routes!(model_version_ready))
        .routes(routes!(infer))
        .routes(routes!(infer_version))
}

/// An error.
#[derive(Serialize, ToSchema)]
pub struct OipErrorBody {
    /// What is wrong and what to do.
    error: String,
}

/// Whether a path is of the protocol.
pub fn is_of(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Gives errors of the protocol's paths the protocol's shape, whoever answers.
pub async fn shape_errors(request: Request, next: Next) -> Response {
    let ours = is_of(request.uri().path());
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().filter(|_| ours) else {
        return response;
    };
    let body = Json(OipErrorBody { error: error.message.clone() }).into_response().into_body();
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, body)
}

/// The answers to inference that brings no picture.
enum Failed {}

impl IntoResponses for Failed {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        let mut all = responses(CHECKED, "OipErrorBody");
        all.extend(responses(DRAWABLE, "OipErrorBody"));
        all.extend(responses(UNKNOWN, "OipErrorBody"));
        all
    }
}

/// The answer for what is not there.
enum Unknown {}

const UNKNOWN: &Answers = &[(404, "There is no such model, or no such version.")];

impl IntoResponses for Unknown {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses(UNKNOWN, "OipErrorBody")
    }
}

/// The server.
#[derive(Serialize, ToSchema)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// Whether the server is up.
#[derive(Serialize, ToSchema)]
struct Health {
    live: bool,
    /// Whether inference is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
}

/// Whether inference with a model is taken.
#[derive(Serialize, ToSchema)]
struct ModelHealth {
    name: String,
    ready: bool,
}

/// A model.
#[derive(Serialize, ToSchema)]
struct ModelMetadata {
    name: String,
    versions: [&'static str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// A tensor.
#[derive(Serialize, ToSchema)]
struct TensorMetadata {
    name: &'static str,
    datatype: Datatype,
    /// -1: as many as pictures.
    shape: [i64; 1],
}

impl From<Declared> for TensorMetadata {
    fn from(declared: Declared) -> TensorMetadata {
        let Declared { name, datatype, elements } = declared;
        TensorMetadata { name, datatype, shape: [elements] }
    }
}

/// What the server is.
#[utoipa::path(get, path = "/v2", tag = "inference",
    responses((status = 200, description = "The server.", body = ServerMetadata)))]
async fn server() -> Json<ServerMetadata> {
    let version = env!("CARGO_PKG_VERSION");
    Json(ServerMetadata { name: "hydit", version, extensions: ["binary_tensor_data"] })
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/v2/health/live", tag = "inference", security(()),
    responses((status = 200, description = "It does.", body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { live: true, ready: None })
}

/// Whether inference is taken.
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference", security(()),
    responses(
        (status = 200, description = "It is.", body = Health),
        (status = 503, description = "Starting, draining, or no engine alive.", body = Health),
    ))]
async fn ready(State(app): State<Arc<App>>) -> Response {
    readiness(&app, |ready| Health { live: true, ready: Some(ready) })
}

/// A model's tensors.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "inference",
    params(("model" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The model.", body = ModelMetadata), Unknown))]
async fn model(Model(name): Model) -> Json<ModelMetadata> {
    let (inputs, outputs) = (INPUTS.map(Into::into).into(), OUTPUTS.map(Into::into).into());
    Json(ModelMetadata { name, versions: [VERSION], platform: "hydit", inputs, outputs })
}

/// A model's tensors.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "inference",
    params(
        ("model" = String, Path, description = "Its name."),
        ("version" = String, Path, description = "Only `1`.", pattern = "^1$"),
    ),
    responses((status = 200, description = "The model.", body = ModelMetadata), Unknown))]
async fn model_version(name: Model) -> Json<ModelMetadata> {
    model(name).await
}

/// Whether inference with a model is taken.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "inference",
    params(("model" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "It is.", body = ModelHealth),
        (status = 503, description = "Starting, draining, or no engine alive.", body = ModelHealth),
        Unknown,
    ))]
async fn model_ready(State(app): State<Arc<App>>, Model(name): Model) -> Response {
    readiness(&app, |ready| ModelHealth { name, ready })
}

/// Whether inference with a model is taken.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "inference",
    params(
        ("model" = String, Path, description = "Its name."),
        ("version" = String, Path, description = "Only `1`.", pattern = "^1$"),
    ),
    responses(
        (status = 200, description = "It is.", body = ModelHealth),
        (status = 503, description = "Starting, draining, or no engine alive.", body = ModelHealth),
        Unknown,
    ))]
async fn model_version_ready(app: State<Arc<App>>, name: Model) -> Response {
    model_ready(app, name).await
}

/// Draws pictures.
///
/// With the header `Inference-Header-Content-Length` that many bytes of the body are JSON, and the
/// data of inputs follows. The answer comes when the pictures are done; a client that closes the
/// connection cancels them.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "inference",
    params(("model" = String, Path, description = "Its name.")),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The pictures, in base64 or, if they were asked for so, as bytes after the JSON.",
            content((InferResponse = "application/json"), (String = "application/octet-stream"))),
        Failed,
    ))]
async fn infer(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Model(name): Model,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (request, inputs) = InferRequest::read(&headers, &body)?;
    let fields = tensors::fields(&name, &inputs)?;
    let pictures = Drawing::begin(&app, &client, fields, 0).await?.pictures().await?;
    let (answer, bytes) = request.answer(&name, &tensors::outputs(pictures));
    let Some(bytes) = bytes else { return Ok(Json(answer).into_response()) };
    let mut body = serde_json::to_vec(&answer).expect("strings and numbers are valid JSON");
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (JSON_LENGTH, body.len().to_string()),
    ];
    body.extend(bytes);
    Ok((head, body).into_response())
}

/// Draws pictures.
///
/// As without a version.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "inference",
    params(
        ("model" = String, Path, description = "Its name."),
        ("version" = String, Path, description = "Only `1`.", pattern = "^1$"),
    ),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The pictures, in base64 or, if they were asked for so, as bytes after the JSON.",
            content((InferResponse = "application/json"), (String = "application/octet-stream"))),
        Failed,
    ))]
async fn infer_version(
    app: State<Arc<App>>,
    client: Extension<Client>,
    name: Model,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    infer(app, client, name, headers, body).await
}

/// The name of a model that there is, from the path; the version in it, if any, is right.
struct Model(String);

impl FromRequestParts<Arc<App>> for Model {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Model, ApiError> {
        let unknown = |what: &str| ApiError::new(StatusCode::NOT_FOUND, "model_not_found", what);
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(parts, app).await?;
        let (name, _) = app.scheduler.model(path.get("model").map(String::as_str))?;
        match path.get("version").is_none_or(|version| version == VERSION) {
            true => Ok(Model(name.to_string())),
            false => Err(unknown("models have no other version than 1")),
        }
    }
}

fn readiness<T: Serialize>(app: &App, body: impl FnOnce(bool) -> T) -> Response {
    match app.scheduler.ready() {
        Ok(()) => Json(body(true)).into_response(),
        Err(_) => {
            let soon = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, soon, Json(body(false))).into_response()
        }
    }
}
