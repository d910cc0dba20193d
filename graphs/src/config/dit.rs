//! The sizes of a Skip-DiT, named as those of Hunyuan-DiT are; its files do not have them.

use serde::{Deserialize, Serialize};

use super::{ConfigError, TransformerShape, field, range};

/// Config of Skip-DiT (`DiT_skip` of its authors' `class-to-image/models.py`), which comes in no
/// file: the shapes of its tensors tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Number of blocks, which is even.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer relative to `hidden_size`.
    pub mlp_ratio: f64,
    /// Side of a patch in latent pixels.
    pub patch_size: usize,
    /// Number of latent channels.
    pub in_channels: usize,
    /// Whether the model predicts a variance beside the noise.
    pub learn_sigma: bool,
    /// Side of the latents: the only one, since positions are stored.
    pub sample_size: usize,
    /// Number of classes; the label after the last means no class.
    pub num_classes: usize,
}

/// How many channels are guided: the reference guides three of four, "for exact reproducibility".
const GUIDED: usize = 3;

impl DitConfig {
    /// What every transformer has.
    pub fn shape(&self) -> TransformerShape {
        TransformerShape {
            num_layers: self.num_layers,
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            guided_channels: self.in_channels.min(GUIDED),
            sample_size: self.sample_size,
            num_classes: Some(self.num_classes),
        }
    }

    /// Checks that the graphs can be built.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("num_layers", self.num_layers, 4, 256)?;
        if !self.num_layers.is_multiple_of(2) {
            let why = "the depth must be even: with an odd one a block finds no long skip";
            return field("num_layers", self.num_layers, why);
        }
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let why = format!("{} attention heads must divide it", self.num_attention_heads);
            return field("hidden_size", self.hidden_size, why);
        }
        if !(0.01..=64.0).contains(&self.mlp_ratio) || self.ff_inner_dim() == 0 {
            return field("mlp_ratio", self.mlp_ratio, "expected a ratio between 0.01 and 64");
        }
        range("patch_size", self.patch_size, 1, 16)?;
        range("in_channels", self.in_channels, 1, 64)?;
        range("sample_size", self.sample_size, 1, 512)?;
        if !self.sample_size.is_multiple_of(self.patch_size) {
            let why = format!("expected a multiple of the patch size {}", self.patch_size);
            return field("sample_size", self.sample_size, why);
        }
        range("num_classes", self.num_classes, 1, 1_000_000)
    }

    /// Number of channels of the prediction.
    pub fn out_channels(&self) -> usize {
        self.in_channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Width of the feed-forward layer, rounded down as Python's `int` does.
    pub fn ff_inner_dim(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// Rows, and columns, of the grid of image tokens.
    pub fn grid(&self) -> usize {
        self.sample_size / self.patch_size
    }
}
