//! Images under addresses that need no key: whoever has one was given it by who drew the image. They
//! end soon, cannot be guessed, and tell nothing of a prompt.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hydit::image::Format;
use strum::VariantArray;
use uuid::Uuid;

use super::error::ApiError;
use super::path::Path;
use crate::server::app::App;

/// Where the addresses begin.
const PREFIX: &str = "/v1/pictures/";

/// The route of lent images.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/pictures/{secret}/{file}", get(image))
}

/// Whether `path` is that of a lent image.
pub fn is_lent(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.split('/').count() == 2)
}

/// The server's name before paths, as the client of a request has reached it: what it has called the
/// host, and `https` if a proxy tells so by `X-Forwarded-Proto`.
pub struct Base(String);

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Base, ApiError> {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host: Option<Authority> = host.and_then(|host| host.parse().ok());
        let proto = parts.headers.get("x-forwarded-proto");
        let scheme = if proto.is_some_and(|proto| proto == "https") { "https" } else { "http" };
        // Without a host the address is relative, as URLs in an answer may be.
        Ok(Base(host.map(|host| format!("{scheme}://{host}")).unwrap_or_default()))
    }
}

impl Base {
    /// The address of the image `index` of those that are lent under `secret`.
    pub fn address(&self, secret: Uuid, index: usize, format: Format) -> String {
        format!("{}{PREFIX}{}/{index}.{format}", self.0, secret.simple())
    }
}

async fn image(
    State(app): State<Arc<App>>,
    Path((secret, file)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let none = || {
        let message = "there is no picture at this address, or no longer";
        ApiError::new(StatusCode::NOT_FOUND, "picture_not_found", message)
    };
    let secret: Uuid = secret.parse().map_err(|_| none())?;
    let (index, ending) = file.split_once('.').ok_or_else(none)?;
    let index = index.parse().map_err(|_| none())?;
    let (image, left) = app.jobs.lent(secret, index).await?.ok_or_else(none)?;
    let format = Format::VARIANTS.iter().find(|format| format.to_string() == image.format);
    let format = format.filter(|_| image.format == ending).ok_or_else(none)?;
    let seconds = format!("private, max-age={}", left.as_secs());
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (header::CACHE_CONTROL, HeaderValue::from_str(&seconds).expect("digits and letters")),
    ];
    Ok((head, image.file).into_response())
}
