//! The OpenAPI document, made from the handlers.
//!
//! What the handlers say of themselves is completed by what no handler knows: the answers of the
//! layers around them, the bounds that the operator has set, and whether a key is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;
use serde_json::{Value, json};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{self, Content, Ref, RefOr};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::App;
use super::error::ErrorBody;
use super::oip::{self, OipErrorBody};
use super::schema;
use crate::server::settings::Settings;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "hydit",
        description = "Text to image with Hunyuan-DiT and Skip-Cache.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "pictures", description = "OpenAI's images API: the answer is the picture."),
        (name = "jobs", description = "Pictures that outlive the connection and the process."),
        (name = "inference", description = "The Open Inference Protocol, version 2."),
        (name = "operations", description = "What operators need."),
    ),
    components(schemas(ErrorBody, OipErrorBody)),
)]
struct Document;

/// A server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct SentEvent {
    /// What happened.
    event: String,
    /// JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
    /// From where to go on after a lost connection.
    id: Option<String>,
}

/// The answer to fields that cannot be what they are.
pub enum Checked {}

/// The answers to an order that brings no picture.
pub enum Drawable {}

/// Status, and what it means.
pub type Answers = [(u16, &'static str)];

/// Of [`Checked`].
pub const CHECKED: &Answers = &[(400, "A field cannot be what it is, or the body is not JSON.")];

/// Of [`Drawable`].
pub const DRAWABLE: &Answers = &[
    (429, "The queue is full, or this key's share of it. Retry-After says when to try again."),
    (500, "Drawing failed."),
    (503, "Starting, shutting down, or the engine failed. Retry-After says when to try again."),
    (504, "The deadline passed before the picture was done."),
];

/// What the layers around every handler may answer in its place.
const AROUND: &Answers = &[
    (400, "The body ended early."),
    (403, "A page of a foreign origin asks."),
    (408, "The body did not arrive in time."),
    (413, "The body is too large."),
    (415, "The body is not of the type, or has an encoding, that is read here."),
    (421, "The server is not called by this name."),
    (500, "A fault of the server; its log has the request's id."),
];

/// And where a key is needed.
const LOCKED: &Answers = &[(401, "The request has no key, or an unknown one.")];

impl IntoResponses for Checked {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(CHECKED, "ErrorBody")
    }
}

impl IntoResponses for Drawable {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(DRAWABLE, "ErrorBody")
    }
}

/// `answers` with a body of the named schema.
pub fn responses(answers: &Answers, schema: &str) -> BTreeMap<String, RefOr<Response>> {
    let response = |&(status, description): &(u16, &str)| {
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        let response =
            ResponseBuilder::new().description(description).content("application/json", content);
        (status.to_string(), RefOr::T(response.build()))
    };
    answers.iter().map(response).collect()
}

/// A router that writes the document as routes are added.
pub fn document() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// Serves the document.
pub fn serve(
    router: Router<Arc<App>>,
    api: openapi::OpenApi,
    settings: &Settings,
) -> Router<Arc<App>> {
    let document = complete(&api, settings).to_string();
    let document = Bytes::from(document);
    let json = [(header::CONTENT_TYPE, "application/json")];
    router.route("/openapi.json", get(move || async move { (json, document) }))
}

fn complete(api: &openapi::OpenApi, settings: &Settings) -> Value {
    let mut document = serde_json::to_value(api).expect("the document is JSON");
    schema::complete(&mut document["components"]["schemas"], settings);
    let keys = !settings.api_keys.is_empty();
    if keys {
        document["components"]["securitySchemes"] =
            json!({ "key": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "key": [] }]);
    }
    for (path, operation) in operations(&mut document) {
        let open = operation.get("security").is_some();
        let shape = if oip::is_of(path) { "OipErrorBody" } else { "ErrorBody" };
        let locked = if keys && !open { LOCKED } else { &[] };
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten().filter(|one| one["name"] == "model") {
            parameter["schema"]["enum"] = json!(schema::names(settings));
        }
        let answers = &mut operation["responses"];
        for (status, response) in responses(&[AROUND, locked].concat(), shape) {
            if answers.get(&status).is_none() {
                answers[status] = json!(response);
            }
        }
        for status in ["429", "503"] {
            if let Some(answer) = answers.get_mut(status) {
                answer["headers"]["Retry-After"] = json!({
                    "description": "Seconds.",
                    "schema": { "type": "integer", "minimum": 1 },
                });
            }
        }
    }
    document
}

/// Each with its path.
fn operations(document: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let paths = document["paths"].as_object_mut().expect("the document has paths");
    paths.iter_mut().flat_map(|(path, operations)| {
        let operations = operations.as_object_mut().expect("a path has operations").values_mut();
        let operations = operations.filter(|operation| operation.get("responses").is_some());
        operations.map(|operation| (path.as_str(), operation))
    })
}
