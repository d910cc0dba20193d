//! The second text encoder: `T5EncoderModel` of transformers (`models/t5/modeling_t5.py`), which
//! mT5 is too.

use crate::bert::padding_bias;
use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::{FeedForward, T5Config};
use crate::dim::{Dim, Symbol};
use crate::options::GraphOptions;
use crate::tensor::DType;

/// Builds the second text encoder for prompts of `len` tokens.
///
/// Inputs: `input_ids` and `attention_mask` `[b, len]`. Output: `last_hidden_state`
/// `[b, len, d_model]` in fp32.
///
/// The residual stream and `wo` stay in fp32 when the graph computes in fp16, where T5 overflows.
pub fn text_encoder_2(cfg: &T5Config, len: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("text-encoder-2", options);
    let shape = [Dim::from(Symbol::Batch), len.into()];
    let ids = graph.input("input_ids", DType::I64, &shape);
    let mask = padding_bias(graph.input("attention_mask", DType::I64, &shape));

    let w = graph.root();
    let bias = position_bias(cfg, &w.pp("encoder.block.0.layer.0.SelfAttention"), len) + mask;
    let mut x = ids.embedding(&w, "shared", cfg.vocab_size, cfg.d_model).cast(DType::F32);
    for block in 0..cfg.num_layers {
        let w = w.pp("encoder.block").pp(block);
        let _scope = w.enter();
        let w = w.pp("layer");
        x = x + self_attention(cfg, &w.pp("0"), x, bias);
        x = x + feed_forward(cfg, &w.pp("1"), x);
    }
    let x = x.rms_norm(&w, "encoder.final_layer_norm", cfg.layer_norm_epsilon);
    graph.output("last_hidden_state", x);
    graph.finish()
}

/// `T5LayerSelfAttention`; T5 does not scale its scores.
fn self_attention<'g>(cfg: &T5Config, w: &Weights<'g>, x: Var<'g>, bias: Var<'g>) -> Var<'g> {
    let _scope = w.enter();
    let x = x.rms_norm(w, "layer_norm", cfg.layer_norm_epsilon);
    let w = w.pp("SelfAttention");
    let inner = cfg.num_heads * cfg.d_kv;
    let split = |name: &str| x.linear_no_bias(&w, name, inner).split_heads(cfg.num_heads);
    let y = split("q").attend(split("k"), split("v"), 1.0, Some(bias)).join_heads();
    y.linear_no_bias(&w, "o", cfg.d_model).cast(DType::F32)
}

/// `T5LayerFF`
fn feed_forward<'g>(cfg: &T5Config, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
    let _scope = w.enter();
    let x = x.rms_norm(w, "layer_norm", cfg.layer_norm_epsilon);
    let w = w.pp("DenseReluDense");
    let wide = |name: &str| x.linear_no_bias(&w, name, cfg.d_ff).cast(DType::F32);
    let hidden = match cfg.feed_forward_proj {
        FeedForward::GatedGelu => wide("wi_0").gelu("tanh") * wide("wi_1"),
        FeedForward::GatedSilu => wide("wi_0").silu() * wide("wi_1"),
        FeedForward::Relu => wide("wi").relu(),
    };
    hidden.linear_in_fp32(&w, "wo", cfg.d_model)
}

/// `T5Attention.compute_bias`: `[1, heads, len, len]` in fp32.
fn position_bias<'g>(cfg: &T5Config, w: &Weights<'g>, len: usize) -> Var<'g> {
    let _scope = w.enter();
    let buckets: Vec<i64> = (0..len as i64)
        .flat_map(|query| (0..len as i64).map(move |key| key - query))
        .map(|distance| bucket(distance, cfg))
        .collect();
    let shape = [cfg.relative_attention_num_buckets, cfg.num_heads];
    let bias = w.tensor("relative_attention_bias.weight", &shape, DType::F32);
    let buckets = w.graph.ints("relative_position_buckets", &[len, len], &buckets);
    bias.gather(buckets, 0).transpose([2, 0, 1]).unsqueeze([0])
}

/// `T5Attention._relative_position_bucket`, bidirectional: half of the buckets for each
/// direction, of which half for exact distances and half growing logarithmically (in f32, as the
/// reference).
fn bucket(distance: i64, cfg: &T5Config) -> i64 {
    let buckets = cfg.relative_attention_num_buckets as i64 / 2;
    let exact = buckets / 2;
    let side = if distance > 0 { buckets } else { 0 };
    let distance = distance.abs();
    if distance < exact {
        return side + distance;
    }
    let scale = (cfg.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
    let far = (distance as f32 / exact as f32).ln() / scale * (buckets - exact) as f32;
    side + (exact + far as i64).min(buckets - 1)
}
