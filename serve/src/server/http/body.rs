//! Bodies of requests: read as a whole, within bytes and time, before any handler sees them.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::ApiError;

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum size in bytes.
    pub bytes: usize,
    /// Maximum time from the end of the header to the end of the body.
    pub time: Duration,
}

/// Reads the body before the handler sees the request, or answers why it was not read. For a path
/// that is nowhere it stays unread.
pub async fn read(
    State(bounds): State<Bounds>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    if path.is_none() {
        let unread = !request.body().is_end_stream();
        let response = next.run(request).await;
        return if unread { last(response) } else { response };
    }
    let (parts, body) = request.into_parts();
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "encoded bodies are not supported; omit Content-Encoding".to_string(),
        );
    }
    match whole(body, bounds).await {
        Ok(body) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => *refusal,
    }
}

async fn whole(body: Body, bounds: Bounds) -> Result<Body, Box<Response>> {
    let too_large = || {
        let message = format!("the body is larger than {} bytes", bounds.bytes);
        Box::new(refuse(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
    };
    if body.size_hint().lower() > bounds.bytes as u64 {
        return Err(too_large());
    }
    let read = Limited::new(body, bounds.bytes).collect();
    match tokio::time::timeout(bounds.time, read).await {
        Ok(Ok(body)) => Ok(Body::from(body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            "body_broken",
            "the body ended early or is not framed as HTTP says".to_string(),
        ))),
        Err(_) => Err(Box::new(refuse(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            format!("the body did not end within {} ms", bounds.time.as_millis()),
        ))),
    }
}

fn refuse(status: StatusCode, code: &'static str, message: String) -> Response {
    last(ApiError::new(status, code, message).into_response())
}

/// The rest of the body stays unread, so the connection ends with the answer.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
