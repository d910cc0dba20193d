//! A Skip-DiT with made-up weights, as its authors' code names them, and a VAE beside it.

use std::collections::BTreeMap;
use std::path::Path;

use hydit_graphs::config::{DitConfig, VaeConfig};
use hydit_graphs::{Component, Precision, vae};
use serde_json::json;

use super::config::{Shape, vae as vae_config};
use super::shards::{Storage, write_tensors, write_weights};
use super::{described, new_folder, write};
use crate::error::{Error, Result};

/// The name of the variant, as the flag takes it.
pub const NAME: &str = "skip-dit";

/// The name of the transformer's file, without its ending.
pub const STEM: &str = "DiT-XL-2-skip";

/// The configs of transformer and VAE: those of DiT-XL/2-skip for 256x256, changed as `shape` says.
///
/// # Errors
/// The shape is not valid.
pub fn dit(shape: &Shape) -> Result<(DitConfig, VaeConfig)> {
    let refuse = |flag, message| Err(Error::Flag { flag, message });
    let vae = match shape.small_text {
        true => vae_config(&[16, 32, 64, 64], 1, 8),
        false => vae_config(&[128, 256, 512, 512], 2, 32),
    };
    let vae = VaeConfig { scaling_factor: 0.18215, ..vae };
    let side = shape.image_size.unwrap_or(256);
    let heads = shape.heads.unwrap_or(16);
    let head = if heads == 16 { 72 } else { 64 };
    if let Some(other) = shape.head_dim.filter(|&found| found != head) {
        let message = format!(
            "{other} is not {head}: files of DiTs do not say it, and with {heads} \
                               heads it is {head}"
        );
        return refuse("head-dim", message);
    }
    let unit = 2 * vae.factor();
    if !side.is_multiple_of(unit) {
        return refuse("image-size", format!("{side} is not a multiple of {unit}"));
    }
    let transformer = DitConfig {
        num_layers: shape.depth.unwrap_or(28),
        hidden_size: heads.saturating_mul(head),
        num_attention_heads: heads,
        mlp_ratio: 4.0,
        patch_size: 2,
        in_channels: vae.latent_channels,
        learn_sigma: true,
        sample_size: side / vae.factor(),
        num_classes: 1000,
    };
    match transformer.validate() {
        Ok(()) => Ok((transformer, vae)),
        Err(error) => refuse("depth, --heads", error.to_string()),
    }
}

/// Writes `DiT-XL-2-skip.safetensors`, and the VAE in diffusers' layout to the folder `vae`, into
/// `out`, a new or empty folder.
///
/// # Errors
/// The folder is not empty, or cannot be written to.
pub fn dit_checkpoint(
    (transformer, vae_config): &(DitConfig, VaeConfig),
    out: &Path,
    storage: &Storage,
) -> Result<()> {
    new_folder(out)?;
    let one_file = Storage { shard_bytes: u64::MAX, ..*storage };
    write_tensors(out, STEM, tensors(transformer), &one_file)?;
    let plain = Precision::Fp32;
    let graphs = [vae::vae_encoder(vae_config, plain), vae::vae_decoder(vae_config, plain)];
    let folder = out.join(Component::Vae.folder());
    write_weights(&folder, "diffusion_pytorch_model", graphs.iter(), storage)?;
    let config = described(vae_config, json!({ "_class_name": "AutoencoderKL" }));
    write(&folder.join("config.json"), config)
}

/// The tensors of a `state_dict` of `DiT_skip`.
fn tensors(cfg: &DitConfig) -> BTreeMap<String, Vec<usize>> {
    let (d, wide) = (cfg.hidden_size, cfg.ff_inner_dim());
    let mut tensors = BTreeMap::new();
    let mut layer = |name: &str, shape: &[usize]| {
        tensors.insert(format!("{name}.weight"), shape.to_vec());
        tensors.insert(format!("{name}.bias"), shape[..1].to_vec());
    };
    layer("x_embedder.proj", &[d, cfg.in_channels, cfg.patch_size, cfg.patch_size]);
    layer("t_embedder.mlp.0", &[d, 256]);
    layer("t_embedder.mlp.2", &[d, d]);
    for block in 0..cfg.num_layers {
        layer(&format!("blocks.{block}.attn.qkv"), &[3 * d, d]);
        layer(&format!("blocks.{block}.attn.proj"), &[d, d]);
        layer(&format!("blocks.{block}.mlp.fc1"), &[wide, d]);
        layer(&format!("blocks.{block}.mlp.fc2"), &[d, wide]);
        layer(&format!("blocks.{block}.adaLN_modulation.1"), &[6 * d, d]);
    }
    for skip in 0..cfg.num_layers / 2 {
        layer(&format!("skip_norms.{skip}"), &[2 * d]);
        layer(&format!("skip_linears.{skip}.linear"), &[d, 2 * d]);
    }
    layer("final_layer.adaLN_modulation.1", &[2 * d, d]);
    layer("final_layer.linear", &[cfg.patch_size * cfg.patch_size * cfg.out_channels(), d]);
    tensors.insert("pos_embed".to_string(), vec![1, cfg.grid() * cfg.grid(), d]);
    tensors.insert("y_embedder.embedding_table.weight".to_string(), vec![cfg.num_classes + 1, d]);
    tensors
}
