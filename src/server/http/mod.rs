//! What clients see. One file per API; [`router`] puts them together.

mod encode;
mod error;
mod fields;
mod jobs;
mod oip;
mod openai;
mod openapi;
mod ops;
mod picture;

use std::sync::Arc;

use axum::Router;

pub use encode::{Format, Output};
pub use error::ApiError;
pub use fields::Fields;
pub use picture::PictureFields;

use super::engine::Engine;
use super::jobs::Jobs;
use super::settings::Settings;

/// What every handler can reach.
pub struct App {
    /// What was asked for.
    pub settings: Settings,
    /// Draws.
    pub engine: Arc<Engine>,
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

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let (router, api) = openapi::document()
        .merge(openai::routes())
        .merge(jobs::routes())
        .merge(oip::routes())
        .merge(ops::routes())
        .split_for_parts();
    openapi::serve(router, api).with_state(app)
}
