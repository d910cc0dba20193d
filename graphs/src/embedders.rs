//! The embedders that surround the blocks: patches, timestep, prompt. Follows diffusers'
//! `PatchEmbed`, `PixArtAlphaTextProjection` and `HunyuanCombinedTimestepTextSizeStyleEmbedding`
//! (`models/embeddings.py`).

use crate::builder::{Graph, Var, Weights};
use crate::config::{HunyuanDitConfig, POOLER_HEADS};
use crate::tensor::DType;

/// Epsilon of every layer norm of the transformer.
pub(crate) const EPS: f32 = 1e-6;

/// Width of the sinusoid of a number.
const SINUSOID: usize = 256;

pub(crate) struct Embedders<'c, 'g> {
    cfg: &'c HunyuanDitConfig,
    w: Weights<'g>,
}

impl<'c, 'g> Embedders<'c, 'g> {
    pub(crate) fn new(cfg: &'c HunyuanDitConfig, graph: &'g Graph) -> Embedders<'c, 'g> {
        Embedders { cfg, w: graph.root() }
    }

    /// `PatchEmbed` without positions: `[b, c, h, w]` -> `[b, tokens, hidden]`.
    pub(crate) fn patches(&self, latents: Var<'g>) -> Var<'g> {
        let (d, p) = (self.cfg.hidden_size, self.cfg.patch_size);
        let patches = latents.conv2d(&self.w, "pos_embed.proj", d, p, p);
        patches.reshape([0, d as i64, -1]).transpose([0, 2, 1])
    }

    /// `TimestepEmbedding` of the sinusoid: `[b]` -> `[b, hidden]` in fp32.
    pub(crate) fn timestep(&self, timestep: Var<'g>) -> Var<'g> {
        let d = self.cfg.hidden_size;
        let w = self.w.pp("time_extra_emb.timestep_embedder");
        let x = sinusoid(timestep, 0).linear(&w, "linear_1", d).silu().linear(&w, "linear_2", d);
        x.cast(DType::F32)
    }

    /// Joins the states of BERT and the projected ones of T5, and replaces padding by the learned
    /// one: `[b, text_len + text_len_t5, cross]`.
    pub(crate) fn text_states(&self, bert: Var<'g>, t5: Var<'g>, mask: Var<'g>) -> Var<'g> {
        let [cross, cross_t5] = [self.cfg.cross_attention_dim, self.cfg.cross_attention_dim_t5];
        let t5 = projection(&self.w.pp("text_embedder"), t5, 4 * cross_t5, cross);
        let compute = t5.dtype();
        let states = bert.cast(compute).concat(&[t5], 1);
        let len = self.cfg.text_len + self.cfg.text_len_t5;
        let padding = self.w.tensor("text_embedding_padding", &[len, cross], compute);
        mask.cast(DType::Bool).unsqueeze([2]).choose(states, padding)
    }

    /// Condenses the prompt, and up to v1.1 size and style, into one vector `[b, hidden]` in fp32.
    pub(crate) fn extra(&self, t5: Var<'g>, style: Option<(Var<'g>, Var<'g>)>) -> Var<'g> {
        let d = self.cfg.hidden_size;
        let w = self.w.pp("time_extra_emb");
        let pooled = self.pooler(&w.pp("pooler"), t5);
        let x = match style {
            None => pooled,
            Some((size, style)) => {
                let size = sinusoid(size.reshape([-1]), 0).reshape([-1, 6 * SINUSOID as i64]);
                let style = style.embedding(&w, "style_embedder", 1, d);
                pooled.concat(&[size.cast(pooled.dtype()), style], 1)
            }
        };
        projection(&w.pp("extra_embedder"), x, 4 * d, d).cast(DType::F32)
    }

    /// `HunyuanDiTAttentionPool`: the mean token attends to itself and all tokens, padding
    /// included, as in the reference.
    fn pooler(&self, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
        let _scope = w.enter();
        let d = self.cfg.cross_attention_dim_t5;
        let len = self.cfg.text_len_t5 + 1;
        let positions = w.tensor("positional_embedding", &[len, d], DType::F32);
        let x = x.mean(1).concat(&[x], 1) + positions;
        let heads = |x: Var<'g>, name: &str| x.linear(w, name, d).split_heads(POOLER_HEADS);
        let q = heads(x.slice(1, 0, 1), "q_proj");
        let scale = 1.0 / ((d / POOLER_HEADS) as f32).sqrt();
        let pooled = q.attend(heads(x, "k_proj"), heads(x, "v_proj"), scale, None).join_heads();
        pooled.linear(w, "c_proj", self.cfg.pooled_projection_dim).squeeze(1)
    }
}

/// `PixArtAlphaTextProjection` with `silu_fp32`.
fn projection<'g>(w: &Weights<'g>, x: Var<'g>, hidden: usize, out: usize) -> Var<'g> {
    x.linear(w, "linear_1", hidden).silu().linear(w, "linear_2", out)
}

/// `Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=shift)`: `[b]` -> `[b, 256]`, cosines
/// first, fp32.
pub(crate) fn sinusoid(t: Var<'_>, shift: usize) -> Var<'_> {
    let half = SINUSOID / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| -(10000f64.ln() as f32) * i as f32 / (half - shift) as f32)
        .map(|exponent| f64::from(exponent).exp() as f32)
        .collect();
    let angles = t.unsqueeze([1]) * t.graph.floats("frequencies", &[1, half], &frequencies);
    angles.cos().concat(&[angles.sin()], 1)
}
