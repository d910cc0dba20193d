//! What a picture is asked for, checked against the model before any work.

mod parameters;

use std::ops::{Deref, Range};
use std::sync::Arc;

use hydit_graphs::Manifest;
use hydit_graphs::variant::Variant;
use serde::{Deserialize, Serialize};

use crate::artifacts::Artifacts;
use crate::cache::{CachePolicy, Decision, Plan, PolicyInput, Schedules};
use crate::class_label::Classes;
use crate::control::{self, Control};
use crate::error::{Error, Result};
use crate::guidance::GuidanceInterval;
use crate::image_prompt::ImagePrompt;
use crate::init_image::InitImage;
use crate::lora::{Chosen, LoraChoice};
use crate::sampler::{Sampler, SamplerError, SamplerKind, Spacing};

pub use self::parameters::Parameters;

/// Longest prompt in characters, as many as OpenAI's clients may send and some more; the encoders
/// read 77 and 256 tokens of it.
pub const MAX_PROMPT: usize = 4096;
/// Largest picture side in pixels.
pub const MAX_SIDE: usize = 4096;
/// Largest guidance scale.
pub const MAX_GUIDANCE: f32 = 100.0;
/// Most pictures of one request.
pub(crate) const MAX_BATCH: usize = 64;

/// A request for pictures.
///
/// The field names are those of diffusers' pipelines, and so are the names in PNG texts, in job
/// records and in errors. Flags and HTTP fields with other names are aliases at that edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What to draw, in Chinese or English; of a model that reads no texts, [classes](Classes).
    pub prompt: String,
    /// What not to draw.
    #[serde(default)]
    pub negative_prompt: String,
    /// Width of a picture in pixels, a multiple of 16 (VAE factor times patch size).
    pub width: usize,
    /// Height of a picture in pixels, a multiple of 16 as the width.
    pub height: usize,
    /// Number of denoising steps, with those that an image saves.
    #[serde(alias = "num_inference_steps")]
    pub steps: usize,
    /// Guidance scale; at 1 or below the negative prompt is not used and costs nothing.
    #[serde(alias = "guidance")]
    pub guidance_scale: f32,
    /// Share of the guided prediction that gets the spread of the conditional one, 0 to 1
    /// (arXiv 2305.08891, section 3.4).
    pub guidance_rescale: f32,
    /// The steps that are guided.
    #[serde(default, skip_serializing_if = "GuidanceInterval::is_whole")]
    pub guidance_interval: GuidanceInterval,
    /// How far away it is drawn from what the model predicts with perturbed self-attention; 0 for no
    /// such guidance, which costs a row per picture (arXiv 2403.17377).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pag_scale: f32,
    /// How much less that is for each timestep below 1000, down to 0; 0 for no less.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pag_adaptive_scale: f32,
    /// The sampler.
    pub sampler: SamplerKind,
    /// The sampler's timestep spacing.
    pub spacing: Spacing,
    /// Seed of the first picture; picture i has `seed + i`.
    pub seed: u64,
    /// Number of pictures.
    #[serde(alias = "n", default = "one", skip_serializing_if = "is_one")]
    pub num_images: usize,
    /// The image that the pictures are made from, if it is not noise alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_image: Option<InitImage>,
    /// The ControlNets that steer the pictures, each by an image of its own; they add up.
    #[serde(default, alias = "control", skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
    /// The image that is a prompt beside the text, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_prompt: Option<ImagePrompt>,
    /// At which steps the deep core runs, and what stands in for its output at the others.
    #[serde(alias = "cache")]
    pub cache_policy: CachePolicy,
    /// The LoRAs that change the model for this request; they add up.
    #[serde(default, alias = "lora", skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraChoice>,
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

fn is_zero(scale: &f32) -> bool {
    *scale == 0.0
}

