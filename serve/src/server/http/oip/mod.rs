//! The Open Inference Protocol, version 2, over REST and gRPC: a model is one unit, prompt in and image out.
//!
//! As KServe and Triton speak it: `specification/protocol/inference_rest.md` of
//! kserve/open-inference-protocol, with Triton's binary tensor data extension. `tensors` knows what
//! the tensors mean, `wire` and `parameters` how requests are written, `answer` how answers are;
//! `grpc` is the same in messages.

mod answer;
pub mod grpc;
mod parameters;
mod tensors;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use self::answer::Body;
use self::tensors::{Declared, INPUTS, OUTPUTS, VERSION};
use self::wire::{InferRequest, JSON_LENGTH, Wanted};
use super::body::Place;
use super::drawing::{Carried, Drawing, ImageSpec};
use super::error::{ApiError, reshape};
use super::guard::Client;
use super::image::ImageFields;
use super::path::Path;
use crate::server::app::App;

/// The routes of the protocol.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(model))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
}

/// Gives errors of the protocol's paths the protocol's shape, whichever layer answers.
pub async fn shape_errors(request: Request, next: Next) -> Response {
    let ours = |path: &str| path == "/v2" || path.starts_with("/v2/");
    reshape(request, next, ours, |error| json!({ "error": error.message })).await
}

async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    let extensions = ["binary_tensor_data"];
    Json(json!({ "name": "hydit", "version": version, "extensions": extensions }))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    readiness(&app, |ready| json!({ "live": true, "ready": ready }))
}

/// Describes a model's tensors.
async fn model(Model(name): Model) -> Json<Value> {
    let describe = |tensor: &Declared| {
        let Declared { name, datatype, elements } = tensor;
        json!({ "name": name, "datatype": datatype, "shape": [elements] })
    };
    Json(json!({
        "name": name,
        "versions": [VERSION],
        "platform": "hydit",
        "inputs": INPUTS.iter().map(describe).collect::<Value>(),
        "outputs": OUTPUTS.iter().map(describe).collect::<Value>(),
    }))
}

async fn model_ready(State(app): State<Arc<App>>, Model(name): Model) -> Response {
    readiness(&app, |ready| json!({ "name": name, "ready": ready }))
}

/// Draws images. A client that closes the connection cancels them.
async fn infer(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Model(name): Model,
    place: Option<Extension<Place>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut request = InferRequest::read(&headers, &body)?;
    let place = place.map(|Extension(place)| place);
    let fields = tensors::fields(&name, std::mem::take(&mut request.inputs))?;
    let fields = ImageFields { place, ..fields };
    let carried = match request.image() {
        None => Carried::No,
        Some(Wanted { binary: false, .. }) => Carried::Base64,
        Some(Wanted { binary: true, .. }) => Carried::Bytes,
    };
    let drawing = Drawing::begin(&app, &client, fields, 0, carried).await?;
    let write = move |_: &ImageSpec, images| answer::body(&request, &name, &images);
    let Body { bytes, json } = drawing.answer(write).await?;
    let media_type = |name| [(header::CONTENT_TYPE, name)];
    Ok(match json {
        None => (media_type("application/json"), bytes).into_response(),
        Some(length) => {
            let length = [(JSON_LENGTH, length.to_string())];
            (media_type("application/octet-stream"), length, bytes).into_response()
        }
    })
}

/// The name of an existing model, from the path; the version in it, if any, is right.
struct Model(String);

impl FromRequestParts<Arc<App>> for Model {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Model, ApiError> {
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(parts, app).await?;
        let version = path.get("version").map_or(VERSION, String::as_str);
        model_of_version(app, path.get("model").map(String::as_str), version).map(Model)
    }
}

/// The name of an existing model that was asked for so; any version, where none is named.
fn model_of_version(app: &App, name: Option<&str>, version: &str) -> Result<String, ApiError> {
    let (name, _) = app.scheduler.model(name)?;
    if !["", VERSION].contains(&version) {
        let message = "models have no other version than 1";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message));
    }
    Ok(name.to_string())
}

fn readiness(app: &App, body: impl FnOnce(bool) -> Value) -> Response {
    match app.scheduler.ready() {
        Ok(()) => Json(body(true)).into_response(),
        Err(_) => {
            let soon = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, soon, Json(body(false))).into_response()
        }
    }
}
