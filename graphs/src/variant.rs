//! How to use a model, which a checkpoint itself does not say. The variants are the YAML files of
//! the crate `hydit-models`.

use serde::{Deserialize, Serialize};

use crate::config::HunyuanDitConfig;
use crate::scheduler::Spacing;
use crate::yaml::{YamlError, parse_yaml};

/// A released model: how to recognise it, and how to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, as the flag `--variant` takes it.
    pub name: String,
    /// The rule by which a checkpoint is recognised as this variant; without one, none is.
    #[serde(default, rename = "recognise", skip_serializing_if = "Option::is_none")]
    pub match_rule: Option<MatchRule>,
    /// Values for the fields that a request leaves out.
    pub defaults: Defaults,
    /// Timestep spacing of each sampler, in place of the scheduler config's.
    #[serde(default)]
    pub spacing: SpacingBySampler,
    /// The reference implementation to follow where they differ.
    #[serde(rename = "reading")]
    pub rope_convention: RopeConvention,
    /// Image sizes that the model was trained for and its authors recommend, `[height, width]` in
    /// pixels. They are information for users: no other size is refused.
    #[serde(default)]
    pub sizes: Vec<[usize; 2]>,
}

/// The fields of a transformer config that all checkpoints of a variant share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchRule {
    /// Number of blocks.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Whether the model has the size and style conditions of versions up to v1.1.
    pub use_style_cond_and_image_meta_size: bool,
}

/// Values for the fields that a request leaves out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Name of the sampler: `ddpm`, `ddim` or `dpmms`.
    pub sampler: String,
    /// Number of denoising steps.
    #[serde(rename = "infer_steps")]
    pub steps: usize,
    /// Guidance scale; 1 is no guidance.
    #[serde(rename = "cfg_scale")]
    pub guidance_scale: f32,
    /// Share of the guided prediction that is rescaled to the standard deviation of the prompted
    /// one, 0 to 1.
    pub guidance_rescale: f32,
    /// Size of the image, `[height, width]` in pixels.
    pub image_size: [usize; 2],
    /// Negative prompt.
    #[serde(rename = "negative")]
    pub negative_prompt: String,
}

/// Timestep spacing by sampler; the scheduler config decides for a sampler without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpacingBySampler {
    /// Spacing of `ddpm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ddpm: Option<Spacing>,
    /// Spacing of `ddim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ddim: Option<Spacing>,
    /// Spacing of `dpmms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpmms: Option<Spacing>,
}

/// The reference implementation to follow where the two differ: in the rotary positions of
/// non-square images, and in the size condition of models up to v1.1. The positions are up to 0.125
/// apart at 1280x768 and equal for squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeConvention {
    /// diffusers: positions `linspace(start, stop * (n - 1) / n, n)`, which scales the end together
    /// with its offset; the size condition is height, width.
    Diffusers,
    /// Tencent's own code, which trained the published weights: positions `linspace(start, stop, n,
    /// endpoint=False)`; the size condition is width, height.
    Tencent,
}

impl Variant {
    /// Parses the YAML text of a variant.
    ///
    /// # Errors
    /// Line, column and field of what is wrong.
    pub fn from_yaml(text: &str) -> Result<Variant, YamlError> {
        parse_yaml(text)
    }

    /// Whether a checkpoint with the transformer config `cfg` is of this variant.
    pub fn matches(&self, cfg: &HunyuanDitConfig) -> bool {
        self.match_rule.as_ref().is_some_and(|rule| {
            rule.num_layers == cfg.num_layers
                && rule.hidden_size == cfg.hidden_size
                && rule.use_style_cond_and_image_meta_size == cfg.use_style_cond_and_image_meta_size
        })
    }
}
