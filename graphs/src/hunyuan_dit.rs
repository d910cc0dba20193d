//! The diffusion transformer, cut for Skip-Cache. Follows `HunyuanDiT2DModel` of diffusers
//! (`models/transformers/hunyuan_transformer_2d.py`), whose weight names are used throughout.
//!
//! The blocks are written once; the graphs are ranges of one loop. With cache branch `n`
//! (Skip-DiT's `cache_at_branch`) the shallow encoder runs blocks `0..n`, the deep core
//! `n..depth - n`, the shallow decoder the rest. Long skips go from block `l` to block
//! `depth - 1 - l`, so the core's own never leave it, and its one output is what the cache keeps.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::HunyuanDitConfig;
use crate::control;
use crate::dim::{Dim, Symbol};
use crate::embedders::{EPS, Embedders};
use crate::ip_adapter::ImagePrompt;
use crate::lora::stacks;
use crate::nn::Rope;
use crate::options::GraphOptions;
use crate::pag;
use crate::tensor::DType;

/// Builds the conditioner: everything that depends on the prompt only. It runs once per request.
///
/// Inputs: `encoder_hidden_states` `[b, text_len, cross]` and `encoder_hidden_states_t5`
/// `[b, text_len_t5, cross_t5]` with their masks `text_embedding_mask` and
/// `text_embedding_mask_t5`; up to v1.1 also `image_meta_size` `[b, 6]` and `style` `[b]`.
/// Outputs: `text_states` `[b, text_len + text_len_t5, cross]`, `extra` `[b, hidden]`.
pub fn conditioner(cfg: &HunyuanDitConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("conditioner", options);
    condition(cfg, &graph);
    graph.finish()
}

/// What the [`conditioner`] consists of.
pub(crate) fn condition(cfg: &HunyuanDitConfig, graph: &Graph) {
    let b = Dim::from(Symbol::Batch);
    let embedders = Embedders::new(cfg, graph);
    let states = |name: &str, len: usize, width: usize| {
        graph.input(name, DType::F32, &[b, len.into(), width.into()])
    };
    let mask = |name: &str, len: usize| graph.input(name, DType::I64, &[b, len.into()]);

    let bert = states("encoder_hidden_states", cfg.text_len, cfg.cross_attention_dim);
    let bert_mask = mask("text_embedding_mask", cfg.text_len);
    let t5 = states("encoder_hidden_states_t5", cfg.text_len_t5, cfg.cross_attention_dim_t5);
    let t5_mask = mask("text_embedding_mask_t5", cfg.text_len_t5);
    let style = cfg.use_style_cond_and_image_meta_size.then(|| {
        let size = graph.input("image_meta_size", DType::F32, &[b, 6.into()]);
        (size, graph.input("style", DType::I64, &[b]))
    });

    if graph.options().lora_slots {
        graph.declare_slots(&stacks("conditioner", cfg, 1));
    }
    graph.output("text_states", embedders.text_states(bert, t5, bert_mask.concat(&[t5_mask], 1)));
    graph.output("extra", embedders.extra(t5, style));
}

/// Builds the shallow encoder: patches, timestep and blocks `0..n`. It runs at every step.
///
/// Inputs: `latents` `[b, c, p * grid_height, p * grid_width]`, `timestep` `[b]`, `extra`
/// `[b, hidden]`, `text_states` `[b, text_len + text_len_t5, cross]`, and the rotary tables `cos`
/// and `sin` `[grid_height, grid_width, head_dim]`. Outputs: `skip_0` .. `skip_{n - 1}`
/// `[b, tokens, hidden]`, `temb` `[b, hidden]`.
pub fn shallow_encoder(
    cfg: &HunyuanDitConfig,
    n: usize,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new("shallow-encoder", options);
    let (x, temb) = embed(cfg, &graph);
    let model = Model::new(cfg, &graph, n, temb);
    let mut skips = Vec::new();
    model.blocks(0..n, x, &mut skips);
    for (i, skip) in skips.iter().enumerate() {
        graph.output(&skip_name(i), *skip);
    }
    graph.output("temb", temb);
    graph.finish()
}

