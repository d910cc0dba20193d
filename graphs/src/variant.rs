//! How to use a model, which a checkpoint itself does not say. The variants are the YAML files of
//! the crate `hydit-models`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use crate::config::{ConfigError, TransformerConfig, field, range};
use crate::manifest::ModelConfig;
use crate::sampler::SamplerKind;
use crate::scheduler::{NoiseSchedule, Spacing};
use crate::timesteps::NoiseLevels;
use crate::yaml::{YamlError, parse_yaml};

/// The largest side of an image in pixels.
pub const MAX_SIDE: usize = 4096;

/// The longest name of a variant, and the longest negative prompt, in bytes.
const MAX_NAME: usize = 100;
const MAX_NEGATIVE: usize = 4096;

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
    /// Skip-Cache as the model's authors use it.
    #[serde(default, skip_serializing_if = "CacheDefaults::is_usual")]
    pub cache: CacheDefaults,
    /// Timestep spacing of each sampler, in place of the scheduler config's.
    #[serde(default)]
    pub spacing: SpacingBySampler,
    /// The reference implementation to follow where they differ.
    #[serde(default, rename = "reading")]
    pub rope_convention: RopeConvention,
    /// Image sizes that the model was trained for and its authors recommend, `[height, width]` in
    /// pixels. They are information for users: no other size is refused.
    #[serde(default)]
    pub sizes: Vec<[usize; 2]>,
}

/// What all checkpoints of a variant share: fields of the transformer's config, and a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchRule {
    /// A part of the name of the checkpoint's folder or file, in lower case; without one, any name
    /// is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// Number of blocks.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Whether a Hunyuan-DiT has the size and style conditions of versions up to v1.1. It is `None`
    /// for other models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_style_cond_and_image_meta_size: Option<bool>,
}

/// Values for the fields that a request leaves out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Name of the sampler, a [`SamplerKind`].
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

/// Skip-Cache where a request, or an export, says no more than that it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheDefaults {
    /// Number of blocks before the deep core, and after it.
    pub branch: usize,
    /// Steps at this timestep or above refresh.
    pub start: u32,
    /// Steps after one at this timestep or below refresh.
    pub close: u32,
}

impl Default for CacheDefaults {
    /// Those of Hunyuan-DiT in the reference, constants there.
    fn default() -> Self {
        CacheDefaults { branch: 1, start: 700, close: 50 }
    }
}

impl CacheDefaults {
    fn is_usual(&self) -> bool {
        *self == CacheDefaults::default()
    }
}

/// Timestep spacing by sampler; for a sampler without one its
/// [own](SamplerKind::own_spacing), else the scheduler config's.
pub type SpacingBySampler = BTreeMap<SamplerKind, Spacing>;

/// The reference implementation to follow where the two differ: in the rotary positions of
/// non-square images, and in the size condition of models up to v1.1. The positions are up to 0.125
/// apart at 1280x768 and equal for squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeConvention {
    /// diffusers: positions `linspace(start, stop * (n - 1) / n, n)`, which scales the end together
    /// with its offset; the size condition is height, width.
    #[default]
    Diffusers,
    /// Tencent's own code, which trained the published weights: positions `linspace(start, stop, n,
    /// endpoint=False)`; the size condition is width, height.
    Tencent,
}

impl std::str::FromStr for RopeConvention {
    type Err = String;

    fn from_str(name: &str) -> Result<RopeConvention, String> {
        match name {
            "diffusers" => Ok(RopeConvention::Diffusers),
            "tencent" => Ok(RopeConvention::Tencent),
            _ => Err("expected diffusers or tencent".to_string()),
        }
    }
}

impl Variant {
    /// Parses the YAML text of a variant.
    ///
    /// # Errors
    /// Line, column and field of what is wrong.
    pub fn from_yaml(text: &str) -> Result<Variant, YamlError> {
        parse_yaml(text)
    }

