//! The config of a DiT or a Skip-DiT, which come as one file without any.

use hydit_graphs::config::{DitConfig, DitKind};
use hydit_graphs::scheduler::{BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType};

use super::super::tensors::CheckpointWeights;
use super::{count, ratio, refused, side};
use crate::error::Result;

/// Width of an attention head, which no shape tells: 72 in DiT-XL, 64 in all smaller ones.
fn head(hidden_size: usize) -> usize {
    if hidden_size == 1152 { 72 } else { 64 }
}

/// The config of a transformer.
pub(super) fn transformer(weights: &CheckpointWeights) -> Result<DitConfig> {
    let hidden_size = side(weights, "pos_embed.proj.weight", 0)?;
    let in_channels = side(weights, "pos_embed.proj.weight", 1)?;
    let patch_size = side(weights, "pos_embed.proj.weight", 2)?;
    let out = side(weights, "proj_out.weight", 0)?;
    let tokens = side(weights, "pos_embed.pos_embed", 1)?;
    let labels = side(weights, "class_embedder.embedding_table.weight", 0)?;
    let num_layers = count(weights, "blocks.*.norm1.linear.weight");
    let skips = count(weights, "skips.*.skip_norm.weight");
    let refuse = |message: String| Err(refused(weights, message));
    if ![0, num_layers / 2].contains(&skips) {
        let half = num_layers / 2;
        return refuse(format!(
            "it has {skips} long skips and {num_layers} blocks; expected {half} or none"
        ));
    }
    if hidden_size == 0 || !hidden_size.is_multiple_of(head(hidden_size)) {
        let head = head(hidden_size);
        return refuse(format!("its width {hidden_size} has no heads of {head}"));
    }
    let config = DitConfig {
        kind: if skips == 0 { DitKind::Dit } else { DitKind::SkipDit },
        num_layers,
        hidden_size,
        num_attention_heads: hidden_size / head(hidden_size),
        mlp_ratio: ratio(side(weights, "blocks.0.ff.net.0.proj.weight", 0)?, hidden_size),
        patch_size,
        in_channels,
        learn_sigma: out == patch_size.saturating_mul(patch_size).saturating_mul(2 * in_channels),
        sample_size: tokens.isqrt().saturating_mul(patch_size),
        num_classes: labels.saturating_sub(1),
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The noise that DiTs were trained with, and how it is sampled: `create_diffusion` of their code,
/// with timesteps as `space_timesteps` spreads them; for a model in diffusers' names without the
/// variance, and with leading timesteps, as `DiTPipeline` has it.
pub(super) fn scheduler(config: &DitConfig) -> NoiseSchedule {
    let diffusers = config.kind == DitKind::Diffusers;
    NoiseSchedule {
        num_train_timesteps: 1000,
        beta_start: 0.0001,
        beta_end: 0.02,
        beta_schedule: BetaSchedule::Linear,
        prediction_type: PredictionType::Epsilon,
        variance_type: match config.learn_sigma && !diffusers {
            true => VarianceType::LearnedRange,
            false => VarianceType::FixedSmall,
        },
        timestep_spacing: if diffusers { Spacing::Leading } else { Spacing::Linspace },
        steps_offset: 0,
        set_alpha_to_one: true,
    }
}
