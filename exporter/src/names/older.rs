//! Names that diffusers and transformers gave in earlier versions, or give when asked to.

use super::Rows::All;
use super::{KV, QKV, Rule, moved};

/// Projections that `fuse_qkv_projections` of diffusers joined.
pub(super) const TRANSFORMER: &[Rule] =
    &[moved("blocks.*.attn1.to_qkv.", QKV), moved("blocks.*.attn2.to_kv.", KV)];

pub(super) const T5: &[Rule] = &[moved("encoder.embed_tokens.", &[("shared.", All)])];

pub(super) const VAE: &[Rule] = &[
    moved(
        "decoder.mid_block.attentions.*.query.",
        &[("decoder.mid_block.attentions.*.to_q.", All)],
    ),
    moved("decoder.mid_block.attentions.*.key.", &[("decoder.mid_block.attentions.*.to_k.", All)]),
    moved(
        "decoder.mid_block.attentions.*.value.",
        &[("decoder.mid_block.attentions.*.to_v.", All)],
    ),
    moved(
        "decoder.mid_block.attentions.*.proj_attn.",
        &[("decoder.mid_block.attentions.*.to_out.0.", All)],
    ),
];

/// BERT's norms in its first years, as TensorFlow calls them.
pub(super) fn bert(name: &str) -> String {
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(stem), _) => format!("{stem}LayerNorm.weight"),
        (_, Some(stem)) => format!("{stem}LayerNorm.bias"),
        _ => name.to_string(),
    }
}