impl Request {
    /// The model's defaults, for `prompt`.
    pub fn new(manifest: &Manifest, prompt: &str) -> Result<Request> {
        let Variant { defaults, .. } = &manifest.variant;
        let sampler = defaults.sampler.parse().map_err(SamplerError::from)?;
        Ok(Request {
            prompt: prompt.to_string(),
            negative_prompt: defaults.negative_prompt.clone(),
            height: defaults.image_size[0],
            width: defaults.image_size[1],
            steps: defaults.steps,
            guidance_scale: defaults.guidance_scale,
            guidance_rescale: defaults.guidance_rescale,
            guidance_interval: GuidanceInterval::WHOLE,
            pag_scale: 0.0,
            pag_adaptive_scale: 0.0,
            sampler,
            spacing: spacing_of(manifest, sampler),
            seed: 42,
            num_images: 1,
            init_image: None,
            controls: Vec::new(),
            image_prompt: None,
            cache_policy: CachePolicy::off(),
            loras: Vec::new(),
        })
    }

    /// Whether the negative prompt is drawn away from, by a row more per picture.
    pub fn guided(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// Whether perturbed self-attention is drawn away from, by a row more per picture.
    pub fn perturbed(&self) -> bool {
        self.pag_scale > 0.0
    }

    /// The rows of each picture at a step that is guided: negative, positive, perturbed.
    pub fn rows_per_image(&self) -> usize {
        1 + usize::from(self.guided()) + usize::from(self.perturbed())
    }

    /// The first of [`steps`](Request::steps) that is taken: a picture that is made from an image
    /// leaves out those before.
    ///
    /// # Errors
    /// [`Error::Request`] when no step is left.
    pub fn first_step(&self) -> Result<usize> {
        self.init_image.as_ref().map_or(Ok(0), |init_image| init_image.first_step(self.steps))
    }

    /// The number of steps that are taken; 0 where [`Request::first_step`] refuses.
    pub fn steps_taken(&self) -> usize {
        self.first_step().map_or(0, |first| self.steps - first)
    }

    /// Which of the steps that are taken are guided, counted from the first of them. The interval is
    /// one of the whole run: what it means is how much noise there is.
    pub fn guided_steps(&self) -> Range<usize> {
        if self.rows_per_image() == 1 {
            return 0..0;
        }
        let skipped = self.steps - self.steps_taken();
        let Range { start, end } = self.guidance_interval.of(self.steps);
        start.saturating_sub(skipped)..end.saturating_sub(skipped)
    }

    /// How picture `index` of this request is made with the model of `artifacts`, whose text encoders
    /// read only the beginning of the fields `truncated`.
    pub fn parameters(
        &self,
        artifacts: &Artifacts,
        index: usize,
        truncated: &[&'static str],
    ) -> Parameters {
        let seed = self.seed + index as u64;
        let mut request = Request { seed, num_images: 1, ..self.clone() };
        if artifacts.manifest.model.draws_classes() {
            request.prompt = Classes::of_picture(&self.prompt, index).to_string();
        }
        Parameters {
            request,
            model: artifacts.manifest.variant.name.clone(),
            manifest_sha256: artifacts.hash.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            truncated: truncated.iter().map(ToString::to_string).collect(),
        }
    }

    /// Checks every field against the model of `artifacts` and plans the request, before any work.
    ///
    /// # Errors
    /// [`Error::Request`] with the field, [`Error::Sampler`] for the number of steps,
    /// [`Error::Policy`] if a file that the cache policy names does not fit, [`Error::Lora`] for the
    /// file of a LoRA.
    pub fn check(&self, artifacts: &Artifacts) -> Result<CheckedRequest> {
        let manifest = &artifacts.manifest;
        self.check_fields(manifest)?;
        artifacts.engines.iter().try_for_each(|engines| engines.check_request(self))?;
        artifacts.classes.iter().try_for_each(|classes| classes.check(self))?;
        let schedule = &manifest.model.scheduler;
        let mut sampler = Sampler::new(self.sampler, schedule, self.spacing, self.steps)?;
        let skipped = self.first_step()?;
        let size = (self.width, self.height);
        control::check(&self.controls, manifest, size, self.steps - skipped)?;
        if skipped > 0 {
            sampler = sampler.begin_at(skipped);
        }
        let mut request = self.clone();
        request.cache_policy = self.cache_policy.settled(&manifest.variant.cache);
        let mut plan =
            request.cache_policy.plan(&self.policy_input(artifacts, &sampler, skipped))?;
        let guided = self.guided_steps();
        if guided.start > 0 && !guided.is_empty() {
            plan.renew_at(guided.start);
        }
        let manifest_sha256 = artifacts.hash.clone();
        let loras = artifacts.loras.choose(manifest, &mut request.loras)?;
        let classes = artifacts.classes.clone();
        Ok(CheckedRequest { request, manifest_sha256, sampler, plan, loras, classes })
    }

    /// What its cache policy may know, with its `sampler` at the first step that is taken.
    fn policy_input<'a>(
        &self,
        artifacts: &'a Artifacts,
        sampler: &'a Sampler,
        skipped: usize,
    ) -> PolicyInput<'a> {
        PolicyInput {
            timesteps: sampler.timesteps(),
            skipped,
            sampler: self.sampler,
            spacing: self.spacing,
            guidance_scale: self.guidance_scale,
            folder: &artifacts.path,
            manifest_sha256: &artifacts.hash,
        }
    }

