//! Config of the image's encoder and decoder.

use serde::{Deserialize, Serialize};

use super::{ConfigError, field, only, range, read};

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
    #[serde(default = "scaling_factor")]
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

/// What diffusers takes where a config is older than the field, as those of `sd-vae-ft-mse`.
fn scaling_factor() -> f32 {
    0.18215
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
        read(text, Self::validate)
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
