//! gRPC's framing of one message each way, and its statuses: `doc/PROTOCOL-HTTP2.md` of grpc/grpc.
//!
//! Everything else of a call is HTTP, and passes the same guards as any other request.

use std::fmt::Write;
use std::future::ready;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};

use crate::server::http::error::ApiError;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The message of a request.
pub struct Asked<T>(pub T);

/// The message of an answer.
pub struct Answer<T>(pub T);

impl<S: Send + Sync, T: prost::Message + Default> FromRequest<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Asked<T>, ApiError> {
        if !is_grpc(request.headers()) {
            let message = "expected the Content-Type application/grpc: this port speaks gRPC";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "content_type", message));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| bad(error.body_text()))?;
        decode(&bytes).map(Asked)
    }
}

fn decode<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, ApiError> {
    let Some(([compressed, length @ ..], message)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(bad("expected one message, and got none"));
    };
    if *compressed != 0 {
        let message = "messages are not unpacked here: send them without compression";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "compression", message));
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(bad("expected one message of the length before it"));
    }
    T::decode(message).map_err(|error| bad(format!("not the message of this method: {error}")))
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
}

impl<T: prost::Message> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let length = self.0.encoded_len();
        let mut bytes = Vec::with_capacity(PREFIX + length);
        bytes.push(0);
        bytes.extend(u32::try_from(length).expect("answers are bounded below 4 GiB").to_be_bytes());
        self.0.encode(&mut bytes).expect("a vector grows");
        let ok = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
        let body = Full::new(Bytes::from(bytes)).with_trailers(ready(Some(Ok(ok))));
        ([(header::CONTENT_TYPE, GRPC)], Body::new(body)).into_response()
    }
}

/// Makes errors of gRPC calls gRPC's, whichever layer answers.
pub async fn shape_errors(request: Request, next: Next) -> Response {
    let ours = is_grpc(request.headers());
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().filter(|_| ours) else {
        return response;
    };
    let (code, message) = (HeaderValue::from(code(error)), encoded(&error.message));
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::OK;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_TYPE, GRPC);
    head.headers.insert(STATUS, code);
    head.headers.insert(MESSAGE, message);
    Response::from_parts(head, Body::empty())
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(GRPC.as_bytes()))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+proto") || rest[0] == b';')
}

/// The number of gRPC's status for an error: `google/rpc/code.proto`.
fn code(error: &ApiError) -> u16 {
    match error.status {
        _ if error.code == "cancelled" => 1,
        StatusCode::BAD_REQUEST => 3,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::NOT_FOUND if error.code == "not_found" => 12, // no such method
        StatusCode::NOT_FOUND => 5,
        StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => 7,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => 12,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::UNAUTHORIZED => 16,
        _ => 13,
    }
}

/// A text as gRPC has it in a header: what is not printable ASCII, and %, as %XX.
fn encoded(text: &str) -> HeaderValue {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte.into()),
            _ => write!(out, "%{byte:02X}").expect("a string grows"),
        }
    }
    HeaderValue::from_str(&out).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{ModelRequest, ReadyResponse};

    fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &length.to_be_bytes(), message].concat()
    }

    #[test]
    fn one_message_of_its_length_is_read() {
        let message = b"\x0a\x05emoji";
        let read = decode::<ModelRequest>(&framed(0, 7, message)).expect("a message");
        assert_eq!((&read.name[..], &read.version[..]), ("emoji", ""));
        for (bytes, expected) in [
            (vec![], "expected one message, and got none"),
            (vec![0; 4], "expected one message, and got none"),
            (framed(0, 6, message), "of the length before it"),
            (framed(0, 8, message), "of the length before it"),
            (framed(0, u32::MAX, message), "of the length before it"),
            ([framed(0, 7, message), framed(0, 7, message)].concat(), "of the length before it"),
            (framed(1, 7, message), "without compression"),
            (framed(0, 7, b"\x0a\x06emoji"), "not the message of this method"),
        ] {
            let error = decode::<ModelRequest>(&bytes).expect_err(expected);
            assert!(error.message.contains(expected), "{} does not say {expected}", error.message);
        }
    }

    #[tokio::test]
    async fn an_answer_is_a_frame_and_a_status_behind_it() {
        let answer = Answer(ReadyResponse { ready: true }).into_response();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/grpc");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
        assert_eq!(*body.to_bytes(), *b"\0\0\0\0\x02\x08\x01");
    }

    #[test]
    fn messages_of_errors_are_plain_ascii() {
        assert_eq!(encoded("seed: 50% of 猫\n"), "seed: 50%25 of %E7%8C%AB%0A");
    }
}
