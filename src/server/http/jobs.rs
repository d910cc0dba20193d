//! TODO jobs

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::App;

/// Its routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
}
