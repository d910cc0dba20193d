//! What a checkpoint does not say of itself: how to use it. One YAML file per variant in `models/`.

use serde::{Deserialize, Serialize};

use crate::config::HunyuanDitConfig;
use crate::scheduler::Spacing;

/// Defaults of a released model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, as `--variant` takes it.
    pub name: String,
    /// A checkpoint is of this variant if its transformer config agrees; nothing matches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recognise: Option<Recognise>,
    /// What a request gets that does not say otherwise.
    pub defaults: Defaults,
    /// Timestep spacing of each sampler; where missing, the scheduler config's.
    #[serde(default)]
    pub spacing: SpacingBySampler,
    /// Which reference is followed where they differ: rotary grid of non-square pictures, and (up to
    /// v1.1) order of the size condition.
    pub reading: Reading,
    /// Sizes the model was trained for, `[height, width]`; others are allowed.
    #[serde(default)]
    pub sizes: Vec<[usize; 2]>,
}

/// The fields of the transformer config that tell a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recognise {
    /// Depth.
    pub num_layers: usize,
    /// Width.
    pub hidden_size: usize,
    /// Size and style conditions.
    pub use_style_cond_and_image_meta_size: bool,
}

/// Defaults of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// `ddpm`, `ddim` or `dpmms`.
    pub sampler: String,
    /// Denoising steps.
    pub infer_steps: usize,
    /// Guidance scale.
    pub cfg_scale: f32,
    /// Guidance rescale.
    pub guidance_rescale: f32,
    /// `[height, width]` in pixels.
    pub image_size: [usize; 2],
    /// Negative prompt.
    pub negative: String,
}

/// Timestep spacing by sampler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpacingBySampler {
    /// Of ddpm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ddpm: Option<Spacing>,
    /// Of ddim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ddim: Option<Spacing>,
    /// Of dpmms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpmms: Option<Spacing>,
}

/// The two references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// diffusers: positions `linspace(start, stop * (n - 1) / n, n)`, the end scaled together with its
    /// offset; size as height, width.
    Diffusers,
    /// Tencent, which trained the published weights: `linspace(start, stop, n, endpoint=False)`; size
    /// as width, height. Up to 0.125 of a position apart at 1280x768, equal for squares.
    Tencent,
}

impl Variant {
    /// From YAML text.
    ///
    /// # Errors
    /// Says line, column and field.
    pub fn from_yaml(text: &str) -> Result<Variant, String> {
        crate::yaml::parse(text)
    }

    /// Whether `cfg` is of this variant.
    pub fn matches(&self, cfg: &HunyuanDitConfig) -> bool {
        self.recognise.as_ref().is_some_and(|r| {
            r.num_layers == cfg.num_layers
                && r.hidden_size == cfg.hidden_size
                && r.use_style_cond_and_image_meta_size == cfg.use_style_cond_and_image_meta_size
        })
    }
}
