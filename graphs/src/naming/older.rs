//! Names that diffusers and transformers gave in earlier versions, or give when asked to.

use super::Rows::All;
use super::{KV, QKV, Rule, moved};

/// Projections that `fuse_qkv_projections` of diffusers joined.
pub(super) const TRANSFORMER: &[Rule] =
    &[moved("blocks.*.attn1.to_qkv.", QKV), moved("blocks.*.attn2.to_kv.", KV)];

pub(super) const T5: &[Rule] = &[moved("encoder.embed_tokens.", &[("shared.", All)])];

/// The names below `encoder.` and `decoder.` alike.
pub(super) const VAE: &[Rule] = &[
    moved("mid_block.attentions.*.query.", &[("mid_block.attentions.*.to_q.", All)]),
    moved("mid_block.attentions.*.key.", &[("mid_block.attentions.*.to_k.", All)]),
    moved("mid_block.attentions.*.value.", &[("mid_block.attentions.*.to_v.", All)]),
    moved("mid_block.attentions.*.proj_attn.", &[("mid_block.attentions.*.to_out.0.", All)]),
];

/// BERT's norms in its first years, as TensorFlow calls them.
pub(super) fn bert(name: &str) -> String {
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(stem), _) => format!("{stem}LayerNorm.weight"),
        (_, Some(stem)) => format!("{stem}LayerNorm.bias"),
        _ => name.to_string(),
    }
}
