//! The configs of the released models, and of smaller ones of the same form.

use hydit_graphs::config::TransformerConfig;
use hydit_graphs::config::{BertConfig, FeedForward, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::scheduler::{BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType};

use crate::error::{Error, Result};

/// Changes to the shape of a released model; the default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Number of blocks of the transformer.
    pub depth: Option<usize>,
    /// Number of attention heads of the transformer.
    pub heads: Option<usize>,
    /// Width of an attention head.
    pub head_dim: Option<usize>,
    /// Side of the images that the model is made for, in pixels.
    pub image_size: Option<usize>,
    /// Whether text encoders and image decoder are tiny instead of those of the released model.
    pub small_text: bool,
}

/// The configs of all components of a Hunyuan-DiT.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // those of [`ModelConfig`]
pub struct HunyuanDit {
    pub transformer: HunyuanDitConfig,
    pub text_encoder: BertConfig,
    pub text_encoder_2: T5Config,
    pub vae: VaeConfig,
    pub scheduler: NoiseSchedule,
}

impl From<HunyuanDit> for ModelConfig {
    fn from(model: HunyuanDit) -> ModelConfig {
        let HunyuanDit { transformer, text_encoder, text_encoder_2, vae, scheduler } = model;
        ModelConfig {
            transformer: TransformerConfig::HunyuanDit(transformer),
            text_encoder: Some(text_encoder),
            text_encoder_2: Some(text_encoder_2),
            vae,
            scheduler,
        }
    }
}

/// Returns the configs of the released model `variant` (`hunyuan-dit-v1.2` or `hunyuan-dit-v1.1`),
/// changed as `shape` says.
///
/// # Errors
/// There is no such model, or the shape is not valid.
pub fn model(variant: &str, shape: &Shape) -> Result<HunyuanDit> {
    let flag = |flag, message| Error::Flag { flag, message };
    let (style, beta_end) = match variant {
        "hunyuan-dit-v1.2" => (false, 0.018),
        "hunyuan-dit-v1.1" => (true, 0.03),
        other => {
            let message =
                format!("`{other}` is not hunyuan-dit-v1.2, hunyuan-dit-v1.1, dit or skip-dit");
            return Err(flag("variant", message));
        }
    };
    let (text_encoder, text_encoder_2, vae) = if shape.small_text {
        (bert(256, 64, 2), t5(256, 64, 2, 160), vae(&[16, 32, 64, 64], 1, 8))
    } else {
        (bert(47_020, 1024, 24), t5(250_112, 2048, 24, 5120), vae(&[128, 256, 512, 512], 2, 32))
    };
    let heads = shape.heads.unwrap_or(16);
    let head_dim = shape.head_dim.unwrap_or(88);
    let side = shape.image_size.unwrap_or(1024);
    if !side.is_multiple_of(2 * vae.factor()) {
        let message = format!("{side} is not a multiple of {}", 2 * vae.factor());
        return Err(flag("image-size", message));
    }
    let transformer = HunyuanDitConfig {
        num_layers: shape.depth.unwrap_or(40),
        hidden_size: heads.saturating_mul(head_dim),
        num_attention_heads: heads,
        attention_head_dim: head_dim,
        mlp_ratio: 4.3637,
        sample_size: side / vae.factor(),
        cross_attention_dim: text_encoder.hidden_size,
        cross_attention_dim_t5: text_encoder_2.d_model,
        pooled_projection_dim: text_encoder.hidden_size,
        use_style_cond_and_image_meta_size: style,
        ..HunyuanDitConfig::default()
    };
    transformer
        .validate()
        .map_err(|error| flag("depth, --heads, --head-dim", error.to_string()))?;
    let scheduler = NoiseSchedule {
        num_train_timesteps: 1000,
        beta_start: 0.00085,
        beta_end,
        beta_schedule: BetaSchedule::ScaledLinear,
        prediction_type: PredictionType::VPrediction,
        variance_type: VarianceType::FixedSmall,
        timestep_spacing: Spacing::Leading,
        steps_offset: 1,
        set_alpha_to_one: true,
    };
    Ok(HunyuanDit { transformer, text_encoder, text_encoder_2, vae, scheduler })
}

fn bert(vocab_size: usize, hidden_size: usize, num_hidden_layers: usize) -> BertConfig {
    BertConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads: hidden_size.div_ceil(64),
        intermediate_size: 4 * hidden_size,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_act: "gelu".to_string(),
        position_embedding_type: "absolute".to_string(),
    }
}

fn t5(vocab_size: usize, d_model: usize, num_layers: usize, d_ff: usize) -> T5Config {
    T5Config {
        vocab_size,
        d_model,
        d_kv: 64,
        d_ff,
        num_layers,
        num_heads: d_model.div_ceil(64),
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForward::GatedGelu,
    }
}

pub(super) fn vae(
    block_out_channels: &[usize],
    layers_per_block: usize,
    norm_num_groups: usize,
) -> VaeConfig {
    VaeConfig {
        block_out_channels: block_out_channels.to_vec(),
        layers_per_block,
        norm_num_groups,
        in_channels: 3,
        latent_channels: 4,
        out_channels: 3,
        scaling_factor: 0.13025,
        force_upcast: false,
        use_quant_conv: true,
        use_post_quant_conv: true,
        mid_block_add_attention: true,
        act_fn: "silu".to_string(),
        down_block_types: vec!["DownEncoderBlock2D".to_string(); block_out_channels.len()],
        up_block_types: vec!["UpDecoderBlock2D".to_string(); block_out_channels.len()],
        shift_factor: None,
        latents_mean: None,
        latents_std: None,
    }
}
