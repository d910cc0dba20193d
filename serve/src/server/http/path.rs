//! The variables of a path.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// As axum's extractor, but a path that is not UTF-8 is answered 404, in the shape of our errors.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Path(path)),
            Err(_) => {
                let message = "the path is not UTF-8, so it names nothing here";
                Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message))
            }
        }
    }
}
