//! The names of DiT's own code, which Skip-DiT keeps, one `.pt` file of the transformer; and those
//! that diffusers has for a DiT.

use super::Rows::All;
use super::{QKV, Rule, moved};

/// A tensor that every transformer with these names has, and no other.
pub(super) const ANCHOR: &str = "y_embedder.embedding_table.weight";

pub(super) const RULES: &[Rule] = &[
    moved("x_embedder.", &[("pos_embed.", All)]),
    moved("pos_embed", &[("pos_embed.pos_embed", All)]),
    moved("t_embedder.mlp.0.", &[("timestep_embedder.linear_1.", All)]),
    moved("t_embedder.mlp.2.", &[("timestep_embedder.linear_2.", All)]),
    moved("y_embedder.", &[("class_embedder.", All)]),
    moved("blocks.*.adaLN_modulation.1.", &[("blocks.*.norm1.linear.", All)]),
    moved("blocks.*.attn.qkv.", QKV),
    moved("blocks.*.attn.proj.", &[("blocks.*.attn1.to_out.0.", All)]),
    moved("blocks.*.mlp.fc1.", &[("blocks.*.ff.net.0.proj.", All)]),
    moved("blocks.*.mlp.fc2.", &[("blocks.*.ff.net.2.", All)]),
    moved("skip_norms.*.", &[("skips.*.skip_norm.", All)]),
    moved("skip_linears.*.linear.", &[("skips.*.skip_linear.", All)]),
    moved("final_layer.adaLN_modulation.1.", &[("norm_out.linear.", All)]),
    moved("final_layer.linear.", &[("proj_out.", All)]),
];

/// Every block of diffusers' DiT has embedders of its own, which are copies of the first block's.
pub(super) const DIFFUSERS: &[Rule] = &[
    moved("transformer_blocks.0.norm1.emb.", &[("", All)]),
    moved("transformer_blocks.*.", &[("blocks.*.", All)]),
    moved("proj_out_1.", &[("norm_out.linear.", All)]),
    moved("proj_out_2.", &[("proj_out.", All)]),
];