    /// Checks that the model of `manifest` can draw pictures of this size.
    ///
    /// # Errors
    /// [`Error::Request`] with the side.
    pub fn check_size(&self, manifest: &Manifest) -> Result<()> {
        let refuse = |field, message: String| Err(Error::Request { field, message });
        let unit = manifest.picture_unit();
        for (field, side) in [("height", self.height), ("width", self.width)] {
            if side == 0 || !side.is_multiple_of(unit) || side > MAX_SIDE {
                let low = (side / unit * unit).clamp(unit, MAX_SIDE);
                let near = if low + unit <= MAX_SIDE && low < side {
                    format!("{low} or {}", low + unit)
                } else {
                    low.to_string()
                };
                let message =
                    format!("{side} is not a multiple of {unit} up to {MAX_SIDE}; try {near}");
                return refuse(field, message);
            }
        }
        Ok(())
    }

    fn check_fields(&self, manifest: &Manifest) -> Result<()> {
        let refuse = |field, message: String| Err(Error::Request { field, message });
        self.check_size(manifest)?;
        check_prompt("prompt", &self.prompt)?;
        check_prompt("negative_prompt", &self.negative_prompt)?;
        if !(1..=MAX_BATCH).contains(&self.num_images) {
            return refuse("num_images", format!("{}; expected 1 to {MAX_BATCH}", self.num_images));
        }
        for (field, value, most) in [
            ("guidance_scale", self.guidance_scale, MAX_GUIDANCE),
            ("guidance_rescale", self.guidance_rescale, 1.0),
            ("pag_scale", self.pag_scale, MAX_GUIDANCE),
            ("pag_adaptive_scale", self.pag_adaptive_scale, MAX_GUIDANCE),
        ] {
            if !(0.0..=most).contains(&value) {
                return refuse(field, format!("{value}; expected 0 to {most}"));
            }
        }
        if self.perturbed() && manifest.pag_layers.is_empty() {
            let message = "this model has no layers to perturb: export it with --pag-layers, or leave out \
                           pag_scale";
            return refuse("pag_scale", message.to_string());
        }
        if self.pag_adaptive_scale > 0.0 && !self.perturbed() {
            let message = "there is no pag_scale that it could lessen: give one, or leave it out";
            return refuse("pag_adaptive_scale", message.to_string());
        }
        let part = self.rows_per_image() > 1 && !self.guidance_interval.is_whole();
        if part && self.guidance_interval.of(self.steps).is_empty() {
            let Request { guidance_interval, steps, .. } = self;
            let message = format!(
                "{guidance_interval} holds none of {steps} steps; expected a wider one, or neither guidance_scale nor pag_scale"
            );
            return refuse("guidance_interval", message);
        }
        if let Some(init_image) = &self.init_image {
            init_image.check(manifest, (self.width, self.height))?;
        }
        if let Some(image_prompt) = &self.image_prompt {
            image_prompt.check(manifest)?;
        }
        if self.seed.checked_add(self.num_images as u64 - 1).is_none() {
            return refuse("seed", format!("{} + num_images passes 2^64", self.seed));
        }
        Ok(())
    }
}

