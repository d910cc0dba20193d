//! The API of AUTOMATIC1111's web UI (`modules/api/api.py` there), as far as image tools speak it: text and image to
//! image, progress, interruption, and the lists that they fill their menus with.
//!
//! As there, fields that are not known are ignored; unlike there, a value that cannot be had is refused.

mod controlnet;
mod desk;
mod draw;
mod lists;
mod lora_tags;
mod options;
mod png_info;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use self::desk::Desk;
use super::error::{ApiError, reshape};
use crate::server::app::App;

/// The routes of the API.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(draw::from_text))
        .route("/sdapi/v1/img2img", post(draw::from_image))
        .route("/sdapi/v1/progress", get(desk::progress))
        .route("/sdapi/v1/interrupt", post(desk::interrupt))
        .route("/sdapi/v1/options", get(options::get).post(options::set))
        .route("/sdapi/v1/sd-models", get(lists::models))
        .route("/sdapi/v1/loras", get(lists::loras))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/upscalers", get(lists::upscalers))
        .route("/sdapi/v1/latent-upscale-modes", get(lists::none))
        .route("/sdapi/v1/sd-vae", get(lists::none))
        .route("/sdapi/v1/hypernetworks", get(lists::none))
        .route("/sdapi/v1/face-restorers", get(lists::none))
        .route("/sdapi/v1/realesrgan-models", get(lists::none))
        .route("/sdapi/v1/prompt-styles", get(lists::none))
        .route("/sdapi/v1/script-info", get(lists::none))
        .route("/sdapi/v1/extensions", get(lists::none))
        .route("/sdapi/v1/embeddings", get(lists::embeddings))
        .route("/sdapi/v1/scripts", get(controlnet::scripts))
        .route("/sdapi/v1/refresh-checkpoints", post(lists::refreshed))
        .route("/sdapi/v1/refresh-vae", post(lists::refreshed))
        .route("/sdapi/v1/refresh-loras", post(lists::refreshed))
        .route("/sdapi/v1/cmd-flags", get(lists::flags))
        .route("/sdapi/v1/png-info", post(png_info::read))
        .route("/controlnet/version", get(controlnet::version))
        .route("/controlnet/model_list", get(controlnet::models))
        .route("/controlnet/module_list", get(controlnet::modules))
        .layer(Extension(Arc::new(Desk::default())))
}

/// Gives errors of the API's paths the shape that its clients know, whichever layer answers.
pub async fn shape_errors(request: Request, next: Next) -> Response {
    let ours = |path: &str| path.starts_with("/sdapi/") || path.starts_with("/controlnet/");
    let body = |ApiError { code, message, .. }: &ApiError| json!({ "error": code, "detail": message, "body": "", "errors": message });
    reshape(request, next, ours, body).await
}
