//! All that a form for requests is made of: per model its defaults, sizes, samplers and caches, and
//! the server's limits.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use hydit::artifacts::Artifacts;
use hydit::cache::{Measured, Schedule, Schedules};
use hydit::calibrations::{Calibration, calibrations};
use hydit::lora::LoraChoice;
use hydit::pipeline::cost::StepCosts;
use hydit::request::{MAX_GUIDANCE, MAX_PROMPT, MAX_SIDE, spacing_of};
use hydit::sampler::{SamplerKind, Spacing};
use hydit::{Control, Request};
use serde::Serialize;
use strum::VariantArray;

use super::error::ApiError;
use super::image::MAX_SEED;
use super::loras;
use crate::server::app::App;
use crate::server::settings::Settings;
use crate::server::spawn::blocking;
use crate::server::told;

/// What requests may ask for, by the names of the fields or routes that do.
const FEATURES: [&str; 18] = [
    "jobs",
    "presets",
    "tokenize",
    "response_format",
    "events",
    "previews",
    "metadata",
    "negative_prompt",
    "class",
    "guidance_rescale",
    "guidance_interval",
    "pag_scale",
    "pag_adaptive_scale",
    "cache",
    "image",
    "mask",
    "lora",
    "control",
];

/// The route of the capabilities.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/capabilities", get(capabilities))
}

