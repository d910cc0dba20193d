//! Configs from the shapes of tensors, for files that come without any. What shapes do not tell is
//! as in the published models, which all share it.

mod dit;

use hydit_graphs::Component;
use hydit_graphs::config::{
    Activation, BertConfig, ClipVisionConfig, FeedForward, HunyuanDitConfig, T5Config,
    TransformerConfig, VaeConfig,
};
use hydit_graphs::scheduler::{BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType};

use super::tensors::CheckpointWeights;
use crate::error::{Error, Result};

/// Width of an attention head of BERT.
const BERT_HEAD: usize = 64;

/// The axis of a tensor that must be there.
fn side(weights: &CheckpointWeights, name: &str, axis: usize) -> Result<usize> {
    let found = weights.shape(name).and_then(|shape| shape.get(axis).copied());
    found.ok_or_else(|| refused(weights, format!("no tensor `{name}` to tell its shape by")))
}

fn refused(weights: &CheckpointWeights, message: String) -> Error {
    let path = weights.files().next().map(|file| file.path.clone()).unwrap_or_default();
    let folder = weights.component().folder();
    if weights.component() == Component::ControlNet {
        return Error::content(path)(format!("{folder}: {message}"));
    }
    let way_out = match weights.component() {
        Component::ImageEncoder => "put its config.json beside it",
        _ => "put its config.json beside it, or give a checkpoint that has one with --base",
    };
    Error::content(path)(format!("{folder} without config.json: {message}; {way_out}"))
}

/// How many tensors there are of a name with a number in the place of `*`, counted from 0.
pub(super) fn count(weights: &CheckpointWeights, name: &str) -> usize {
    (0..512).take_while(|i| weights.shape(&name.replace('*', &i.to_string())).is_some()).count()
}

/// The config of a transformer.
pub(super) fn transformer(weights: &CheckpointWeights) -> Result<TransformerConfig> {
    if weights.draws_classes() {
        return dit::transformer(weights).map(TransformerConfig::Dit);
    }
    hunyuan_dit(weights).map(TransformerConfig::HunyuanDit)
}

