//! Around every request: its id, its span, its log line, its metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info, info_span};
use uuid::Uuid;

use super::guard::is_open;
use crate::server::metrics;
use crate::server::settings::is_name;

/// Header of the request's name in log lines, in requests and answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Name in log and metrics of a path that no route has, and of an unusual method.
const OTHER: &str = "other";
/// Status in log and metrics of a request whose client went away before its answer.
const CLIENT_GONE: u16 = 499;

/// Names a request, and logs and counts how it ends.
pub async fn observe(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route: Arc<str> = path.as_ref().map_or(OTHER, MatchedPath::as_str).into();
    let span = info_span!(
        "request",
        id = %id,
        method = method(request.method()),
        route = &*route,
        client = Empty,
        order = Empty,
        prompt_chars = Empty,
        prompt = Empty,
    );
    let out = HeaderValue::from_str(&id).expect("an id is a plain word");
    let mut seen = Seen { span: span.clone(), route, started: Instant::now(), status: CLIENT_GONE };

    let mut response = next.run(request).instrument(span).await;
    seen.status = response.status().as_u16();
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, out);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    // A stream has ended when its body is dropped.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &seen;
            frame
        }))
    })
}

/// A request under way: when this is dropped, the request has ended.
struct Seen {
    span: Span,
    route: Arc<str>,
    started: Instant,
    status: u16,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        metrics::request(&self.route, self.status, duration);
        let (status, milliseconds) = (self.status, duration.as_micros() as f64 / 1e3);
        let _span = self.span.enter();
        if is_open(&self.route) && status == 200 {
            debug!(status, milliseconds, "answered"); // health checks come every second
        } else {
            info!(status, milliseconds, "answered");
        }
    }
}

/// The client's own name of the request if it is a plain word, else a new one. It names log lines
/// only: two requests may have the same.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match given.filter(|id| is_name(id)) {
        Some(id) => id.to_string(),
        None => Uuid::new_v4().simple().to_string(),
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}
