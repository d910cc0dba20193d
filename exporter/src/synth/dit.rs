//! A DiT or a Skip-DiT with made-up weights, and a VAE: a Skip-DiT as its authors' code names it, a
//! DiT as diffusers has it.

use std::collections::BTreeMap;
use std::path::Path;

use hydit_graphs::config::{DitConfig, DitKind, VaeConfig};
use hydit_graphs::{Component, Precision, vae};
use serde_json::json;

use super::config::{Shape, vae as vae_config};
use super::shards::{Storage, write_tensors, write_weights};
use super::{described, folder, new_folder, write};
use crate::error::{Error, Result};

/// Which DiT the flag `--variant` names with `name`.
pub fn dit_kind(name: &str) -> Option<DitKind> {
    match name {
        "dit" => Some(DitKind::Diffusers),
        "skip-dit" => Some(DitKind::SkipDit),
        _ => None,
    }
}

/// The name of the transformer's file without its ending, in the layout of its authors.
pub fn dit_stem(kind: DitKind) -> &'static str {
    if kind == DitKind::SkipDit { "DiT-XL-2-skip" } else { "DiT-XL-2-256x256" }
}

/// The configs of transformer and VAE: those of DiT-XL/2 for 256x256, changed as `shape` says.
///
/// # Errors
/// The shape is not valid.
pub fn dit(kind: DitKind, shape: &Shape) -> Result<(DitConfig, VaeConfig)> {
    let refuse = |flag, message| Err(Error::Flag { flag, message });
    let vae = match shape.small_text {
        true => vae_config(&[16, 32, 64, 64], 1, 8),
        false => vae_config(&[128, 256, 512, 512], 2, 32),
    };
    let vae = VaeConfig { scaling_factor: 0.18215, ..vae };
    let side = shape.image_size.unwrap_or(256);
    let heads = shape.heads.unwrap_or(16);
    let usual = if heads == 16 { 72 } else { 64 };
    let head = shape.head_dim.unwrap_or(usual);
    if kind != DitKind::Diffusers && head != usual {
        let message = format!(
            "{head} is not {usual}: files of DiTs do not say it, and with {heads} heads it is {usual}"
        );
        return refuse("head-dim", message);
    }
    let unit = 2 * vae.factor();
    if !side.is_multiple_of(unit) {
        return refuse("image-size", format!("{side} is not a multiple of {unit}"));
    }
    let transformer = DitConfig {
        kind,
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
        Err(error) => refuse("depth, --heads, --head-dim", error.to_string()),
    }
}

/// Writes a DiT of diffusers as the folder of its pipeline, into `out`, a new or empty folder; of any
/// other the transformer as one file, and the VAE in diffusers' layout as the folder `vae`.
///
/// # Errors
/// The folder is not empty, or cannot be written to.
pub fn dit_checkpoint(
    (transformer, vae_config): &(DitConfig, VaeConfig),
    out: &Path,
    storage: &Storage,
) -> Result<()> {
    const STEM: &str = "diffusion_pytorch_model";
    new_folder(out)?;
    let plain = Precision::Fp32;
    let graphs = [vae::vae_encoder(vae_config, plain), vae::vae_decoder(vae_config, plain)];
    let vae = folder(out, Component::Vae.folder())?;
    write_weights(&vae, STEM, graphs.iter(), storage)?;
    let config = described(vae_config, json!({ "_class_name": "AutoencoderKL" }));
    write(&vae.join("config.json"), config)?;
    if transformer.kind != DitKind::Diffusers {
        let one_file = Storage { shard_bytes: u64::MAX, ..*storage };
        return write_tensors(out, dit_stem(transformer.kind), tensors(transformer), &one_file);
    }
    let place = folder(out, Component::Transformer.folder())?;
    write_tensors(&place, STEM, diffusers_tensors(transformer), storage)?;
    write(&place.join("config.json"), diffusers_config(transformer))?;
    let scheduler = json!({
        "_class_name": "DDIMScheduler",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": true,
        "steps_offset": 0,
        "trained_betas": null
    });
    write(&folder(out, "scheduler")?.join("scheduler_config.json"), scheduler)?;
    let index = json!({
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"]
    });
    write(&out.join("model_index.json"), index)
}

