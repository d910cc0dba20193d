//! Tencent's names of the transformer, in which its own code, ComfyUI and trainers store it. The
//! rules are those of diffusers' `convert_hunyuandit_to_diffusers.py`.

use super::Rows::{All, First, Part, SwappedHalves};
use super::{KV, QKV, Rule, moved};

/// A tensor that every transformer with these names has.
pub(super) const ANCHOR: &str = "x_embedder.proj.weight";

pub(super) const RULES: &[Rule] = &[
    moved("blocks.*.attn1.Wqkv.", QKV),
    moved("blocks.*.attn1.q_norm.", &[("blocks.*.attn1.norm_q.", All)]),
    moved("blocks.*.attn1.k_norm.", &[("blocks.*.attn1.norm_k.", All)]),
    moved("blocks.*.attn1.out_proj.", &[("blocks.*.attn1.to_out.0.", All)]),
    moved("blocks.*.attn2.q_proj.", &[("blocks.*.attn2.to_q.", All)]),
    moved("blocks.*.attn2.kv_proj.", KV),
    moved("blocks.*.attn2.q_norm.", &[("blocks.*.attn2.norm_q.", All)]),
    moved("blocks.*.attn2.k_norm.", &[("blocks.*.attn2.norm_k.", All)]),
    moved("blocks.*.attn2.out_proj.", &[("blocks.*.attn2.to_out.0.", All)]),
    moved("blocks.*.norm1.", &[("blocks.*.norm1.norm.", All)]),
    moved("blocks.*.default_modulation.1.", &[("blocks.*.norm1.linear.", All)]),
    // The same two names, the other way round: diffusers counts norms in the order of their use.
    moved("blocks.*.norm2.", &[("blocks.*.norm3.", All)]),
    moved("blocks.*.norm3.", &[("blocks.*.norm2.", All)]),
    moved("blocks.*.mlp.fc1.", &[("blocks.*.ff.net.0.proj.", All)]),
    moved("blocks.*.mlp.fc2.", &[("blocks.*.ff.net.2.", All)]),
    moved("x_embedder.", &[("pos_embed.", All)]),
    moved("t_embedder.mlp.0.", &[("time_extra_emb.timestep_embedder.linear_1.", All)]),
    moved("t_embedder.mlp.2.", &[("time_extra_emb.timestep_embedder.linear_2.", All)]),
    moved("mlp_t5.0.", &[("text_embedder.linear_1.", All)]),
    moved("mlp_t5.2.", &[("text_embedder.linear_2.", All)]),
    moved("pooler.", &[("time_extra_emb.pooler.", All)]),
    moved("extra_embedder.0.", &[("time_extra_emb.extra_embedder.linear_1.", All)]),
    moved("extra_embedder.2.", &[("time_extra_emb.extra_embedder.linear_2.", All)]),
    moved("style_embedder.", &[("time_extra_emb.style_embedder.", First)]),
    // Shift and scale there, scale and shift in diffusers.
    moved("final_layer.adaLN_modulation.1.", &[("norm_out.linear.", SwappedHalves)]),
    moved("final_layer.linear.", &[("proj_out.", All)]),
    // Those of a ControlNet.
    moved("before_proj.", &[("input_block.", All)]),
    moved("after_proj_list.*.", &[("controlnet_blocks.*.", All)]),
];

/// A tensor that every IP-Adapter has.
pub(super) const IP_ADAPTER_ANCHOR: &str = "blocks.0.attn2.k_norm_ip_adapter.weight";

/// The names of an IP-Adapter, and those that diffusers gives to such parts of other models.
pub(super) const IP_ADAPTER: &[Rule] = &[
    moved(
        "blocks.*.attn2.kv_proj_ip_adapter.",
        &[("blocks.*.attn2.to_k_ip.", Part(0, 2)), ("blocks.*.attn2.to_v_ip.", Part(1, 2))],
    ),
    moved("blocks.*.attn2.k_norm_ip_adapter.", &[("blocks.*.attn2.norm_k_ip.", All)]),
    moved("ip_adapter_clip_len_trans_block.", &[("image_projection.image_embeds.", All)]),
    moved("ip_adapter_img_norm_cond.", &[("image_projection.norm.", All)]),
];
