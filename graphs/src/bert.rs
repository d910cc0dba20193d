//! The first text encoder: `BertModel` of transformers (`models/bert/modeling_bert.py`), last
//! hidden state only.

use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::BertConfig;
use crate::dim::{Dim, Symbol};
use crate::options::GraphOptions;
use crate::tensor::DType;

/// Builds the first text encoder for prompts of `len` tokens.
///
/// Inputs: `input_ids` and `attention_mask` `[b, len]`. Output: `last_hidden_state`
/// `[b, len, hidden]` in fp32.
pub fn text_encoder(cfg: &BertConfig, len: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("text-encoder", options);
    let shape = [Dim::from(Symbol::Batch), len.into()];
    let ids = graph.input("input_ids", DType::I64, &shape);
    let mask = padding_bias(graph.input("attention_mask", DType::I64, &shape));

    let w = graph.root();
    let mut x = embeddings(cfg, &w.pp("embeddings"), ids, len);
    for layer in 0..cfg.num_hidden_layers {
        x = self::layer(cfg, &w.pp("encoder.layer").pp(layer), x, mask);
    }
    graph.output("last_hidden_state", x);
    graph.finish()
}

/// Turns a mask `[b, len]` of 1 and 0 into a bias `[b, 1, 1, len]` of 0 and the lowest number,
/// which is added to attention scores.
pub(crate) fn padding_bias(mask: Var<'_>) -> Var<'_> {
    ((mask.cast(DType::F32) - 1.0) * f32::MAX).unsqueeze([1, 2])
}

/// `BertEmbeddings` with token type 0 throughout.
fn embeddings<'g>(cfg: &BertConfig, w: &Weights<'g>, ids: Var<'g>, len: usize) -> Var<'g> {
    let _scope = w.enter();
    let (d, compute) = (cfg.hidden_size, w.graph.compute());
    let words = ids.embedding(w, "word_embeddings", cfg.vocab_size, d);
    let types = w.tensor("token_type_embeddings.weight", &[cfg.type_vocab_size, d], compute);
    let positions =
        w.tensor("position_embeddings.weight", &[cfg.max_position_embeddings, d], compute);
    let x = words + types.slice(0, 0, 1) + positions.slice(0, 0, len);
    x.cast(DType::F32).layer_norm(w, "LayerNorm", cfg.layer_norm_eps)
}

/// `BertLayer`: the residual stream `x` stays in fp32.
fn layer<'g>(cfg: &BertConfig, w: &Weights<'g>, x: Var<'g>, mask: Var<'g>) -> Var<'g> {
    let _scope = w.enter();
    let d = cfg.hidden_size;
    let attention = self_attention(cfg, &w.pp("attention.self"), x, mask);
    let attention = attention.linear(w, "attention.output.dense", d).cast(DType::F32);
    let x = (attention + x).layer_norm(w, "attention.output.LayerNorm", cfg.layer_norm_eps);
    let hidden = x.linear(w, "intermediate.dense", cfg.intermediate_size).gelu("none");
    let hidden = hidden.linear(w, "output.dense", d).cast(DType::F32);
    (hidden + x).layer_norm(w, "output.LayerNorm", cfg.layer_norm_eps)
}

fn self_attention<'g>(cfg: &BertConfig, w: &Weights<'g>, x: Var<'g>, mask: Var<'g>) -> Var<'g> {
    let [d, heads] = [cfg.hidden_size, cfg.num_attention_heads];
    let split = |name: &str| x.linear(w, name, d).split_heads(heads);
    let scale = 1.0 / ((d / heads) as f32).sqrt();
    split("query").attend(split("key"), split("value"), scale, Some(mask)).join_heads()
}
