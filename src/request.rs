//! What a picture is asked for, checked against the model before any work.

use hydit_graphs::Manifest;
use hydit_graphs::variant::Variant;

use crate::artifacts::Artifacts;
use crate::cache::{CachePolicy, Plan, Run};
use crate::error::{Error, Result};
use crate::image::Parameters;
use crate::sampler::{Sampler, SamplerKind, Spacing};

/// Longest prompt in bytes; the encoders read 77 and 256 tokens of it.
const MAX_PROMPT: usize = 4096;
/// Largest picture side in pixels.
const MAX_SIDE: usize = 4096;
/// Most pictures of one request.
const MAX_BATCH: usize = 64;

/// A request for pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to draw, Chinese or English.
    pub prompt: String,
    /// What not to draw.
    pub negative: String,
    /// Height in pixels, a multiple of 16 (VAE factor times patch).
    pub height: usize,
    /// Width in pixels, likewise.
    pub width: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale; at 1 or below the negative prompt is not looked at and costs nothing.
    pub guidance_scale: f32,
    /// Share of the guided prediction that gets the spread of the conditional one (0 to 1,
    /// arXiv 2305.08891 §3.4).
    pub guidance_rescale: f32,
    /// Sampler.
    pub sampler: SamplerKind,
    /// Its timestep spacing.
    pub spacing: Spacing,
    /// Seed of the first picture; picture i has `seed + i`.
    pub seed: u64,
    /// Pictures.
    pub batch_size: usize,
    /// When the deep core runs.
    pub cache: CachePolicy,
}

impl Request {
    /// The model's defaults, for `prompt`.
    pub fn new(manifest: &Manifest, prompt: &str) -> Result<Request> {
        let Variant { defaults, .. } = &manifest.variant;
        let sampler = defaults.sampler.parse()?;
        Ok(Request {
            prompt: prompt.to_string(),
            negative: defaults.negative.clone(),
            height: defaults.image_size[0],
            width: defaults.image_size[1],
            steps: defaults.infer_steps,
            guidance_scale: defaults.cfg_scale,
            guidance_rescale: defaults.guidance_rescale,
            sampler,
            spacing: spacing_of(manifest, sampler),
            seed: 42,
            batch_size: 1,
            cache: CachePolicy::off(),
        })
    }

    /// Whether the negative prompt is drawn away from: two rows per picture instead of one.
    pub fn guided(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// How picture `picture` of it is made with the model of `artifacts`.
    pub fn parameters(&self, artifacts: &Artifacts, picture: usize) -> Parameters {
        Parameters {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            sampler: self.sampler,
            spacing: self.spacing,
            seed: self.seed + picture as u64,
            cache_policy: self.cache.to_string(),
            model: artifacts.manifest.variant.name.clone(),
            manifest_sha256: artifacts.hash.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// Checks every field; gives the sampler, and what the cache policy does.
    ///
    /// # Errors
    /// [`Error::Request`] of a field, [`Error::Policy`] of a file that the policy names.
    pub fn plan(&self, artifacts: &Artifacts) -> Result<(Sampler, Plan)> {
        let sampler = self.check(&artifacts.manifest)?;
        let run = Run {
            timesteps: sampler.timesteps(),
            sampler: self.sampler,
            spacing: self.spacing,
            guidance_scale: self.guidance_scale,
            folder: &artifacts.path,
            manifest_sha256: &artifacts.hash,
        };
        let plan = self.cache.plan(&run)?;
        Ok((sampler, plan))
    }

    /// Checks every field; gives the sampler.
    pub fn check(&self, manifest: &Manifest) -> Result<Sampler> {
        let refuse = |field, message: String| Err(Error::Request { field, message });
        let unit = manifest.model.vae.factor() * manifest.model.transformer.patch_size;
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
        for (field, text) in [("prompt", &self.prompt), ("negative", &self.negative)] {
            if text.len() > MAX_PROMPT {
                return refuse(field, format!("{} bytes; at most {MAX_PROMPT}", text.len()));
            }
        }
        if !(1..=MAX_BATCH).contains(&self.batch_size) {
            return refuse("batch-size", format!("{}; expected 1 to {MAX_BATCH}", self.batch_size));
        }
        if !(0.0..=100.0).contains(&self.guidance_scale) {
            return refuse("cfg-scale", format!("{}; expected 0 to 100", self.guidance_scale));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return refuse(
                "guidance-rescale",
                format!("{}; expected 0 to 1", self.guidance_rescale),
            );
        }
        if self.seed.checked_add(self.batch_size as u64 - 1).is_none() {
            return refuse("seed", format!("{} + batch-size passes 2^64", self.seed));
        }
        let schedule = &manifest.model.scheduler;
        Ok(Sampler::new(self.sampler, schedule, self.spacing, self.steps)?)
    }
}

/// Spacing of `sampler`: the variant's, else the checkpoint's.
pub fn spacing_of(manifest: &Manifest, sampler: SamplerKind) -> Spacing {
    let spacing = &manifest.variant.spacing;
    let of_variant = match sampler {
        SamplerKind::Ddpm => spacing.ddpm,
        SamplerKind::Ddim => spacing.ddim,
        SamplerKind::Dpmms => spacing.dpmms,
    };
    of_variant.unwrap_or(manifest.model.scheduler.timestep_spacing)
}
