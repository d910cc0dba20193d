//! The diffusion transformers that can be exported, and what all of them have.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, DitConfig, HunyuanDitConfig};

/// Config of a diffusion transformer: one variant for each model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TransformerConfig {
    /// Hunyuan-DiT, which draws texts.
    HunyuanDit(HunyuanDitConfig),
    /// DiT or Skip-DiT, which draw classes.
    Dit(DitConfig),
}

/// What every transformer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerShape {
    /// Number of blocks, which is even where there are long skips.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of a patch in latent pixels.
    pub patch_size: usize,
    /// Number of latent channels.
    pub in_channels: usize,
    /// How many of these are guided, from the first on.
    pub guided_channels: usize,
    /// Side of the latents that the model was made for.
    pub sample_size: usize,
    /// Number of classes, of a model that draws them.
    pub num_classes: Option<usize>,
}

impl TransformerConfig {
    /// Parses the JSON text of a `transformer/config.json` of diffusers and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or the config is refused.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let fields: Value = serde_json::from_str(text)?;
        let class = fields["_class_name"].as_str().unwrap_or_default();
        if class.ends_with("Transformer2DModel") {
            return DitConfig::from_diffusers(text).map(TransformerConfig::Dit);
        }
        HunyuanDitConfig::from_json(text).map(TransformerConfig::HunyuanDit)
    }

    /// What every transformer has.
    pub fn shape(&self) -> TransformerShape {
        match self {
            TransformerConfig::HunyuanDit(cfg) => TransformerShape {
                num_layers: cfg.num_layers,
                hidden_size: cfg.hidden_size,
                num_attention_heads: cfg.num_attention_heads,
                patch_size: cfg.patch_size,
                in_channels: cfg.in_channels,
                guided_channels: cfg.in_channels,
                sample_size: cfg.sample_size,
                num_classes: None,
            },
            TransformerConfig::Dit(cfg) => cfg.shape(),
        }
    }

    /// The config of a Hunyuan-DiT; `None` of another model.
    pub fn hunyuan_dit(&self) -> Option<&HunyuanDitConfig> {
        match self {
            TransformerConfig::HunyuanDit(cfg) => Some(cfg),
            TransformerConfig::Dit(_) => None,
        }
    }

    /// Checks that the graphs can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            TransformerConfig::HunyuanDit(cfg) => cfg.validate(),
            TransformerConfig::Dit(cfg) => cfg.validate(),
        }
    }

    /// The number of tensors that go around the deep core of a model that is cut at `n`.
    pub fn skips(&self, n: usize) -> usize {
        match self {
            TransformerConfig::HunyuanDit(_) => n,
            TransformerConfig::Dit(cfg) => cfg.skips(n),
        }
    }

    /// The values of `cache_at_branch` that the number of blocks allows.
    pub fn cache_branches(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.shape().num_layers / 2 - 1
    }
}

/// A config that has a number of classes is that of a model that draws them.
impl<'de> Deserialize<'de> for TransformerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let of_classes = fields.contains_key("num_classes");
        let fields = Value::Object(fields);
        let config = if of_classes {
            serde_json::from_value(fields).map(TransformerConfig::Dit)
        } else {
            serde_json::from_value(fields).map(TransformerConfig::HunyuanDit)
        };
        config.map_err(D::Error::custom)
    }
}