    /// Checks that a request which leaves out every field can be drawn with a model of `config`.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self, config: &ModelConfig) -> Result<(), ConfigError> {
        if self.name.is_empty()
            || self.name.len() > MAX_NAME
            || self.name.contains(char::is_control)
        {
            let name = self.name.chars().take(MAX_NAME).collect::<String>();
            let why = format!("expected 1 to {MAX_NAME} bytes, in one line");
            return field("name", name.escape_debug(), why);
        }
        let Defaults { sampler, steps, image_size, negative_prompt, .. } = &self.defaults;
        let Ok(kind) = sampler.parse::<SamplerKind>() else {
            let name = sampler.chars().take(MAX_NAME).collect::<String>();
            let known: Vec<&str> = SamplerKind::VARIANTS.iter().map(|&kind| kind.into()).collect();
            let why = format!("expected one of {}", known.join(", "));
            return field("defaults.sampler", name.escape_debug(), why);
        };
        let schedule = &config.scheduler;
        for (kind, spacing) in &self.spacing {
            if !kind.spacings().contains(spacing) {
                return field("spacing", spacing, format!("it is none of {kind}"));
            }
        }
        let spacing = self.spacing_of(schedule, kind);
        range("defaults.infer_steps", *steps, 1, schedule.num_train_timesteps)?;
        if NoiseLevels::new(schedule, kind, spacing, *steps).is_none() {
            let why =
                format!("{sampler} with {spacing} spacing has not so many different timesteps");
            return field("defaults.infer_steps", steps, why);
        }
        for (name, value, most) in [
            ("defaults.cfg_scale", self.defaults.guidance_scale, 100.0),
            ("defaults.guidance_rescale", self.defaults.guidance_rescale, 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return field(name, value, format!("expected 0 to {most}"));
            }
        }
        let unit = config.vae.factor() * config.transformer.shape().patch_size;
        for side in *image_size {
            if side == 0 || side > MAX_SIDE || !side.is_multiple_of(unit) {
                let why = format!("expected multiples of {unit} up to {MAX_SIDE}");
                return field("defaults.image_size", format!("{image_size:?}"), why);
            }
        }
        if let Some(side) = config.only_size()
            && *image_size != [side; 2]
        {
            let why = format!("the model draws {side}x{side} only");
            return field("defaults.image_size", format!("{image_size:?}"), why);
        }
        if negative_prompt.len() > MAX_NEGATIVE {
            let why = format!("expected at most {MAX_NEGATIVE} bytes");
            return field("defaults.negative", format!("{} bytes", negative_prompt.len()), why);
        }
        range("sizes (number)", self.sizes.len(), 0, 1000)?;
        self.sizes.iter().flatten().try_for_each(|side| range("sizes", *side, 1, 1 << 16))
    }

    /// The spacing of a sampler where a request says none, with a checkpoint of `schedule`.
    pub fn spacing_of(&self, schedule: &NoiseSchedule, kind: SamplerKind) -> Spacing {
        let of_variant = self.spacing.get(&kind).copied();
        of_variant.or(kind.own_spacing()).unwrap_or(schedule.timestep_spacing)
    }

    /// The size among those that the model was trained for, `[height, width]`, whose shape is nearest
    /// to that of `size`; of several, the one whose area is. As diffusers' pipeline snaps sizes.
    pub fn nearest_size(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let shape = |[height, width]: [usize; 2]| width as f64 / height as f64;
        let apart = |size: &[usize; 2]| (shape(*size) - shape([height, width])).abs();
        let area = |size: &[usize; 2]| (size[0] * size[1]).abs_diff(height * width);
        let order = |a: &&[usize; 2], b: &&[usize; 2]| {
            apart(a).total_cmp(&apart(b)).then(area(a).cmp(&area(b)))
        };
        self.sizes.iter().min_by(order).copied()
    }

    /// Whether a checkpoint with the transformer config `cfg` is of this variant. `names` are those
    /// of its folder and files, in lower case.
    pub fn matches(&self, cfg: &TransformerConfig, names: &[String]) -> bool {
        self.match_rule.as_ref().is_some_and(|rule| {
            let styled = cfg.hunyuan_dit().map(|cfg| cfg.use_style_cond_and_image_meta_size);
            let cfg = cfg.shape();
            let named = |part: &String| names.iter().any(|name| name.contains(part));
            rule.named.as_ref().is_none_or(named)
                && rule.num_layers == cfg.num_layers
                && rule.hidden_size == cfg.hidden_size
                && styled == rule.use_style_cond_and_image_meta_size
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_snap_to_the_nearest_shape_and_then_to_the_nearest_area() {
        let sizes: Vec<[usize; 2]> = vec![
            [1024, 1024],
            [1280, 1280],
            [1024, 768],
            [1152, 864],
            [1280, 960],
            [768, 1024],
            [864, 1152],
            [960, 1280],
            [1280, 768],
            [768, 1280],
        ];
        let text = "name: a\ndefaults: {sampler: ddpm, infer_steps: 1, cfg_scale: 1, \
                    guidance_rescale: 0, image_size: [16, 16], negative: ''}\nreading: diffusers";
        let variant = Variant { sizes, ..Variant::from_yaml(text).expect("a variant") };
        // What `map_to_standard_shapes` of diffusers 0.42.1 gives for these.
        for (size, expected) in [
            ([128, 128], [1024, 1024]),
            ([1200, 1200], [1280, 1280]),
            ([1000, 700], [1024, 768]),
            ([1300, 1000], [1280, 960]),
            ([720, 1280], [768, 1280]),
            ([512, 768], [768, 1024]),
            ([4096, 16], [1280, 768]),
        ] {
            assert_eq!(variant.nearest_size(size), Some(expected), "{size:?}");
        }
        assert_eq!(Variant { sizes: Vec::new(), ..variant }.nearest_size([64, 64]), None);
    }
}
