//! Bodies that were answered before they were read.
//!
//! A connection that is closed with bytes unread is reset, and a client that still writes loses the
//! answer with it. So what is left of such a body is read and thrown away first, within bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// Maximum bytes that are thrown away: more than the largest pictures that clients send.
const MOST: usize = 64 << 20;

/// A body that comes back when it is dropped before its end.
struct Lent {
    body: Option<Body>,
    back: Arc<Mutex<Option<Body>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock() = self.body.take().filter(|body| !body.is_end_stream());
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// Reads what is left of a request's body before its answer is sent, for this time at most.
pub async fn rest(State(time): State<Duration>, request: Request, next: Next) -> Response {
    // Who expects to be asked for the body sends none unless it is read.
    if request.headers().contains_key(header::EXPECT) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let back = Arc::default();
    let lent = |body| Body::new(Lent { body: Some(body), back: Arc::clone(&back) });
    let response = next.run(request.map(lent)).await;
    let left = back.lock().take().filter(|body| body.size_hint().lower() <= MOST as u64);
    // Of one that took too long, or whose end is in doubt, no more is wanted.
    let status = response.status();
    if let Some(left) = left
        && ![StatusCode::REQUEST_TIMEOUT, StatusCode::NOT_IMPLEMENTED].contains(&status)
    {
        let _ = tokio::time::timeout(time, drain(left)).await;
    }
    response
}

async fn drain(body: Body) {
    let mut body = Limited::new(body, MOST);
    while let Some(Ok(_)) = body.frame().await {}
}
