//! Requests whose end a proxy before the server may see elsewhere.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Refuses transfer codings other than `chunked`, and lets no request follow one with a coding on
/// its connection: a Content-Length beside it, which counts for nothing here, may have counted for
/// a proxy.
pub async fn check(request: Request, next: Next) -> Response {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return next.run(request).await };
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    let mut response = if chunked {
        next.run(request).await
    } else {
        let message = "Transfer-Encoding: expected chunked, and nothing else";
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "transfer_encoding", message).into_response()
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