/// Builds the deep core: blocks `n..depth - n`. It runs at refresh steps only.
///
/// Inputs: `skip_{n - 1}`, which is the output of the encoder's last block, `temb`, `text_states`,
/// `cos`, `sin`, with shapes as for [`shallow_encoder`]; and the [controls](control) of its own long
/// skips, in a graph that has them.
/// Output: `deep` `[b, tokens, hidden]`, the one tensor that is cached. Like the skips it is fp32 in
/// every precision.
pub fn deep_core(cfg: &HunyuanDitConfig, n: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("deep-core", options);
    let x = tokens_input(cfg, &graph, &skip_name(n - 1));
    let model = Model::new(cfg, &graph, n, temb_input(cfg, &graph));
    graph.output("deep", model.blocks(n..cfg.num_layers - n, x, &mut Vec::new()));
    graph.finish()
}

/// Builds the shallow decoder: blocks `depth - n..depth`, the final layer and unpatchify. It runs
/// at every step.
///
/// Inputs: `deep` `[b, tokens, hidden]`, `skip_0` .. `skip_{n - 1}`, `temb`, `text_states`, `cos`,
/// `sin`, with shapes as for [`shallow_encoder`]; and the [controls](control) of these skips, in a
/// graph that has them.
/// Output: `noise_pred` `[b, out_channels, p * grid_height, p * grid_width]` in fp32.
pub fn shallow_decoder(
    cfg: &HunyuanDitConfig,
    n: usize,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new("shallow-decoder", options);
    let deep = tokens_input(cfg, &graph, "deep");
    let mut skips = (0..n).map(|i| tokens_input(cfg, &graph, &skip_name(i))).collect();
    let model = Model::new(cfg, &graph, n, temb_input(cfg, &graph));
    let x = model.blocks(cfg.num_layers - n..cfg.num_layers, deep, &mut skips);
    graph.output("noise_pred", model.final_layer(x));
    graph.finish()
}

/// Builds encoder, core and decoder as one graph, for comparison and for runs without a cache. It
/// has the inputs of [`shallow_encoder`], those of its controls, and the output of
/// [`shallow_decoder`].
pub fn full(cfg: &HunyuanDitConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("full", options);
    let (x, temb) = embed(cfg, &graph);
    let model = Model::new(cfg, &graph, 1, temb);
    let x = model.blocks(0..cfg.num_layers, x, &mut Vec::new());
    graph.output("noise_pred", model.final_layer(x));
    graph.finish()
}

/// The blocks that the graph `graph` of a transformer that is cut at `n` has; none, of other graphs.
pub(crate) fn blocks_of(graph: &str, cfg: &HunyuanDitConfig, n: usize) -> Range<usize> {
    let depth = cfg.num_layers;
    match graph {
        "shallow-encoder" => 0..n,
        "deep-core" => n..depth - n,
        "shallow-decoder" => depth - n..depth,
        "full" => 0..depth,
        _ => 0..0,
    }
}

/// The name of block `i`'s output where it is an output or an input of a graph.
pub fn skip_name(i: usize) -> String {
    format!("skip_{i}")
}

/// Declares what a step begins with; gives the patches of the latents and the timestep's embedding
/// with the condition.
pub(crate) fn embed<'g>(cfg: &HunyuanDitConfig, graph: &'g Graph) -> (Var<'g>, Var<'g>) {
    let b = Dim::from(Symbol::Batch);
    let patch = Dim::from(cfg.patch_size);
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth].map(|side| patch * side.into());
    let latents = graph.input("latents", DType::F32, &[b, cfg.in_channels.into(), height, width]);
    let timestep = graph.input("timestep", DType::F32, &[b]);
    let extra = graph.input("extra", DType::F32, &[b, cfg.hidden_size.into()]);
    let embedders = Embedders::new(cfg, graph);
    (embedders.patches(latents).cast(DType::F32), embedders.timestep(timestep) + extra)
}

