//! Errors in OpenAI's shape. `oip` gives those of its paths the shape of its protocol.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::server::scheduler::{Failure, Refusal};
use crate::server::text::line;

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// What is wrong and what to do.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// A word for programs.
    pub code: &'static str,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// The body of every error.
#[derive(Serialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Serialize)]
struct ErrorObject {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl ApiError {
    /// An error without a field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        let message = line(&message.into());
        ApiError { status, message, param: None, code, retry_after: None }
    }

    /// An error in the field `param` of the request.
    pub fn field(param: &str, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        ApiError { param: Some(line(param)), ..error }
    }

    /// The body, also the data of an event.
    pub fn body(&self) -> impl Serialize + use<> {
        let r#type = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let (message, param) = (self.message.clone(), self.param.clone());
        ErrorBody { error: ErrorObject { message, r#type, param, code: self.code } }
    }
}

/// Gives an error of the paths that are `ours` the body of their API, whichever layer answers.
pub async fn reshape(
    request: Request,
    next: Next,
    ours: impl FnOnce(&str) -> bool,
    body: impl FnOnce(&ApiError) -> Value,
) -> Response {
    let ours = ours(request.uri().path());
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().filter(|_| ours) else {
        return response;
    };
    let body = Json(body(error)).into_response().into_body();
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, body)
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let (status, code, wait) = match &refusal {
            Refusal::UnknownModel { .. } => (StatusCode::NOT_FOUND, "model_not_found", None),
            Refusal::Full { retry_after, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "queue_full", Some(*retry_after))
            }
            Refusal::Share { retry_after, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "key_queue_full", Some(*retry_after))
            }
            Refusal::Unready { retry_after, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "not_ready", Some(*retry_after))
            }
        };
        let param = (code == "model_not_found").then(|| "model".to_string());
        ApiError { param, retry_after: wait, ..ApiError::new(status, code, refusal.to_string()) }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let (status, code, wait) = match &failure {
            Failure::Cancelled => (StatusCode::CONFLICT, "cancelled", None),
            Failure::Expired => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", None),
            Failure::Draining => {
                (StatusCode::SERVICE_UNAVAILABLE, "shutting_down", Some(Duration::from_secs(10)))
            }
            Failure::Worker(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "engine_failed", Some(Duration::from_secs(5)))
            }
            Failure::Draw(told) => (StatusCode::INTERNAL_SERVER_ERROR, told.code, None),
        };
        ApiError { retry_after: wait, ..ApiError::new(status, code, failure.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