/// What the server can do.
#[derive(Serialize)]
pub struct Capabilities {
    object: &'static str,
    version: &'static str,
    features: [&'static str; FEATURES.len()],
    limits: Limits,
    keep: Keep,
    /// Names of the LoRAs that models with slots for them can draw with.
    pub loras: Vec<String>,
    /// The models that can be asked for.
    pub models: Vec<Model>,
}

#[derive(Serialize)]
struct Limits {
    prompt_characters: usize,
    pixels: usize,
    side: usize,
    steps: usize,
    guidance: f32,
    n: usize,
    seed: u64,
}

/// How long finished jobs are kept, and how many bytes of their pictures.
#[derive(Serialize)]
struct Keep {
    seconds: f64,
    bytes: u64,
}

/// A model, and what may be asked of it.
#[derive(Serialize)]
pub struct Model {
    id: String,
    aliases: Vec<String>,
    variant: String,
    precision: String,
    defaults: Defaults,
    /// Those that it draws, or was trained for where it draws others too.
    sizes: Vec<String>,
    /// Whether it draws others too.
    other_sizes: bool,
    /// Of what both sides of a size must be multiples.
    size_multiple: usize,
    /// The tokens that each of its text encoders reads, of a model that reads texts.
    prompt_tokens: Vec<usize>,
    /// How many classes it draws, of a model that reads none.
    num_classes: Option<usize>,
    /// The names of these, if they have names.
    class_names: Vec<String>,
    samplers: Vec<Sampler>,
    /// Whether pictures can be made from images.
    image_to_image: bool,
    /// The names of its ControlNets.
    controls: Vec<String>,
    /// Whether an image may be a prompt beside the text.
    image_prompt: bool,
    /// The ranks that the LoRAs of a request may have together, if they may name any.
    lora_slots: Option<usize>,
    /// The blocks that perturbed-attention guidance perturbs; none where it cannot be asked for.
    pag_layers: Vec<usize>,
    /// Cost of a step that does not run the core, as a share of one that does, by FLOPs.
    cached_step_cost: f64,
    calibrations: Vec<Measurements>,
}

#[derive(Serialize)]
struct Defaults {
    negative_prompt: String,
    size: String,
    steps: usize,
    guidance: f32,
    guidance_rescale: f32,
    sampler: SamplerKind,
    spacing: Spacing,
    n: usize,
    /// The server's; a schedule, which is a file of the server, is not named.
    cache: Option<String>,
}

#[derive(Serialize)]
struct Sampler {
    name: SamplerKind,
    /// The model's for this sampler.
    spacing: Spacing,
    spacings: &'static [Spacing],
}

/// What a calibration file says: for what `auto` policies work, and how good they are.
#[derive(Serialize)]
struct Measurements {
    sampler: SamplerKind,
    spacing: Spacing,
    steps: usize,
    /// With more guidance `auto:<quality>dB` is refused.
    guidance: Option<f32>,
    /// The LoRAs that it was made with, each as `name:weight`.
    loras: Vec<String>,
    /// The scale of perturbed-attention guidance that it was made with; 0 is none.
    pag_scale: f32,
    /// How much less that was for each timestep below 1000.
    pag_adaptive_scale: f32,
    /// The ControlNets that it was made with, each as `name:weight:start-end`.
    controls: Vec<String>,
    /// The weight of the image prompt that it was made with, if any.
    image_prompt_weight: Option<f32>,
    schedules: Vec<Quality>,
    /// Why it cannot be used.
    error: Option<String>,
}

#[derive(Serialize)]
struct Quality {
    core_runs: usize,
    psnr: f64,
    psnr_p10: f64,
    ssim: f64,
}

async fn capabilities(State(app): State<Arc<App>>) -> Result<Json<Capabilities>, ApiError> {
    // Calibrations are files, and may have been made since the last time.
    Ok(Json(blocking(move || Capabilities::of(&app)).await?))
}

impl Capabilities {
    /// Those of `app`. Reads calibration files.
    ///
    /// # Errors
    /// When the folder of LoRAs cannot be read.
    pub fn of(app: &App) -> Result<Capabilities, ApiError> {
        let Settings { limits, keep, aliases, models, .. } = &app.settings;
        let model = |name: &String| {
            let (_, artifacts) = app.scheduler.model(Some(name)).ok()?;
            let mut aliases: Vec<String> = aliases
                .iter()
                .filter(|(_, of)| *of == name)
                .map(|(alias, _)| alias.clone())
                .collect();
            aliases.sort();
            Model::of(name, aliases, artifacts, &app.settings)
        };
        Ok(Capabilities {
            object: "capabilities",
            version: env!("CARGO_PKG_VERSION"),
            features: FEATURES,
            limits: Limits {
                prompt_characters: MAX_PROMPT,
                pixels: limits.max_pixels,
                side: MAX_SIDE,
                steps: limits.max_steps,
                guidance: MAX_GUIDANCE,
                n: limits.max_n,
                seed: MAX_SEED,
            },
            keep: Keep { seconds: keep.age.as_secs_f64(), bytes: keep.bytes },
            loras: loras::names(app)?,
            models: models.iter().filter_map(|(name, _)| model(name)).collect(),
        })
    }
}

impl Model {
    /// Nothing if the model has no defaults that this version understands, which the start refuses.
    fn of(
        name: &str,
        aliases: Vec<String>,
        artifacts: &Artifacts,
        settings: &Settings,
    ) -> Option<Model> {
        let manifest = &artifacts.manifest;
        let request = Request::new(manifest, "").ok()?;
        let StepCosts { full, cached, .. } = StepCosts::of(manifest, &request);
        let samplers = SamplerKind::VARIANTS.iter().map(|&sampler| Sampler {
            name: sampler,
            spacing: spacing_of(manifest, sampler),
            spacings: sampler.spacings(),
        });
        let classes = artifacts.classes.as_deref();
        let size = |[height, width]: [usize; 2]| format!("{width}x{height}");
        let tokenizers = manifest.tokenizers.iter();
        Some(Model {
            id: name.to_string(),
            aliases,
            variant: manifest.variant.name.clone(),
            precision: manifest.precision.to_string(),
            sizes: artifacts.sizes().into_iter().map(size).collect(),
            other_sizes: artifacts.only_sizes().is_none(),
            size_multiple: manifest.picture_unit(),
            prompt_tokens: tokenizers
                .flat_map(|both| [both.text_encoder.length, both.text_encoder_2.length])
                .collect(),
            num_classes: classes.map(|classes| classes.count()),
            class_names: classes.map(|classes| classes.names().to_vec()).unwrap_or_default(),
            samplers: samplers.collect(),
            image_to_image: manifest.has_image_encoder(),
            controls: manifest.controls.iter().map(|net| net.name.clone()).collect(),
            image_prompt: manifest.ip_adapter.is_some(),
            lora_slots: manifest.lora_slots,
            pag_layers: manifest.pag_layers.clone(),
            cached_step_cost: cached / full,
            calibrations: calibrations(artifacts)
                .into_iter()
                .map(|calibration| Measurements::of(calibration, artifacts))
                .collect(),
            defaults: Defaults {
                size: size(artifacts.usual_size()),
                steps: request.steps.min(settings.limits.max_steps),
                guidance: request.guidance_scale,
                guidance_rescale: request.guidance_rescale,
                sampler: request.sampler,
                spacing: request.spacing,
                n: 1,
                cache: Some(settings.cache.clone()).filter(|cache| !cache.starts_with("schedule:")),
                negative_prompt: request.negative_prompt,
            },
        })
    }
}

impl Measurements {
    fn of(calibration: Calibration, artifacts: &Artifacts) -> Measurements {
        let Calibration { sampler, spacing, steps, schedules } = calibration;
        let (found, error) = match schedules {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(told::of_policy(&error, &artifacts.path))),
        };
        let guidance = found.as_ref().and_then(|found| found.guidance_scale);
        let loras =
            found.iter().flat_map(|found| &found.loras).map(LoraChoice::to_string).collect();
        let pag_scale = found.as_ref().map_or(0.0, |found| found.pag_scale);
        let pag_adaptive_scale = found.as_ref().map_or(0.0, |found| found.pag_adaptive_scale);
        let controls =
            found.iter().flat_map(|found| &found.controls).map(Control::to_string).collect();
        let prompt = found.as_ref().and_then(|found| found.image_prompt.as_ref());
        let image_prompt_weight = prompt.map(|prompt| prompt.weight);
        let measured = |Schedule { refresh, measured, .. }: Schedule| {
            let Measured { psnr, psnr_p10, ssim, .. } = measured?;
            Some(Quality { core_runs: refresh.len(), psnr, psnr_p10, ssim })
        };
        let schedules = found.map(|Schedules { schedules, .. }| schedules).unwrap_or_default();
        let mut schedules: Vec<Quality> = schedules.into_iter().filter_map(measured).collect();
        schedules.sort_by_key(|quality| quality.core_runs);
        Measurements {
            sampler,
            spacing,
            steps,
            guidance,
            loras,
            pag_scale,
            pag_adaptive_scale,
            controls,
            image_prompt_weight,
            schedules,
            error,
        }
    }
}