/// `transformer/config.json` of diffusers.
fn diffusers_config(cfg: &DitConfig) -> serde_json::Value {
    json!({
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": true,
        "attention_head_dim": cfg.hidden_size / cfg.num_attention_heads,
        "in_channels": cfg.in_channels,
        "norm_elementwise_affine": false,
        "norm_eps": 1e-5,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": cfg.num_attention_heads,
        "num_embeds_ada_norm": cfg.num_classes,
        "num_layers": cfg.num_layers,
        "out_channels": cfg.out_channels(),
        "patch_size": cfg.patch_size,
        "sample_size": cfg.sample_size
    })
}

/// The shapes of tensors, by their names.
#[derive(Default)]
struct Tensors(BTreeMap<String, Vec<usize>>);

impl Tensors {
    /// Adds the weight and the bias of a layer.
    fn layer(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(format!("{name}.weight"), shape.to_vec());
        self.0.insert(format!("{name}.bias"), shape[..1].to_vec());
    }
}

/// The tensors of a `state_dict` of `DiT`, or of `DiT_skip`.
fn tensors(cfg: &DitConfig) -> BTreeMap<String, Vec<usize>> {
    let (d, wide) = (cfg.hidden_size, cfg.ff_inner_dim());
    let mut tensors = Tensors::default();
    tensors.layer("x_embedder.proj", &[d, cfg.in_channels, cfg.patch_size, cfg.patch_size]);
    tensors.layer("t_embedder.mlp.0", &[d, 256]);
    tensors.layer("t_embedder.mlp.2", &[d, d]);
    for block in 0..cfg.num_layers {
        tensors.layer(&format!("blocks.{block}.attn.qkv"), &[3 * d, d]);
        tensors.layer(&format!("blocks.{block}.attn.proj"), &[d, d]);
        tensors.layer(&format!("blocks.{block}.mlp.fc1"), &[wide, d]);
        tensors.layer(&format!("blocks.{block}.mlp.fc2"), &[d, wide]);
        tensors.layer(&format!("blocks.{block}.adaLN_modulation.1"), &[6 * d, d]);
    }
    let skips = if cfg.has_long_skips() { cfg.num_layers / 2 } else { 0 };
    for skip in 0..skips {
        tensors.layer(&format!("skip_norms.{skip}"), &[2 * d]);
        tensors.layer(&format!("skip_linears.{skip}.linear"), &[d, 2 * d]);
    }
    tensors.layer("final_layer.adaLN_modulation.1", &[2 * d, d]);
    let channels = cfg.patch_size * cfg.patch_size * cfg.out_channels();
    tensors.layer("final_layer.linear", &[channels, d]);
    let Tensors(mut tensors) = tensors;
    tensors.insert("pos_embed".to_string(), vec![1, cfg.grid() * cfg.grid(), d]);
    tensors.insert("y_embedder.embedding_table.weight".to_string(), vec![cfg.num_classes + 1, d]);
    tensors
}

/// Those of diffusers' `DiTTransformer2DModel`.
fn diffusers_tensors(cfg: &DitConfig) -> BTreeMap<String, Vec<usize>> {
    let (d, wide) = (cfg.hidden_size, cfg.ff_inner_dim());
    let mut tensors = Tensors::default();
    tensors.layer("pos_embed.proj", &[d, cfg.in_channels, cfg.patch_size, cfg.patch_size]);
    for block in 0..cfg.num_layers {
        let name = |rest: &str| format!("transformer_blocks.{block}.{rest}");
        let table = name("norm1.emb.class_embedder.embedding_table.weight");
        tensors.0.insert(table, vec![cfg.num_classes + 1, d]);
        tensors.layer(&name("norm1.emb.timestep_embedder.linear_1"), &[d, 256]);
        tensors.layer(&name("norm1.emb.timestep_embedder.linear_2"), &[d, d]);
        tensors.layer(&name("norm1.linear"), &[6 * d, d]);
        for part in ["to_q", "to_k", "to_v", "to_out.0"] {
            tensors.layer(&name(&format!("attn1.{part}")), &[d, d]);
        }
        tensors.layer(&name("ff.net.0.proj"), &[wide, d]);
        tensors.layer(&name("ff.net.2"), &[d, wide]);
    }
    tensors.layer("proj_out_1", &[2 * d, d]);
    let channels = cfg.patch_size * cfg.patch_size * cfg.out_channels();
    tensors.layer("proj_out_2", &[channels, d]);
    tensors.0
}
