//! What clients fill their menus with.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hydit::artifacts::Artifacts;
use hydit::sampler::SamplerKind;
use serde_json::{Value, json};
use strum::VariantArray;

use crate::server::app::App;
use crate::server::http::error::ApiError;

/// A name from before schedulers had names of their own.
pub const KARRAS: &str = "DPM++ 2M Karras";
/// Characters of a model's hash that are shown.
const SHORT: usize = 10;

/// What the web UI calls a sampler.
pub fn sampler_name(kind: SamplerKind) -> &'static str {
    match kind {
        SamplerKind::Ddpm => "DDPM",
        SamplerKind::Ddim => "DDIM",
        SamplerKind::Dpmms => "DPM++ 2M",
    }
}

/// The sampler that the web UI, or this program, calls so. Clients have `DPM++ 2M Karras` built in: it is the
/// same sampler at noise levels that the model was not trained with, and gets those of the model here.
pub fn sampler(name: &str) -> Option<SamplerKind> {
    let name =
        if name.eq_ignore_ascii_case(KARRAS) { sampler_name(SamplerKind::Dpmms) } else { name };
    let called = |kind: &SamplerKind| {
        let own: &str = kind.into();
        name.eq_ignore_ascii_case(sampler_name(*kind)) || name.eq_ignore_ascii_case(own)
    };
    SamplerKind::VARIANTS.iter().copied().find(called)
}

/// The samplers.
pub async fn samplers() -> Json<Value> {
    let describe = |kind: &SamplerKind| {
        let own: &str = kind.into();
        json!({ "name": sampler_name(*kind), "aliases": [own], "options": {} })
    };
    Json(SamplerKind::VARIANTS.iter().map(describe).collect())
}

/// The only scheduler: the timesteps that the model was trained with, as it spaces them.
pub async fn schedulers() -> Json<Value> {
    Json(json!([{
        "name": "automatic",
        "label": "Automatic",
        "aliases": null,
        "default_rho": -1.0,
        "need_inner_model": false,
    }]))
}

/// There is none but the one that does nothing.
pub async fn upscalers() -> Json<Value> {
    Json(json!([{
        "name": "None",
        "model_name": null,
        "model_path": null,
        "model_url": null,
        "scale": 1.0,
    }]))
}

/// None of the web UI's own.
pub async fn flags() -> Json<Value> {
    Json(json!({}))
}

/// The short hash of a model, as the web UI writes it.
pub fn short_hash(artifacts: &Artifacts) -> &str {
    &artifacts.hash[..SHORT]
}

/// What the web UI shows of a model, and what clients send back to choose it.
pub fn title(name: &str, artifacts: &Artifacts) -> String {
    format!("{name} [{}]", short_hash(artifacts))
}

/// The models.
pub async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let describe = |(name, artifacts): (&String, &Arc<Artifacts>)| {
        json!({
            "title": title(name, artifacts),
            "model_name": name,
            "hash": short_hash(artifacts),
            "sha256": artifacts.hash,
            "filename": name,
            "config": null,
        })
    };
    Json(app.scheduler.models().iter().map(describe).collect())
}

/// The LoRAs; all models have the same.
pub async fn loras(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let names = crate::server::http::loras::names(&app)?.into_iter();
    let describe =
        |name: String| json!({ "name": name, "alias": name, "path": name, "metadata": {} });
    Ok(Json(names.map(describe).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_known_by_both_names_in_any_case() {
        for (name, kind) in [
            ("DPM++ 2M", SamplerKind::Dpmms),
            ("ddim", SamplerKind::Ddim),
            ("Ddpm", SamplerKind::Ddpm),
        ] {
            assert_eq!(sampler(name), Some(kind));
        }
        assert_eq!(sampler("Euler a"), None);
        assert_eq!(sampler("DPM++ 2M Karras"), Some(SamplerKind::Dpmms));
        assert_eq!(sampler("DPM++ SDE Karras"), None);
    }
}
