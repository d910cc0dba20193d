//! The sizes of a DiT or a Skip-DiT, named as those of Hunyuan-DiT are.

use serde::{Deserialize, Serialize};

use super::{ConfigError, TransformerShape, field, only, range, read};

/// Config of a DiT, with long skips or without. The files of its authors have none: the shapes of
/// their tensors tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Which of the DiTs it is.
    #[serde(default, skip_serializing_if = "DitKind::is_usual")]
    pub kind: DitKind,
    /// Number of blocks, which is even where there are long skips.
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
    /// Side of the latents: the only one, since positions are those of one grid.
    pub sample_size: usize,
    /// Number of classes; the label after the last means no class.
    pub num_classes: usize,
}

/// Which of the DiTs a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DitKind {
    /// Skip-DiT, `DiT_skip` of its authors' `class-to-image/models.py`: every block of the second
    /// half has a long skip.
    #[default]
    SkipDit,
    /// DiT as its authors wrote it (facebookresearch/DiT, `models.py`).
    Dit,
    /// DiT as diffusers has it, `DiTTransformer2DModel`: other frequencies of timesteps, another
    /// epsilon before the feed-forward layer, positions that are computed, and guidance of all
    /// channels.
    Diffusers,
}

impl DitKind {
    /// Whether it is that of a config which says none.
    fn is_usual(&self) -> bool {
        *self == DitKind::SkipDit
    }
}

/// How many channels are guided by the authors of DiT and Skip-DiT: three of four, "for exact
/// reproducibility".
const GUIDED: usize = 3;

/// The epsilon of norms before the feed-forward layer that diffusers' config may name.
const NORM_EPS: f64 = 1e-5;

impl DitConfig {
    /// Parses the JSON text of diffusers' `DiTTransformer2DModel` and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or a value is out of range or not supported.
    pub fn from_diffusers(text: &str) -> Result<Self, ConfigError> {
        let config: Diffusers = read(text, Diffusers::validate)?;
        let config = DitConfig::from(config);
        config.validate()?;
        Ok(config)
    }

    /// What every transformer has.
    pub fn shape(&self) -> TransformerShape {
        TransformerShape {
            num_layers: self.num_layers,
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            guided_channels: match self.kind {
                DitKind::Diffusers => self.in_channels,
                DitKind::Dit | DitKind::SkipDit => self.in_channels.min(GUIDED),
            },
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
        if self.has_long_skips() && !self.num_layers.is_multiple_of(2) {
            let why = "the depth must be even: with an odd one a block finds no long skip";
            return field("num_layers", self.num_layers, why);
        }
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let why = format!("{} attention heads must divide it", self.num_attention_heads);
            return field("hidden_size", self.hidden_size, why);
        }
        if self.kind == DitKind::Diffusers && !self.hidden_size.is_multiple_of(4) {
            let why = "sines and cosines of rows and columns need a multiple of 4";
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

    /// Whether every block of the second half has a long skip.
    pub fn has_long_skips(&self) -> bool {
        self.kind == DitKind::SkipDit
    }

    /// The number of tensors that go around the deep core of a model that is cut at `n`.
    pub fn skips(&self, n: usize) -> usize {
        if self.has_long_skips() { n } else { 1 }
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

/// What the config of diffusers' `DiTTransformer2DModel` says, which was a `Transformer2DModel` in
/// earlier versions.
#[derive(Deserialize)]
#[serde(default)]
struct Diffusers {
    num_attention_heads: usize,
    attention_head_dim: usize,
    in_channels: usize,
    out_channels: Option<usize>,
    num_layers: usize,
    attention_bias: bool,
    sample_size: usize,
    patch_size: usize,
    activation_fn: String,
    num_embeds_ada_norm: usize,
    norm_type: String,
    norm_elementwise_affine: bool,
    norm_eps: f64,
}

impl Default for Diffusers {
    /// The defaults of diffusers' constructor.
    fn default() -> Self {
        Diffusers {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            activation_fn: "gelu-approximate".to_string(),
            num_embeds_ada_norm: 1000,
            norm_type: "ada_norm_zero".to_string(),
            norm_elementwise_affine: false,
            norm_eps: NORM_EPS,
        }
    }
}

impl Diffusers {
    fn validate(&self) -> Result<(), ConfigError> {
        only("norm_type", &self.norm_type, "ada_norm_zero")?;
        only("activation_fn", &self.activation_fn, "gelu-approximate")?;
        for (name, found, expected) in [
            ("attention_bias", self.attention_bias, true),
            ("norm_elementwise_affine", self.norm_elementwise_affine, false),
        ] {
            if found != expected {
                return field(name, found, format!("only {expected} is supported"));
            }
        }
        if self.norm_eps != NORM_EPS {
            return field("norm_eps", self.norm_eps, format!("only {NORM_EPS:e} is supported"));
        }
        range("attention_head_dim", self.attention_head_dim, 1, 1024)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        range("in_channels", self.in_channels, 1, 64)?;
        let out = self.out_channels.unwrap_or(self.in_channels);
        let (plain, both) = (self.in_channels, 2 * self.in_channels);
        if ![plain, both].contains(&out) {
            return field(
                "out_channels",
                out,
                format!("expected {plain}, or {both} with variance"),
            );
        }
        Ok(())
    }
}

impl From<Diffusers> for DitConfig {
    fn from(config: Diffusers) -> DitConfig {
        DitConfig {
            kind: DitKind::Diffusers,
            num_layers: config.num_layers,
            hidden_size: config.num_attention_heads * config.attention_head_dim,
            num_attention_heads: config.num_attention_heads,
            mlp_ratio: 4.0,
            patch_size: config.patch_size,
            in_channels: config.in_channels,
            learn_sigma: config.out_channels.is_some_and(|out| out > config.in_channels),
            sample_size: config.sample_size,
            num_classes: config.num_embeds_ada_norm,
        }
    }
}