/// A request that a model can draw, with its sampler and what its cache policy does.
///
/// [`Request::check`] makes it, and nothing can change it, so that whoever is given one need not
/// check again.
#[derive(Clone, Debug)]
pub struct CheckedRequest {
    request: Request,
    /// Names the model.
    manifest_sha256: String,
    sampler: Sampler,
    plan: Plan,
    loras: Vec<Chosen>,
    /// What a prompt names, of a model that reads no texts.
    classes: Option<Arc<Classes>>,
}

impl CheckedRequest {
    /// Whether it was checked against the model of `artifacts`.
    pub fn is_for(&self, artifacts: &Artifacts) -> bool {
        self.manifest_sha256 == artifacts.hash
    }

    /// The sampler at its first step.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The LoRAs, read.
    pub(crate) fn chosen_loras(&self) -> &[Chosen] {
        &self.loras
    }

    /// What the cache policy does.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The decisions of all steps.
    ///
    /// # Errors
    /// [`Error::Reactive`] if they are made while the image is drawn.
    pub fn planned(&self) -> Result<&[Decision]> {
        let reactive = || Error::Reactive { policy: self.cache_policy.to_string() };
        self.plan.planned().ok_or_else(reactive)
    }

    /// The calibration that its cache policy follows, if it follows one, in the folder of
    /// `artifacts`, which it was checked against.
    ///
    /// # Errors
    /// [`Error::Policy`] when the file has changed.
    pub fn calibration(&self, artifacts: &Artifacts) -> Result<Option<Schedules>> {
        let skipped = self.steps - self.steps_taken();
        let input = self.policy_input(artifacts, &self.sampler, skipped);
        Ok(self.cache_policy.calibration(&input)?)
    }

    /// The same request of another prompt.
    ///
    /// # Errors
    /// [`Error::Request`] if the prompt is too long, or names no class of a model that draws them.
    pub fn with_prompt(&self, prompt: &str) -> Result<CheckedRequest> {
        check_prompt("prompt", prompt)?;
        let request = Request { prompt: prompt.to_string(), ..self.request.clone() };
        self.classes.iter().try_for_each(|classes| classes.check(&request))?;
        Ok(CheckedRequest { request, ..self.clone() })
    }

    /// The same request by another plan, which has a decision for each step, begins with a refresh
    /// and forecasts from no more outputs than it has refreshed by then.
    pub(crate) fn with_plan(&self, plan: Plan) -> CheckedRequest {
        CheckedRequest { plan, ..self.clone() }
    }
}

impl Deref for CheckedRequest {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

fn check_prompt(field: &'static str, text: &str) -> Result<()> {
    let length = text.chars().count();
    if length <= MAX_PROMPT {
        return Ok(());
    }
    let message = format!("{length} characters; at most {MAX_PROMPT}");
    Err(Error::Request { field, message })
}

/// Spacing of `sampler`: the variant's, else the sampler's own, else the checkpoint's.
pub fn spacing_of(manifest: &Manifest, sampler: SamplerKind) -> Spacing {
    manifest.variant.spacing_of(&manifest.model.scheduler, sampler)
}
