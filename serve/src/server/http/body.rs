//! Bodies of requests: read as a whole, within bytes and time, before any handler sees them.
//!
//! Where a request may bring images along, its body may be as much larger, but only a few that are
//! larger are in memory at a time: the others wait for their [`Place`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::ApiError;
use crate::server::settings::{Limits, Settings};

/// Paths that take images.
const WITH_IMAGES: [&str; 9] = [
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/jobs",
    "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img",
    "/sdapi/v1/png-info",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
    "/inference.GRPCInferenceService/ModelInfer",
];
/// Number of bodies with images that are in memory at a time.
const PLACES: usize = 4;
/// When to come again for whom there was no place.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// A place among the bodies with images that are in memory. It is in the extensions of the request;
/// whoever keeps the images keeps it too.
#[derive(Clone, Debug)]
pub struct Place(
    #[expect(dead_code, reason = "held until it is dropped")] Arc<OwnedSemaphorePermit>,
);

/// Bounds of a body.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Maximum size in bytes.
    bytes: usize,
    /// The same where a request may bring images along.
    with_images: usize,
    places: Arc<Semaphore>,
    /// Maximum time from the end of the header to the end of the body.
    time: Duration,
}

impl Bounds {
    /// The bounds that `settings` ask for. Images may come in base64, which takes a third more.
    pub fn new(settings: &Settings) -> Bounds {
        let Limits { max_body, max_image, .. } = settings.limits;
        Bounds {
            bytes: max_body,
            with_images: max_body.saturating_add(max_image.div_ceil(3).saturating_mul(4)),
            places: Arc::new(Semaphore::new(PLACES)),
            time: settings.connections.body_timeout,
        }
    }

    /// A place for a body with images, as soon as there is one.
    async fn place(&self) -> Result<Place, Box<Response>> {
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(place) = timeout(self.time, place).await else {
            let message = "too many images are being sent; try again";
            let code = StatusCode::SERVICE_UNAVAILABLE;
            let error = ApiError::new(code, "too_many_images", message);
            let error = ApiError { retry_after: Some(COME_AGAIN), ..error };
            return Err(Box::new(last(error.into_response())));
        };
        Ok(Place(Arc::new(place.expect("the semaphore is never closed"))))
    }
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
    let (mut parts, body) = request.into_parts();
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "encoded bodies are not supported; omit Content-Encoding".to_string(),
        );
    }
    let with_images = path.is_some_and(|path| WITH_IMAGES.contains(&path.as_str()));
    match whole(body, &bounds, with_images).await {
        Ok((body, place)) => {
            if let Some(place) = place {
                parts.extensions.insert(place);
            }
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
        Err(refusal) => *refusal,
    }
}

/// Reads `body`. One that is larger than those without images takes a place.
async fn whole(
    mut body: Body,
    bounds: &Bounds,
    with_images: bool,
) -> Result<(Vec<u8>, Option<Place>), Box<Response>> {
    let most = if with_images { bounds.with_images } else { bounds.bytes };
    let too_large = || {
        let message = format!("the body is larger than {most} bytes");
        Box::new(refuse(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut place = None;
    let mut read = Vec::new();
    let mut end = Instant::now() + bounds.time;
    loop {
        let data = match timeout_at(end, body.frame()).await {
            Ok(None) => return Ok((read, place)),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) => {
                return Err(Box::new(refuse(
                    StatusCode::BAD_REQUEST,
                    "body_broken",
                    "the body ended early or is not framed as HTTP says".to_string(),
                )));
            }
            Err(_) => {
                return Err(Box::new(refuse(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_timeout",
                    format!("the body did not end within {} ms", bounds.time.as_millis()),
                )));
            }
        };
        if read.len() + data.len() > most {
            return Err(too_large());
        }
        if read.len() + data.len() > bounds.bytes && place.is_none() {
            place = Some(bounds.place().await?);
            end = Instant::now() + bounds.time;
            read.reserve_exact(data.len() + body.size_hint().lower() as usize);
        }
        read.extend_from_slice(&data);
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
