//! The `config.json` of each component, as diffusers and transformers write it: what the graphs are
//! functions of. A config is parsed from text and checked before a graph is built.

mod ip_adapter;

use serde::{Deserialize, Serialize};

pub use self::ip_adapter::{Activation, ClipVisionConfig, ImageProcessor, IpAdapterConfig};

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
        let cfg: Self = serde_json::from_str(text)?;
        cfg.validate()?;
        Ok(cfg)
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

/// Config of the first text encoder, `BertModel`: `text_encoder/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // transformers documents the fields
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f32,
    pub hidden_act: String,
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_string()
}

impl BertConfig {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or `validate` refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let cfg: Self = serde_json::from_str(text)?;
        cfg.validate()?;
        Ok(cfg)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("vocab_size", self.vocab_size, 1, 4_000_000)?;
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("num_hidden_layers", self.num_hidden_layers, 1, 256)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        range("intermediate_size", self.intermediate_size, 1, 65_536)?;
        range("max_position_embeddings", self.max_position_embeddings, 1, 65_536)?;
        range("type_vocab_size", self.type_vocab_size, 1, 64)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let why = format!("num_attention_heads = {} must divide it", self.num_attention_heads);
            return field("hidden_size", self.hidden_size, why);
        }
        epsilon("layer_norm_eps", self.layer_norm_eps)?;
        only("hidden_act", &self.hidden_act, "gelu")?;
        only("position_embedding_type", &self.position_embedding_type, "absolute")?;
        Ok(())
    }
}

/// The kind of feed-forward layer of a T5 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedForward {
    /// Two projections, one of them through GELU, multiplied: T5 v1.1 and mT5.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
    /// Like [`FeedForward::GatedGelu`], with SiLU in place of GELU.
    #[serde(rename = "gated-silu")]
    GatedSilu,
    /// One projection through ReLU: the first T5.
    #[serde(rename = "relu")]
    Relu,
}

/// Config of the second text encoder, `T5EncoderModel` or `MT5EncoderModel`:
/// `text_encoder_2/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // transformers documents the fields
pub struct T5Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f32,
    pub feed_forward_proj: FeedForward,
}

fn max_distance() -> usize {
    128
}

impl T5Config {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or `validate` refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let cfg: Self = serde_json::from_str(text)?;
        cfg.validate()?;
        Ok(cfg)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("vocab_size", self.vocab_size, 1, 4_000_000)?;
        range("d_model", self.d_model, 1, 16_384)?;
        range("d_kv", self.d_kv, 1, 1024)?;
        range("d_ff", self.d_ff, 1, 65_536)?;
        range("num_layers", self.num_layers, 1, 256)?;
        range("num_heads", self.num_heads, 1, 1024)?;
        range("relative_attention_num_buckets", self.relative_attention_num_buckets, 4, 4096)?;
        let exact = self.relative_attention_num_buckets / 4;
        range(
            "relative_attention_max_distance",
            self.relative_attention_max_distance,
            exact + 1,
            65_536,
        )?;
        epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        Ok(())
    }
}

/// Config of the autoencoder of images, `AutoencoderKL`: `vae/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // diffusers documents the fields
pub struct VaeConfig {
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub norm_num_groups: usize,
    #[serde(default = "rgb")]
    pub in_channels: usize,
    pub latent_channels: usize,
    pub out_channels: usize,
    pub scaling_factor: f32,
    #[serde(default)]
    pub force_upcast: bool,
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    #[serde(default = "silu")]
    pub act_fn: String,
    #[serde(default)]
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    #[serde(default)]
    pub shift_factor: Option<f32>,
    #[serde(default)]
    pub latents_mean: Option<Vec<f32>>,
    #[serde(default)]
    pub latents_std: Option<Vec<f32>>,
}

fn yes() -> bool {
    true
}

fn rgb() -> usize {
    3
}

fn silu() -> String {
    "silu".to_string()
}

impl VaeConfig {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or `validate` refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let cfg: Self = serde_json::from_str(text)?;
        cfg.validate()?;
        Ok(cfg)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("block_out_channels (levels)", self.block_out_channels.len(), 1, 8)?;
        range("layers_per_block", self.layers_per_block, 1, 16)?;
        range("norm_num_groups", self.norm_num_groups, 1, 1024)?;
        range("latent_channels", self.latent_channels, 1, 64)?;
        for &width in &self.block_out_channels {
            range("block_out_channels", width, 1, 8192)?;
            if !width.is_multiple_of(self.norm_num_groups) {
                let why = format!("it must divide every width, but not {width}");
                return field("norm_num_groups", self.norm_num_groups, why);
            }
        }
        for (name, channels) in
            [("in_channels", self.in_channels), ("out_channels", self.out_channels)]
        {
            if channels != 3 {
                return field(name, channels, "expected 3 (RGB)");
            }
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return field("scaling_factor", self.scaling_factor, "expected a positive number");
        }
        if self.up_block_types.len() != self.block_out_channels.len() {
            let why = format!("expected one per level, {}", self.block_out_channels.len());
            return field("up_block_types (levels)", self.up_block_types.len(), why);
        }
        self.up_block_types
            .iter()
            .try_for_each(|t| only("up_block_types", t, "UpDecoderBlock2D"))?;
        only("act_fn", &self.act_fn, "silu")?;
        if let Some(shift) = self.shift_factor {
            return field("shift_factor", shift, "only null is supported");
        }
        if self.latents_mean.is_some() || self.latents_std.is_some() {
            return field("latents_mean", "set", "only null is supported");
        }
        Ok(())
    }

    /// Checks that the encoder's graph can be built too. A config that names no blocks of it has
    /// those of diffusers' constructor.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate_encoder(&self) -> Result<(), ConfigError> {
        let (types, levels) = (&self.down_block_types, self.block_out_channels.len());
        if !types.is_empty() && types.len() != levels {
            let why = format!("expected one per level, {levels}");
            return field("down_block_types (levels)", types.len(), why);
        }
        types.iter().try_for_each(|t| only("down_block_types", t, "DownEncoderBlock2D"))
    }

    /// Side of the square of image pixels that a latent pixel becomes.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
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
