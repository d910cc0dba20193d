//! What clients see. One file per API; [`router`] puts them together.

mod body;
mod drawing;
mod encode;
mod error;
mod fields;
mod guard;
mod jobs;
pub mod listen;
mod observe;
mod oip;
mod openai;
mod openapi;
mod ops;
mod paced;
mod path;
mod picture;
mod schema;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

pub use drawing::{Asked, Figures};
pub use encode::{Format, Output};
pub use error::ApiError;
pub use fields::Fields;
pub use picture::PictureFields;

use self::body::Bounds;
use self::guard::Guard;
use super::jobs::Jobs;
use super::metrics;
use super::scheduler::Scheduler;
use super::settings::Settings;

/// What every handler can reach.
pub struct App {
    /// What was asked for.
    pub settings: Settings,
    /// Draws.
    pub scheduler: Arc<Scheduler>,
    /// Keeps jobs.
    pub jobs: Arc<Jobs>,
}

/// Who asks, as the key of the request says; `anonymous` where no key is needed. In the extensions
/// of every request that has passed the guard.
#[derive(Clone, Debug)]
pub struct Client(pub Arc<str>);

/// The request's name in logs and in `x-request-id`: the client's own if it is a plain word, else a new one. In
/// the extensions of every request. It names nothing but log lines: two requests may have the same.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// All routes, each behind all guards.
pub fn router(app: Arc<App>) -> Router {
    let (router, api) = openapi::document()
        .merge(openai::routes())
        .merge(jobs::routes())
        .merge(oip::routes())
        .merge(ops::routes())
        .split_for_parts();
    api.paths.paths.keys().for_each(|route| metrics::route(route));
    guarded(openapi::serve(router, api, &app.settings), &app.settings).with_state(app)
}

/// The last layer is the first to see a request.
fn guarded<S>(router: Router<S>, settings: &Settings) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let guard = Arc::new(Guard::new(settings));
    let (limits, connections) = (settings.limits, settings.connections);
    let bounds = Bounds { bytes: limits.max_body, time: connections.body_timeout };
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
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(oip::shape_errors))
        .layer(from_fn(observe::observe))
}

async fn not_found() -> ApiError {
    let message = "there is no such path; see /openapi.json";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed() -> ApiError {
    let message = "this path has no such method; see the header Allow";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// The log has what it was; see [`log`](crate::server::log).
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "a fault of the server; its log has the request's id";
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