fn hunyuan_dit(weights: &CheckpointWeights) -> Result<HunyuanDitConfig> {
    let hidden_size = side(weights, "pos_embed.proj.weight", 0)?;
    let attention_head_dim = side(weights, "blocks.0.attn1.norm_q.weight", 0)?;
    let patch_size = side(weights, "pos_embed.proj.weight", 2)?;
    let in_channels = side(weights, "pos_embed.proj.weight", 1)?;
    let out = side(weights, "proj_out.weight", 0)?;
    let tokens = side(weights, "text_embedding_padding", 0)?;
    let positions = side(weights, "time_extra_emb.pooler.positional_embedding", 0)?;
    let style = weights.shape("time_extra_emb.style_embedder.weight").is_some();
    if [hidden_size, attention_head_dim, patch_size, in_channels].contains(&0)
        || positions == 0
        || tokens < positions
    {
        return Err(refused(weights, "its tensors have no elements".to_string()));
    }
    let config = HunyuanDitConfig {
        num_layers: count(weights, "blocks.*.norm2.weight"),
        hidden_size,
        num_attention_heads: hidden_size / attention_head_dim,
        attention_head_dim,
        mlp_ratio: ratio(side(weights, "blocks.0.ff.net.0.proj.weight", 0)?, hidden_size),
        patch_size,
        in_channels,
        learn_sigma: out == patch_size.saturating_mul(patch_size).saturating_mul(2 * in_channels),
        sample_size: 128,
        text_len: tokens - (positions - 1),
        text_len_t5: positions - 1,
        cross_attention_dim: side(weights, "blocks.0.attn2.to_k.weight", 1)?,
        cross_attention_dim_t5: side(weights, "text_embedder.linear_1.weight", 1)?,
        pooled_projection_dim: side(weights, "time_extra_emb.pooler.c_proj.weight", 0)?,
        use_style_cond_and_image_meta_size: style,
        ..HunyuanDitConfig::default()
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The config of a ControlNet that shall stand beside `transformer`, whose shapes it has but for
/// what lies within it alone.
pub(crate) fn control(
    weights: &CheckpointWeights,
    transformer: &HunyuanDitConfig,
) -> Result<HunyuanDitConfig> {
    let hidden_size = side(weights, "pos_embed.proj.weight", 0)?;
    let attention_head_dim = side(weights, "blocks.0.attn1.norm_q.weight", 0)?;
    if hidden_size == 0 || attention_head_dim == 0 {
        return Err(refused(weights, "its tensors have no elements".to_string()));
    }
    let rows = side(weights, "blocks.0.ff.net.0.proj.weight", 0)?;
    let style = weights.shape("time_extra_emb.style_embedder.weight").is_some();
    let config = HunyuanDitConfig {
        num_layers: 2 * (count(weights, "controlnet_blocks.*.weight") + 1),
        hidden_size,
        num_attention_heads: hidden_size / attention_head_dim,
        attention_head_dim,
        mlp_ratio: ratio(rows, hidden_size),
        patch_size: side(weights, "pos_embed.proj.weight", 2)?,
        in_channels: side(weights, "pos_embed.proj.weight", 1)?,
        cross_attention_dim: side(weights, "blocks.0.attn2.to_k.weight", 1)?,
        cross_attention_dim_t5: side(weights, "text_embedder.linear_1.weight", 1)?,
        pooled_projection_dim: side(weights, "time_extra_emb.pooler.c_proj.weight", 0)?,
        use_style_cond_and_image_meta_size: style,
        ..transformer.clone()
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// A ratio that gives `rows` when it is multiplied with `width` and rounded down.
fn ratio(rows: usize, width: usize) -> f64 {
    let exact = rows as f64 / width as f64;
    if (width as f64 * exact) as usize == rows { exact } else { exact.next_up() }
}

/// The config of a BERT.
pub(super) fn bert(weights: &CheckpointWeights) -> Result<BertConfig> {
    let embeddings = |name: &str, axis| side(weights, &format!("embeddings.{name}.weight"), axis);
    let hidden_size = embeddings("word_embeddings", 1)?;
    let config = BertConfig {
        vocab_size: embeddings("word_embeddings", 0)?,
        hidden_size,
        num_hidden_layers: count(weights, "encoder.layer.*.output.dense.weight"),
        num_attention_heads: hidden_size / BERT_HEAD,
        intermediate_size: side(weights, "encoder.layer.0.intermediate.dense.weight", 0)?,
        max_position_embeddings: embeddings("position_embeddings", 0)?,
        type_vocab_size: embeddings("token_type_embeddings", 0)?,
        layer_norm_eps: 1e-12,
        hidden_act: "gelu".to_string(),
        position_embedding_type: "absolute".to_string(),
    };
    if !hidden_size.is_multiple_of(BERT_HEAD) {
        let message = format!("its width {hidden_size} has no heads of {BERT_HEAD}");
        return Err(refused(weights, message));
    }
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The config of the encoder of a T5.
pub(super) fn t5(weights: &CheckpointWeights) -> Result<T5Config> {
    let first = "encoder.block.0.layer";
    let bias = format!("{first}.0.SelfAttention.relative_attention_bias.weight");
    let num_heads = side(weights, &bias, 1)?;
    let inner = side(weights, &format!("{first}.0.SelfAttention.q.weight"), 0)?;
    let gated = weights.shape(&format!("{first}.1.DenseReluDense.wi_0.weight")).is_some();
    let wide = if gated { "wi_0" } else { "wi" };
    let config = T5Config {
        vocab_size: side(weights, "shared.weight", 0)?,
        d_model: side(weights, "shared.weight", 1)?,
        d_kv: inner.checked_div(num_heads).unwrap_or(0),
        d_ff: side(weights, &format!("{first}.1.DenseReluDense.{wide}.weight"), 0)?,
        num_layers: count(weights, "encoder.block.*.layer.0.SelfAttention.q.weight"),
        num_heads,
        relative_attention_num_buckets: side(weights, &bias, 0)?,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: if gated { FeedForward::GatedGelu } else { FeedForward::Relu },
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The config of an image decoder, which is SDXL's in all published models.
pub(super) fn vae(weights: &CheckpointWeights) -> Result<VaeConfig> {
    let levels = count(weights, "decoder.up_blocks.*.resnets.0.norm1.weight");
    let mut widths = Vec::new();
    for level in (0..levels).rev() {
        let name = format!("decoder.up_blocks.{level}.resnets.0.conv1.weight");
        widths.push(side(weights, &name, 0)?);
    }
    let config = VaeConfig {
        down_block_types: vec!["DownEncoderBlock2D".to_string(); levels],
        up_block_types: vec!["UpDecoderBlock2D".to_string(); levels],
        layers_per_block: count(weights, "decoder.up_blocks.0.resnets.*.norm1.weight")
            .saturating_sub(1),
        norm_num_groups: 32,
        in_channels: 3,
        latent_channels: side(weights, "decoder.conv_in.weight", 1)?,
        out_channels: side(weights, "decoder.conv_out.weight", 0)?,
        scaling_factor: 0.13025,
        force_upcast: false,
        use_quant_conv: weights.shape("encoder.conv_in.weight").is_none()
            || weights.shape("quant_conv.weight").is_some(),
        use_post_quant_conv: weights.shape("post_quant_conv.weight").is_some(),
        mid_block_add_attention: weights
            .shape("decoder.mid_block.attentions.0.group_norm.weight")
            .is_some(),
        act_fn: "silu".to_string(),
        shift_factor: None,
        latents_mean: None,
        latents_std: None,
        block_out_channels: widths,
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The config of an image encoder, in OpenAI's names or transformers'. Heads are 64 wide there, and 80
/// in the huge one, which is 1280 wide.
pub(super) fn image_encoder(weights: &CheckpointWeights) -> Result<ClipVisionConfig> {
    let model = |name: &str, axis| side(weights, &format!("vision_model.{name}"), axis);
    let hidden_size = model("embeddings.patch_embedding.weight", 0)?;
    let patch_size = model("embeddings.patch_embedding.weight", 2)?;
    let positions = model("embeddings.position_embedding.weight", 0)?;
    let head = if hidden_size == 1280 { 80 } else { hidden_size.clamp(1, 64) };
    let config = ClipVisionConfig {
        hidden_size,
        intermediate_size: model("encoder.layers.0.mlp.fc1.weight", 0)?,
        num_hidden_layers: count(weights, "vision_model.encoder.layers.*.layer_norm1.weight"),
        num_attention_heads: hidden_size / head,
        image_size: positions.saturating_sub(1).isqrt().saturating_mul(patch_size),
        patch_size,
        projection_dim: side(weights, "visual_projection.weight", 0)?,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::QuickGelu,
    };
    config.validate().map_err(|error| refused(weights, error.to_string()))?;
    Ok(config)
}

/// The noise that a model was trained with: versions up to v1.1 with more of it than v1.2, whose
/// training script and ComfyUI's have 0.018 (Tencent's `--beta-end` defaults to 0.02 there).
pub(super) fn scheduler(transformer: &TransformerConfig) -> NoiseSchedule {
    let early = match transformer {
        TransformerConfig::HunyuanDit(cfg) => cfg.use_style_cond_and_image_meta_size,
        TransformerConfig::Dit(cfg) => return dit::scheduler(cfg),
    };
    NoiseSchedule {
        num_train_timesteps: 1000,
        beta_start: 0.00085,
        beta_end: if early { 0.03 } else { 0.018 },
        beta_schedule: BetaSchedule::ScaledLinear,
        prediction_type: PredictionType::VPrediction,
        variance_type: VarianceType::FixedSmall,
        timestep_spacing: Spacing::Leading,
        steps_offset: 1,
        set_alpha_to_one: true,
    }
}
