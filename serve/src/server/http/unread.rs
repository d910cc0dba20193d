//! Answers that wait for their readers, bounded in bytes all together: whoever reads slowly, or not
//! at all, on many connections must not fill the memory.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Bytes of an answer that is not counted: a connection may hold as many anyway.
const SMALL: u64 = 64 << 10;
/// Bytes of a permit.
const UNIT: u64 = 1 << 10;
/// When to try again.
const SOON: Duration = Duration::from_secs(5);

/// How many bytes may still wait.
#[derive(Clone)]
pub struct Unread(Arc<Semaphore>);

/// Bytes that are counted until they are written.
struct Counted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unread {
    /// Room for this number of bytes.
    pub fn new(most: u64) -> Unread {
        let permits = usize::try_from(most / UNIT).unwrap_or(usize::MAX);
        Unread(Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))))
    }

    /// Counts `bytes` until they are dropped, if there is room.
    fn count(&self, bytes: Bytes) -> Option<Bytes> {
        let permits = u32::try_from((bytes.len() as u64).div_ceil(UNIT)).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(permits).ok()?;
        Some(Bytes::from_owner(Counted { bytes, _permit: permit }))
    }
}

/// Lets an answer pass for which there is room. Streams pass: they are read as they are made.
pub async fn bound(State(unread): State<Unread>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.body().size_hint().exact().is_none_or(|size| size <= SMALL) {
        return response;
    }
    let (head, body) = response.into_parts();
    let whole = body.collect().await.expect("a body of known size is there");
    let trailers = whole.trailers().cloned().map(Ok);
    match unread.count(whole.to_bytes()) {
        Some(counted) => {
            let body = Full::new(counted).with_trailers(ready(trailers));
            Response::from_parts(head, Body::new(body))
        }
        None => {
            let message = "too many answers wait for slow readers; try again in 5 s";
            let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unread_answers", message);
            ApiError { retry_after: Some(SOON), ..error }.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{HeaderMap, HeaderValue, header};
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded_and_small_ones_pass() {
        let router = Router::new()
            .route("/large", get(|| async { vec![7; 100 << 10] }))
            .route("/small", get(|| async { vec![7; 64 << 10] }))
            .layer(from_fn_with_state(Unread::new(250 << 10), bound));
        let ask = async |path: &str| {
            let ask = Request::get(path).body(Body::empty()).expect("a request");
            let answer = router.clone().oneshot(ask).await.expect("no service fails");
            let (head, body) = answer.into_parts();
            // As a connection does: the body has ended, its bytes are still to be written.
            (head, body.collect().await.expect("a body").to_bytes())
        };
        let first = ask("/large").await.1;
        let (_, second) = ask("/large").await;
        assert_eq!((first.len(), second.len()), (100 << 10, 100 << 10));
        let (head, _) = ask("/large").await;
        assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(head.headers["retry-after"], "5");
        assert_eq!(ask("/small").await.0.status, StatusCode::OK);
        drop(first.slice(1..2));
        assert_eq!(ask("/large").await.0.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(ask("/large").await.0.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_follows_a_body_passes_too() {
        let trailers = HeaderMap::from_iter([(header::EXPIRES, HeaderValue::from_static("0"))]);
        let body = || Full::new(Bytes::from(vec![7; 100 << 10]));
        let answer =
            move || async move { Body::new(body().with_trailers(ready(Some(Ok(trailers))))) };
        let router = Router::new()
            .route("/", get(answer))
            .layer(from_fn_with_state(Unread::new(250 << 10), bound));
        let ask = Request::get("/").body(Body::empty()).expect("a request");
        let answer = router.oneshot(ask).await.expect("no service fails");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().map(HeaderMap::len), Some(1));
        assert_eq!(body.to_bytes().len(), 100 << 10);
    }
}
