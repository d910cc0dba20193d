//! An IP-Adapter with made-up weights, in Tencent's names, and its image encoder in transformers'.

use std::collections::BTreeMap;
use std::path::Path;

use hydit_graphs::config::{
    Activation, ClipVisionConfig, HunyuanDitConfig, ImageProcessor, IpAdapterConfig,
};
use hydit_graphs::{Component, Precision, image_encoder};
use serde_json::json;

use super::shards::{Storage, write_tensors};
use super::{described, write};
use crate::error::Result;

/// Number of tokens of an image in Tencent's.
const TOKENS: usize = 8;

/// The config of Tencent's IP-Adapter, whose encoder is a ViT-H-14; or of one with a tiny encoder.
fn config(small: bool) -> IpAdapterConfig {
    let [hidden_size, layers, heads, image_size, projection_dim] =
        if small { [32, 2, 2, 28, 16] } else { [1280, 32, 16, 224, 1024] };
    IpAdapterConfig {
        image_tokens: TOKENS,
        image_encoder: ClipVisionConfig {
            hidden_size,
            intermediate_size: 4 * hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            image_size,
            patch_size: 14,
            projection_dim,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
        },
        image_processor: ImageProcessor::of_clip(Some(image_size)),
    }
}

/// Writes the folders `ip_adapter` and `image_encoder` into `out`, for `transformer`; the encoder is
/// tiny if it shall be `small`.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn ip_adapter(
    transformer: &HunyuanDitConfig,
    small: bool,
    out: &Path,
    storage: &Storage,
) -> Result<()> {
    let config = config(small);
    let HunyuanDitConfig { hidden_size, cross_attention_dim: cross, .. } = *transformer;
    let mut tensors = BTreeMap::new();
    let mut layer = |name: &str, shape: &[usize]| {
        tensors.insert(format!("{name}.weight"), shape.to_vec());
        tensors.insert(format!("{name}.bias"), shape[..1].to_vec());
    };
    let width = config.image_encoder.projection_dim;
    layer("ip_adapter_clip_len_trans_block", &[config.image_tokens * cross, width]);
    layer("ip_adapter_img_norm_cond", &[cross]);
    for block in 0..transformer.num_layers {
        let attention = format!("blocks.{block}.attn2");
        layer(&format!("{attention}.kv_proj_ip_adapter"), &[2 * hidden_size, cross]);
        layer(&format!("{attention}.k_norm_ip_adapter"), &[transformer.attention_head_dim]);
    }
    write_tensors(&out.join(Component::IpAdapter.folder()), "ip_adapter", tensors, storage)?;

    let graph = image_encoder::image_encoder(&config, cross, Precision::Fp32);
    let own = |name: &str| !name.starts_with("image_projection.");
    let tensors = graph.tensors().filter(|(name, _)| own(name));
    let tensors = tensors.map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
    let folder = out.join(Component::ImageEncoder.folder());
    write_tensors(&folder, "model", tensors, storage)?;
    let model = json!({
        "architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model"
    });
    write(&folder.join("config.json"), described(&config.image_encoder, model))?;
    let side = config.image_encoder.image_size;
    let ImageProcessor { image_mean, image_std, .. } = config.image_processor;
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "size": { "shortest_edge": side },
        "crop_size": { "height": side, "width": side },
        "image_mean": image_mean,
        "image_std": image_std,
    });
    write(&folder.join("preprocessor_config.json"), processor)
}
