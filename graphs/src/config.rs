//! The `config.json` of each component, as diffusers and transformers write it: what the graphs are
//! functions of. A config is parsed from text and checked before a graph is built.

mod dit;
mod ip_adapter;
mod text_encoders;
mod transformer;
mod vae;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::dit::{DitConfig, DitKind};
pub use self::ip_adapter::{Activation, ClipVisionConfig, ImageProcessor, IpAdapterConfig};
pub use self::text_encoders::{BertConfig, FeedForward, T5Config};
pub use self::transformer::{TransformerConfig, TransformerShape};
pub use self::vae::VaeConfig;

/// Heads of the attention that pools the prompt, fixed in both references.
pub(crate) const POOLER_HEADS: usize = 8;

/// The reason why no graph can be built from a config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON of the expected form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A value is out of range or not supported.
    #[error("`{field}` is {found}; {expected}")]
    Field {
        /// Name of the field in the JSON file.
        field: &'static str,
        /// Value of the field.
        found: String,
        /// The values that would be accepted, or the reason why this one is not.
        expected: String,
    },
}

/// Config of the diffusion transformer, `HunyuanDiT2DModel`: `transformer/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HunyuanDitConfig {
    /// Number of blocks, which is even.
    pub num_layers: usize,
    /// Width of the residual stream: `num_attention_heads * attention_head_dim`.
    pub hidden_size: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of an attention head.
    pub attention_head_dim: usize,
    /// Width of the feed-forward layer relative to `hidden_size`.
    pub mlp_ratio: f64,
    /// Side of a patch in latent pixels.
    pub patch_size: usize,
    /// Number of latent channels.
    pub in_channels: usize,
    /// Whether the model predicts a variance beside the noise, which is then ignored.
    pub learn_sigma: bool,
    /// Side of the latents that the model was made for.
    pub sample_size: usize,
    /// Number of tokens from the first text encoder.
    pub text_len: usize,
    /// Number of tokens from the second text encoder.
    pub text_len_t5: usize,
    /// Width of the first text encoder's states.
    pub cross_attention_dim: usize,
    /// Width of the second text encoder's states.
    pub cross_attention_dim_t5: usize,
    /// Width of the pooled prompt.
    pub pooled_projection_dim: usize,
    /// Whether the model has the size and style conditions of versions up to v1.1.
    pub use_style_cond_and_image_meta_size: bool,
    /// Activation of the feed-forward layer; only `gelu-approximate` is supported.
    pub activation_fn: String,
    /// Kind of the norms; only `layer_norm` is supported.
    pub norm_type: String,
}

impl Default for HunyuanDitConfig {
    /// The defaults of diffusers' constructor, for the fields that a config file leaves out.
    fn default() -> Self {
        HunyuanDitConfig {
            num_layers: 28,
            hidden_size: 1152,
            num_attention_heads: 16,
            attention_head_dim: 88,
            mlp_ratio: 4.0,
            patch_size: 2,
            in_channels: 4,
            learn_sigma: true,
            sample_size: 32,
            text_len: 77,
            text_len_t5: 256,
            cross_attention_dim: 1024,
            cross_attention_dim_t5: 2048,
            pooled_projection_dim: 1024,
            use_style_cond_and_image_meta_size: true,
            activation_fn: "gelu-approximate".to_string(),
            norm_type: "layer_norm".to_string(),
        }
    }
}

impl HunyuanDitConfig {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or [`HunyuanDitConfig::validate`] refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        read(text, Self::validate)
    }

    /// Checks that the graphs can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("num_layers", self.num_layers, 4, 256)?;
        if !self.num_layers.is_multiple_of(2) {
            let why = "the depth must be even: with an odd one the last block finds no long skip";
            return field("num_layers", self.num_layers, why);
        }
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        range("attention_head_dim", self.attention_head_dim, 2, 1024)?;
        if self.num_attention_heads * self.attention_head_dim != self.hidden_size {
            let product = self.num_attention_heads * self.attention_head_dim;
            let why = format!("expected num_attention_heads * attention_head_dim = {product}");
            return field("hidden_size", self.hidden_size, why);
        }
        if !self.attention_head_dim.is_multiple_of(4) {
            let why = "the 2-D rotary embedding needs a multiple of 4";
            return field("attention_head_dim", self.attention_head_dim, why);
        }
        if !(0.01..=64.0).contains(&self.mlp_ratio) || self.ff_inner_dim() == 0 {
            return field("mlp_ratio", self.mlp_ratio, "expected a ratio between 0.01 and 64");
        }
        range("patch_size", self.patch_size, 1, 16)?;
        range("in_channels", self.in_channels, 1, 64)?;
        range("sample_size", self.sample_size, 1, 4096)?;
        range("text_len", self.text_len, 1, 4096)?;
        range("text_len_t5", self.text_len_t5, 1, 4096)?;
        range("cross_attention_dim", self.cross_attention_dim, 1, 16_384)?;
        range("cross_attention_dim_t5", self.cross_attention_dim_t5, 1, 16_384)?;
        range("pooled_projection_dim", self.pooled_projection_dim, 1, 16_384)?;
        if !self.cross_attention_dim_t5.is_multiple_of(POOLER_HEADS) {
            let why = format!("the pooler's {POOLER_HEADS} heads must divide it");
            return field("cross_attention_dim_t5", self.cross_attention_dim_t5, why);
        }
        only("activation_fn", &self.activation_fn, "gelu-approximate")?;
        only("norm_type", &self.norm_type, "layer_norm")
    }

    /// Number of channels of the prediction.
    pub fn out_channels(&self) -> usize {
        self.in_channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Width of the feed-forward layer, rounded down as Python's `int` does.
    pub fn ff_inner_dim(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// The values of `cache_at_branch` that the number of blocks allows.
    pub fn cache_branches(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.num_layers / 2 - 1
    }
}

/// The config in the JSON text `text`, if `validate` takes it.
fn read<T: DeserializeOwned>(
    text: &str,
    validate: fn(&T) -> Result<(), ConfigError>,
) -> Result<T, ConfigError> {
    let config = serde_json::from_str(text)?;
    validate(&config)?;
    Ok(config)
}

pub(crate) fn field<T>(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError::Field { field, found: found.to_string(), expected: expected.into() })
}

pub(crate) fn range(
    name: &'static str,
    found: usize,
    low: usize,
    high: usize,
) -> Result<(), ConfigError> {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    field(name, found, format!("expected {low} to {high}"))
}

fn only(name: &'static str, found: &str, expected: &str) -> Result<(), ConfigError> {
    if found == expected {
        return Ok(());
    }
    field(name, format!("`{found}`"), format!("only `{expected}` is supported"))
}

fn epsilon(name: &'static str, found: f32) -> Result<(), ConfigError> {
    if found > 0.0 && found < 0.1 {
        return Ok(());
    }
    field(name, found, "expected a small positive number")
}
