//! The OpenAPI document, made from the handlers.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi;
use utoipa_axum::router::OpenApiRouter;

use super::App;

#[derive(OpenApi)]
#[openapi(info(title = "hydit"))]
struct Document;

/// A router that writes the document as routes are added.
pub fn document() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// Serves the document.
pub fn serve(router: Router<Arc<App>>, api: openapi::OpenApi) -> Router<Arc<App>> {
    router.route("/openapi.json", get(move || async move { Json(api) }))
}
