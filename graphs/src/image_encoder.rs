//! The encoder of image prompts: `CLIPVisionModelWithProjection` of transformers
//! (`models/clip/modeling_clip.py`), and behind it the projection to tokens of Tencent's IP-Adapter
//! (`hydit/modules/models.py`, `hydit/utils/img_clip_emb.py`).

use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::{Activation, ClipVisionConfig, IpAdapterConfig};
use crate::options::GraphOptions;
use crate::tensor::DType;

/// Epsilon of the norm behind the projection: PyTorch's default.
const EPS: f32 = 1e-5;

/// Builds the image encoder. It runs once per request, for one image.
///
/// Input: `pixel_values` `[1, 3, size, size]` in fp32, normalised. Output: `image_states`
/// `[2, image_tokens, cross]` in fp32: those that the negative prompt gets, which are of an embedding
/// of zeros, and those of the image.
pub fn image_encoder(
    cfg: &IpAdapterConfig,
    cross: usize,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new("image-encoder", options);
    let side = cfg.image_encoder.image_size;
    let pixels = graph.input("pixel_values", DType::F32, &[1, 3, side, side].map(Into::into));
    let w = graph.root();
    let embeds = vision(&cfg.image_encoder, &w, pixels);
    // `image_features / image_features.norm(dim=-1)`
    let square = (embeds * embeds).mean(1) * cfg.image_encoder.projection_dim as f32;
    let embeds = embeds / square.sqrt();
    let embeds = (embeds * 0.0).concat(&[embeds], 0);
    let states = projection(&w.pp("image_projection"), embeds, cfg.image_tokens, cross);
    graph.output("image_states", states);
    graph.finish()
}

/// `[b, projection_dim]` -> `[b, tokens, cross]`.
fn projection<'g>(w: &Weights<'g>, embeds: Var<'g>, tokens: usize, cross: usize) -> Var<'g> {
    let _scope = w.enter();
    let states = embeds.linear(w, "image_embeds", cross * tokens).cast(DType::F32);
    // What is together is a channel of all tokens, not a token.
    let states = states.reshape([0, cross as i64, tokens as i64]).transpose([0, 2, 1]);
    states.layer_norm(w, "norm", EPS)
}

/// `CLIPVisionTransformer` and its projection: `[1, 3, size, size]` -> `[1, projection_dim]`.
fn vision<'g>(cfg: &ClipVisionConfig, w: &Weights<'g>, pixels: Var<'g>) -> Var<'g> {
    let model = w.pp("vision_model");
    let norm = |x: Var<'g>, name| x.layer_norm(&model, name, cfg.layer_norm_eps);
    let mut x = norm(embeddings(cfg, &model.pp("embeddings"), pixels), "pre_layrnorm");
    for layer in 0..cfg.num_hidden_layers {
        x = self::layer(cfg, &model.pp("encoder.layers").pp(layer), x);
    }
    let class = norm(x.slice(1, 0, 1), "post_layernorm").squeeze(1);
    class.linear_no_bias(w, "visual_projection", cfg.projection_dim).cast(DType::F32)
}

/// `CLIPVisionEmbeddings`: the class token, then the patches row by row.
fn embeddings<'g>(cfg: &ClipVisionConfig, w: &Weights<'g>, pixels: Var<'g>) -> Var<'g> {
    let _scope = w.enter();
    let (d, side) = (cfg.hidden_size, cfg.image_size / cfg.patch_size);
    let p = cfg.patch_size;
    let patches = pixels.conv2d_no_bias(w, "patch_embedding", d, p, p).cast(DType::F32);
    let patches = patches.reshape([0, d as i64, -1]).transpose([0, 2, 1]);
    let class = w.tensor("class_embedding", &[d], DType::F32).unsqueeze([0, 1]);
    let positions = w.tensor("position_embedding.weight", &[side * side + 1, d], DType::F32);
    class.concat(&[patches], 1) + positions
}

/// `CLIPEncoderLayer`: the residual stream `x` stays in fp32.
fn layer<'g>(cfg: &ClipVisionConfig, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
    let _scope = w.enter();
    let (d, heads) = (cfg.hidden_size, cfg.num_attention_heads);
    let normed = x.layer_norm(w, "layer_norm1", cfg.layer_norm_eps);
    let split = |name: &str| normed.linear(w, name, d).split_heads(heads);
    let scale = 1.0 / ((d / heads) as f32).sqrt();
    let [q, k, v] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(split);
    let attention = q.attend(k, v, scale, None).join_heads();
    let x = x + attention.linear(w, "self_attn.out_proj", d).cast(DType::F32);
    let normed = x.layer_norm(w, "layer_norm2", cfg.layer_norm_eps);
    let hidden = normed.linear(w, "mlp.fc1", cfg.intermediate_size);
    let hidden = match cfg.hidden_act {
        Activation::QuickGelu => hidden * (hidden * 1.702).sigmoid(),
        Activation::Gelu => hidden.gelu("none"),
    };
    x + hidden.linear(w, "mlp.fc2", d).cast(DType::F32)
}
