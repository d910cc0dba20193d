//! The transformer of the goldens, on inputs of any size.

use hydit::pipeline::rope;
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{GraphDef, GraphOptions, hunyuan_dit};

use super::golden::{self, Golden};
use super::synthetic;
use super::tensor::{Tensor, Tensors};

/// One golden per config, with the config.
pub fn configs() -> Vec<(Golden, HunyuanDitConfig)> {
    let mut configs: Vec<(Golden, HunyuanDitConfig)> = Vec::new();
    for golden in golden::all("transformer", "") {
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        if configs.iter().all(|(_, known)| *known != cfg) {
            configs.push((golden, cfg));
        }
    }
    configs
}

/// Cache branches to test.
pub fn branches(cfg: &HunyuanDitConfig) -> std::ops::RangeInclusive<usize> {
    1..=3.min(*cfg.cache_branches().end())
}

/// Encoder, core and decoder of the cut at `n`.
pub fn cut(cfg: &HunyuanDitConfig, n: usize, target: impl Into<GraphOptions>) -> [GraphDef; 3] {
    let target = target.into();
    [
        hunyuan_dit::shallow_encoder(cfg, n, target),
        hunyuan_dit::deep_core(cfg, n, target),
        hunyuan_dit::shallow_decoder(cfg, n, target),
    ]
}

/// Inputs of the shallow encoder for `batch` pictures of `rows` x `columns` tokens.
pub fn inputs(cfg: &HunyuanDitConfig, batch: usize, [rows, columns]: [usize; 2]) -> Tensors {
    let p = cfg.patch_size;
    let latents = [batch, cfg.in_channels, rows * p, columns * p];
    let text = [batch, cfg.text_len + cfg.text_len_t5, cfg.cross_attention_dim];
    let (cos, sin) = rope::tables(rows, columns, cfg.attention_head_dim, RopeConvention::Diffusers);
    let table = |values| Tensor::f32(&[rows, columns, cfg.attention_head_dim], values);
    let times = (0..batch).map(|i| 981.0 - 400.0 * i as f32).collect();
    [
        ("latents", synthetic::floats("latents", &latents, 2.0)),
        ("timestep", Tensor::f32(&[batch], times)),
        ("extra", synthetic::floats("extra", &[batch, cfg.hidden_size], 1.5)),
        ("text_states", synthetic::floats("text_states", &text, 1.5)),
        ("cos", table(cos)),
        ("sin", table(sin)),
    ]
    .map(|(name, tensor)| (name.to_string(), tensor))
    .into()
}
