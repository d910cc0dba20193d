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

/// What the web UI calls a spacing, as a scheduler of its own or behind the name of a sampler.
pub const KARRAS: &str = "Karras";
/// Characters of a model's hash that are shown.
const SHORT: usize = 10;

/// What the web UI calls a sampler.
pub fn sampler_name(kind: SamplerKind) -> &'static str {
    match kind {
        SamplerKind::Ddpm => "DDPM",
        SamplerKind::Ddim => "DDIM",
        SamplerKind::Dpmms => "DPM++ 2M",
        SamplerKind::UniPc => "UniPC",
        SamplerKind::Euler => "Euler",
        SamplerKind::EulerAncestral => "Euler a",
        SamplerKind::Lcm => "LCM",
    }
}

/// The sampler that the web UI, or this program, calls so, and whether its name ends in `Karras`, as
/// names did before schedulers had their own: clients have such names built in.
pub fn sampler(name: &str) -> Option<(SamplerKind, bool)> {
    let (plain, last) = name.rsplit_once(' ').unwrap_or((name, ""));
    let karras = last.eq_ignore_ascii_case(KARRAS);
    let name = if karras { plain } else { name };
    let called = |kind: &SamplerKind| {
        let own: &str = kind.into();
        name.eq_ignore_ascii_case(sampler_name(*kind)) || name.eq_ignore_ascii_case(own)
    };
    SamplerKind::VARIANTS.iter().copied().find(called).map(|kind| (kind, karras))
}

/// The samplers.
pub async fn samplers() -> Json<Value> {
    let describe = |kind: &SamplerKind| {
        let own: &str = kind.into();
        json!({ "name": sampler_name(*kind), "aliases": [own], "options": {} })
    };
    Json(SamplerKind::VARIANTS.iter().map(describe).collect())
}

/// The schedulers: the timesteps as the model's variant or the sampler spaces them, and Karras' for
/// samplers that have them.
pub async fn schedulers() -> Json<Value> {
    let describe = |(name, label, rho): (&str, &str, f64)| {
        json!({
            "name": name,
            "label": label,
            "aliases": null,
            "default_rho": rho,
            "need_inner_model": false,
        })
    };
    Json([("automatic", "Automatic", -1.0), ("karras", KARRAS, 7.0)].map(describe).into())
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

/// An empty list: of what the web UI may have and this server has not.
pub async fn none() -> Json<Value> {
    Json(json!([]))
}

/// Answers that there are no textual inversions.
pub async fn embeddings() -> Json<Value> {
    Json(json!({ "loaded": {}, "skipped": {} }))
}

/// Has nothing to do, since every list is made when it is asked for.
pub async fn refreshed() -> Json<Value> {
    Json(Value::Null)
}

/// Answers that none of the web UI's own flags is set.
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
            ("Euler", SamplerKind::Euler),
            ("Euler a", SamplerKind::EulerAncestral),
            ("unipc", SamplerKind::UniPc),
            ("LCM", SamplerKind::Lcm),
        ] {
            assert_eq!(sampler(name), Some((kind, false)));
        }
        assert_eq!(sampler("DPM++ 2M Karras"), Some((SamplerKind::Dpmms, true)));
        assert_eq!(sampler("Heun"), None);
        assert_eq!(sampler("DPM++ SDE Karras"), None);
    }
}
