//! All routes, behind all guards.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::body::{self, Bounds};
use super::error::ApiError;
use super::guard::{self, Guard};
use super::slashes::{self, Slashes};
use super::unread::{self, Unread};
use super::{
    capabilities, discard, framing, jobs, lent, loras, mcp, models, observe, oip, openai, openapi,
    ops, page, presets, sdapi, tokenize,
};
use crate::server::app::App;
use crate::server::settings::Settings;

/// The service of a whole server.
pub fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .merge(openai::routes())
        .merge(lent::routes())
        .merge(models::routes())
        .merge(loras::routes())
        .merge(capabilities::routes())
        .merge(jobs::routes())
        .merge(presets::routes())
        .merge(tokenize::routes())
        .merge(oip::routes())
        .merge(sdapi::routes())
        .merge(mcp::routes(&app))
        .merge(ops::routes())
        .merge(openapi::routes(&app.settings))
        .merge(page::routes());
    let Settings { models, aliases, .. } = &app.settings;
    let slashes = Slashes::of(models.iter().map(|(name, _)| name).chain(aliases.keys()));
    let router = guarded(routes, &app.settings).with_state(app);
    match slashes {
        // Around the whole router: it must come before a route is chosen.
        Some(names) => {
            Router::new().fallback_service(router).layer(from_fn_with_state(names, slashes::escape))
        }
        None => router,
    }
}

/// The service of a whole server for gRPC.
pub fn grpc_router(app: Arc<App>) -> Router {
    guarded(oip::grpc::routes(), &app.settings).with_state(Arc::clone(&app))
}

/// Puts the layers around `router` that every request passes. The last one sees it first.
fn guarded<S>(router: Router<S>, settings: &Settings) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let guard = Arc::new(Guard::new(settings));
    let (limits, connections) = (settings.limits, settings.connections);
    let bounds = Bounds::new(settings);
    let unread = connections.unread.max(limits.max_answer);
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable()) // the next layer has bounded and read it
        .layer(from_fn_with_state(bounds, body::read))
        .layer(from_fn_with_state(Arc::clone(&guard), guard::key));
    let router = match guard.cors() {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(from_fn_with_state(guard, guard::origin))
        .layer(from_fn(framing::check))
        .layer(from_fn_with_state(Unread::new(unread), unread::bound))
        .layer(from_fn_with_state(connections.body_timeout, discard::rest))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(oip::shape_errors))
        .layer(from_fn(sdapi::shape_errors))
        .layer(from_fn(observe::observe))
        .layer(from_fn(oip::grpc::shape_errors))
}

async fn not_found(uri: Uri) -> ApiError {
    let message = match uri.path() {
        "/v1/images/variations" => {
            "variations are not built: send the image to /v1/images/edits, with a prompt"
        }
        _ => "there is no such path; see /openapi.json",
    };
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed() -> ApiError {
    let message = "this path does not take this method; see the header Allow";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// The answer after a panic, which the log has reported.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "internal error; the server's log has the request's id";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn broken() -> &'static str {
        panic!("of a handler")
    }

    #[tokio::test]
    async fn a_panic_of_a_handler_is_an_answer() {
        let router = Router::new().route("/panic", get(|| async { broken() }));
        let router = guarded(router, &Settings::default());
        let ask = Request::get("/panic").header(header::HOST, "localhost");
        let ask = ask.body(Body::empty()).expect("a request");
        let answer = router.oneshot(ask).await.expect("no service fails");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.headers().contains_key("x-request-id"));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "internal_error");
    }
}
