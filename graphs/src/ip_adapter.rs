//! Image prompts: what an IP-Adapter adds to the cross attention of every block.
//!
//! Follows Tencent's `HunYuanDiT` with `is_ipa` (`hydit/modules/models.py`, `attn_layers.py`): the
//! tokens of an image are attended to beside those of the text, by the same queries and with keys and
//! values of their own, and both results are added before the output's projection. As in its flash
//! attention, the scores are scaled by `1 / sqrt(head_dim)`; its path for PyTorch 2 forgets that.

use crate::builder::{Graph, Var, Weights};
use crate::config::HunyuanDitConfig;
use crate::dim::{Dim, Symbol};
use crate::embedders::EPS;
use crate::moves::MANY;
use crate::tensor::{DType, TensorSpec};

/// The inputs that a graph has for image prompts: `image_states` `[b, image_tokens, cross]`, of one
/// token where there is no image, and `image_scale` `[b]`, the weight of what it adds.
pub fn inputs(cfg: &HunyuanDitConfig, compute: DType) -> [TensorSpec; 2] {
    let b = Dim::from(Symbol::Batch);
    let states = vec![b, Symbol::ImageTokens.into(), cfg.cross_attention_dim.into()];
    let spec = |name: &str, dtype, shape| TensorSpec { name: name.to_string(), dtype, shape };
    [spec("image_states", compute, states), spec("image_scale", DType::F32, vec![b])]
}

/// An image prompt, as the blocks of a graph read it.
#[derive(Clone, Copy)]
pub(crate) struct ImagePrompt<'g> {
    states: Var<'g>,
    /// `[b, 1, 1, 1]`
    scale: Var<'g>,
    /// How many queries attend: all, or one where there is no image.
    queries: Var<'g>,
}

impl<'g> ImagePrompt<'g> {
    /// Declares the [inputs].
    pub fn new(cfg: &HunyuanDitConfig, graph: &'g Graph) -> ImagePrompt<'g> {
        let [states, scale] = inputs(cfg, graph.compute())
            .map(|spec| graph.input(&spec.name, spec.dtype, &spec.shape));
        let scale = scale.unsqueeze([1, 2, 3]).cast(graph.compute());
        let others = states.size(1) + graph.list(&[-1]);
        let queries = others * graph.list(&[MANY]) + graph.list(&[1]);
        ImagePrompt { states, scale, queries }
    }

    /// What is added to the attention of the queries `q` to the text, before `join_heads` and the
    /// output's projection; `scale` is that of the scores. Without an image it is a zero, at the cost
    /// of a row.
    pub fn attended(self, w: &Weights<'g>, q: Var<'g>, heads: usize, scale: f32) -> Var<'g> {
        let d = q.width() * heads;
        let k = self.states.linear(w, "to_k_ip", d).split_heads(heads).cast(DType::F32);
        let v = self.states.linear(w, "to_v_ip", d).split_heads(heads);
        let k = k.layer_norm(w, "norm_k_ip", EPS);
        q.first_queries(self.queries).attend(k, v, scale, None) * self.scale
    }
}