pub(crate) fn tokens_input<'g>(cfg: &HunyuanDitConfig, graph: &'g Graph, name: &str) -> Var<'g> {
    let shape = [Symbol::Batch.into(), Dim::tokens(), cfg.hidden_size.into()];
    graph.input(name, DType::F32, &shape)
}

pub(crate) fn temb_input<'g>(cfg: &HunyuanDitConfig, graph: &'g Graph) -> Var<'g> {
    graph.input("temb", DType::F32, &[Symbol::Batch.into(), cfg.hidden_size.into()])
}

/// The values and the config that all blocks of one graph share.
pub(crate) struct Model<'c, 'g> {
    pub cfg: &'c HunyuanDitConfig,
    pub w: Weights<'g>,
    temb: Var<'g>,
    text_states: Var<'g>,
    grid: Var<'g>,
    rope: Rope<'g>,
    /// What is added to the long skips of blocks, by block.
    controls: BTreeMap<usize, Var<'g>>,
    image: Option<ImagePrompt<'g>>,
    /// `[b, 1, 1]`, true for rows that are perturbed; `None` where no block can be.
    perturb: Option<Var<'g>>,
}

impl<'c, 'g> Model<'c, 'g> {
    /// Declares the inputs `text_states`, `cos` and `sin`, and the controls, the image prompt, the
    /// slots and the perturbed rows of a graph that has them.
    pub fn new(
        cfg: &'c HunyuanDitConfig,
        graph: &'g Graph,
        n: usize,
        temb: Var<'g>,
    ) -> Model<'c, 'g> {
        let text_len = (cfg.text_len + cfg.text_len_t5).into();
        let text_shape = [Symbol::Batch.into(), text_len, cfg.cross_attention_dim.into()];
        let text_states = graph.input("text_states", graph.compute(), &text_shape);
        let grid_shape =
            [Symbol::GridHeight.into(), Symbol::GridWidth.into(), cfg.attention_head_dim.into()];
        let cos = graph.input("cos", DType::F32, &grid_shape);
        let sin = graph.input("sin", DType::F32, &grid_shape);
        let image = graph.options().ip_adapter.then(|| ImagePrompt::new(cfg, graph));
        let controls = control::inputs(graph, cfg, n);
        if graph.options().lora_slots {
            graph.declare_slots(&stacks(graph.name(), cfg, n));
        }
        let pag_layers = graph.options().pag_layers;
        let perturb = pag_layers.is_read_by(graph.name(), cfg, n).then(|| {
            let rows = graph.input(pag::INPUT, DType::F32, &[Symbol::Batch.into()]);
            rows.cast(DType::Bool).unsqueeze([1, 2])
        });
        let rope = Rope::new(cos, sin);
        let (w, temb) = (graph.root(), temb.silu());
        Model { cfg, w, temb, text_states, grid: cos, rope, controls, image, perturb }
    }

