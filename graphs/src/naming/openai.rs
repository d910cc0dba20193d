//! The names of OpenAI's CLIP, which OpenCLIP and Chinese-CLIP keep, and with them the encoder that
//! Tencent ships beside its IP-Adapter.

use super::Rows::{All, Part, Transposed};
use super::{Rule, moved};

/// A tensor that every image encoder with these names has.
pub(super) const ANCHOR: &str = "visual.class_embedding";

pub(super) const RULES: &[Rule] = &[
    moved("visual.class_embedding", &[("vision_model.embeddings.class_embedding", All)]),
    moved(
        "visual.positional_embedding",
        &[("vision_model.embeddings.position_embedding.weight", All)],
    ),
    moved("visual.conv1.", &[("vision_model.embeddings.patch_embedding.", All)]),
    // The spelling is that of transformers.
    moved("visual.ln_pre.", &[("vision_model.pre_layrnorm.", All)]),
    moved("visual.ln_post.", &[("vision_model.post_layernorm.", All)]),
    moved("visual.proj", &[("visual_projection.weight", Transposed)]),
    moved(
        "visual.transformer.resblocks.*.ln_1.",
        &[("vision_model.encoder.layers.*.layer_norm1.", All)],
    ),
    moved(
        "visual.transformer.resblocks.*.ln_2.",
        &[("vision_model.encoder.layers.*.layer_norm2.", All)],
    ),
    moved(
        "visual.transformer.resblocks.*.attn.in_proj_",
        &[
            ("vision_model.encoder.layers.*.self_attn.q_proj.", Part(0, 3)),
            ("vision_model.encoder.layers.*.self_attn.k_proj.", Part(1, 3)),
            ("vision_model.encoder.layers.*.self_attn.v_proj.", Part(2, 3)),
        ],
    ),
    moved(
        "visual.transformer.resblocks.*.attn.out_proj.",
        &[("vision_model.encoder.layers.*.self_attn.out_proj.", All)],
    ),
    moved(
        "visual.transformer.resblocks.*.mlp.c_fc.",
        &[("vision_model.encoder.layers.*.mlp.fc1.", All)],
    ),
    moved(
        "visual.transformer.resblocks.*.mlp.c_proj.",
        &[("vision_model.encoder.layers.*.mlp.fc2.", All)],
    ),
];
