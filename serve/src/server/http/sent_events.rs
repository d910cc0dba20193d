//! Server-sent events, each of which reaches its reader when it happens, whatever lies between.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};

/// Time between two comments that keep a quiet connection open.
const QUIET: Duration = Duration::from_secs(10);

/// The answer with these events.
pub fn sent_events(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let head = [
        // Nothing may keep the answer; compression would hold events back.
        (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
        // nginx, and what learnt it from nginx, would buffer it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let events = Sse::new(events.map(Ok::<_, Infallible>));
    (head, events.keep_alive(KeepAlive::new().interval(QUIET))).into_response()
}