    /// Runs the blocks of `range`; the first half pushes the long skips, the second pops them.
    pub fn blocks(&self, range: Range<usize>, mut x: Var<'g>, skips: &mut Vec<Var<'g>>) -> Var<'g> {
        let half = self.cfg.num_layers / 2;
        for layer in range {
            let skip = (layer > half).then(|| {
                let skip = skips.pop().expect("one skip per block");
                match self.controls.get(&(self.cfg.num_layers - 1 - layer)) {
                    Some(control) => skip.plus_spread(*control),
                    None => skip,
                }
            });
            let pag_layers = self.w.graph.options().pag_layers;
            let perturb = self.perturb.filter(|_| pag_layers.contains(layer));
            x = self.block(&self.w.pp("blocks").pp(layer), x, skip, perturb);
            if layer + 1 < half {
                skips.push(x);
            }
        }
        x
    }

    /// `HunyuanDiTBlock.forward`. The residual stream `x` and the skips stay in fp32 in every
    /// precision: sums of what several layers make are larger than what one makes, and in v1.2 the
    /// last deep block is where fp16 ends (Tencent-Hunyuan/HunyuanDiT issue 214).
    fn block(
        &self,
        w: &Weights<'g>,
        x: Var<'g>,
        skip: Option<Var<'g>>,
        perturb: Option<Var<'g>>,
    ) -> Var<'g> {
        let _scope = w.enter();
        let (d, wide, compute) = (self.cfg.hidden_size, DType::F32, w.graph.compute());
        let normed = |x: Var<'g>, name| x.layer_norm(w, name, EPS).cast(compute);
        // 0. Long skip connection
        let x = match skip {
            Some(skip) => {
                normed(x.concat(&[skip], 2), "skip_norm").linear(w, "skip_linear", d).cast(wide)
            }
            None => x,
        };
        // 1. Self-attention
        let shift = self.temb.linear(w, "norm1.linear", d).unsqueeze([1]);
        let shifted = normed(x, "norm1.norm") + shift;
        let x = x + self.attention(&w.pp("attn1"), shifted, None, perturb).cast(wide);
        // 2. Cross-attention
        let text = Some(self.text_states);
        let x = x + self.attention(&w.pp("attn2"), normed(x, "norm2"), text, None).cast(wide);
        // 3. Feed-forward
        let ff = normed(x, "norm3").linear(w, "ff.net.0.proj", self.cfg.ff_inner_dim());
        x + ff.gelu("tanh").linear(w, "ff.net.2", d).cast(wide)
    }

    /// `HunyuanAttnProcessor2_0`: attends to `text` and the image prompt, or else to `x` itself. `q`
    /// and `k` stay in fp32 from their norm through the rotary embedding. Of the rows that `perturb`
    /// names the values are given as they are.
    fn attention(
        &self,
        w: &Weights<'g>,
        x: Var<'g>,
        text: Option<Var<'g>>,
        perturb: Option<Var<'g>>,
    ) -> Var<'g> {
        let _scope = w.enter();
        let [d, heads] = [self.cfg.hidden_size, self.cfg.num_attention_heads];
        let states = text.unwrap_or(x);
        let wide = |x: Var<'g>, name| x.linear(w, name, d).split_heads(heads).cast(DType::F32);
        let q = wide(x, "to_q").layer_norm(w, "norm_q", EPS);
        let k = wide(states, "to_k").layer_norm(w, "norm_k", EPS);
        let values = states.linear(w, "to_v", d);
        let v = values.split_heads(heads);
        let q = self.rope.rotate(q);
        // Text has no position in the image.
        let k = if text.is_none() { self.rope.rotate(k) } else { k };
        let scale = 1.0 / (self.cfg.attention_head_dim as f32).sqrt();
        let attended = q.attend(k, v, scale, None);
        let attended = match self.image {
            Some(image) if text.is_some() => attended + image.attended(w, q, heads, scale),
            _ => attended,
        };
        let attended = attended.join_heads();
        let attended = match perturb {
            Some(rows) => rows.choose(values, attended),
            None => attended,
        };
        attended.linear(w, "to_out.0", d)
    }

    /// `AdaLayerNormContinuous`, `proj_out`, unpatchify: `[b, tokens, hidden]` to latents' shape.
    fn final_layer(&self, x: Var<'g>) -> Var<'g> {
        let (d, p) = (self.cfg.hidden_size, self.cfg.patch_size);
        let scale_shift = self.temb.linear(&self.w, "norm_out.linear", 2 * d).unsqueeze([1]);
        let (scale, shift) = (scale_shift.slice(2, 0, d), scale_shift.slice(2, d, 2 * d));
        let normed = x.plain_layer_norm(EPS).cast(x.graph.compute());
        let x = normed * (scale + 1.0) + shift;
        let x = x.linear(&self.w, "proj_out", p * p * self.cfg.out_channels()).cast(DType::F32);
        x.transpose([0, 2, 1]).unflatten_like(self.grid).depth_to_space(p)
    }
}
