//! Server-sent events, each of which reaches its reader when it happens, whatever lies between.
//!
//! An event is written once, however many read it: a reader that reads nothing holds no copy.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

/// Time after which a quiet stream sends a comment, so that nobody takes its connection for dead.
const QUIET: Duration = Duration::from_secs(10);
/// A comment.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// An event as it is sent.
pub fn event(name: &str, id: Option<&str>, data: &impl Serialize) -> Bytes {
    let mut text = format!("event: {name}\n").into_bytes();
    if let Some(id) = id {
        text.extend(format!("id: {id}\n").bytes());
    }
    text.extend(b"data: "); // JSON is one line
    serde_json::to_writer(&mut text, data).expect("strings and numbers are valid JSON");
    text.extend(b"\n\n");
    text.shrink_to_fit();
    text.into()
}

/// The answer with these events.
pub fn sent_events(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Nothing may keep the answer; compression would hold events back.
        (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
        // nginx, and what learnt it from nginx, would buffer it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let events = stream::unfold(Box::pin(events), async |mut events| {
        let next = tokio::time::timeout(QUIET, events.next()).await;
        Some((Ok::<_, Infallible>(next.unwrap_or(Some(COMMENT))?), events))
    });
    (head, Body::from_stream(events)).into_response()
}
