//! DiT and Skip-DiT, which draw classes, cut for Skip-Cache. Follows `DiT` of facebookresearch/DiT
//! (`models.py`), diffusers' `DiTTransformer2DModel`, and `DiT_skip` of OpenSparseLLMs/Skip-DiT
//! (`class-to-image/models.py`), a DiT with long skips.
//!
//! The cut is that of [`hunyuan_dit`](crate::hunyuan_dit): the shallow encoder runs blocks `0..n`,
//! the deep core `n..depth - n`, the shallow decoder the rest. With long skips the two blocks in the
//! middle have one too: block `depth / 2` takes the output of the block before it twice. Without
//! them the residual stream itself goes around the core, as `skip_0`, and the core gives what its
//! blocks add to it (the residual of Delta-DiT, arXiv 2406.01125). Positions are those of one grid,
//! so there is one size of pictures, and no grid is an input.

use std::ops::Range;

use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::{DitConfig, DitKind};
use crate::dim::{Dim, Symbol};
use crate::embedders::{EPS, sinusoid};
use crate::hunyuan_dit::skip_name;
use crate::interface::Interface;
use crate::options::GraphOptions;
use crate::tensor::{DType, TensorSpec};

/// What stands before the name of an embedder in that of a block's copy of it, after the block's.
/// diffusers has copies; no graph reads them.
pub const COPIED: &str = ".norm1.emb.";

/// Builds the conditioner: what depends on the class only. It runs once per request.
///
/// Input: `class_labels` `[b]`, of which `num_classes` is no class. Output: `extra` `[b, hidden]`.
pub fn conditioner(cfg: &DitConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("conditioner", options);
    let labels = graph.input("class_labels", DType::I64, &[Symbol::Batch.into()]);
    let w = graph.root().pp("class_embedder");
    let rows = labels.embedding(&w, "embedding_table", cfg.num_classes + 1, cfg.hidden_size);
    graph.output("extra", rows.cast(DType::F32));
    graph.finish()
}

/// Builds the shallow encoder: patches, timestep and blocks `0..n`. It runs at every step.
///
/// Inputs: `latents` `[b, c, side, side]`, `timestep` `[b]`, `extra` `[b, hidden]`. Outputs:
/// `skip_0` .. `skip_{n - 1}` `[b, tokens, hidden]`, of which there is one without long skips, and
/// `temb` `[b, hidden]`.
pub fn shallow_encoder(cfg: &DitConfig, n: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("shallow-encoder", options);
    let (x, temb) = embed(cfg, &graph);
    let mut skips = Vec::new();
    let x = Model::new(cfg, &graph, temb).blocks(0..n, x, &mut skips);
    if !cfg.has_long_skips() {
        skips.push(x);
    }
    for (i, skip) in skips.iter().enumerate() {
        graph.output(&skip_name(i), *skip);
    }
    graph.output("temb", temb);
    graph.finish()
}

/// Builds the deep core: blocks `n..depth - n`. It runs at refresh steps only.
///
/// Inputs: the last of the skips, which is the output of the encoder's last block, and `temb`.
/// Output: `deep` `[b, tokens, hidden]`, the one tensor that is cached, in fp32.
pub fn deep_core(cfg: &DitConfig, n: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("deep-core", options);
    let x = skip_name(cfg.skips(n) - 1);
    let [x, temb] = [tokens(cfg, &x), vector(cfg, "temb")].map(|spec| input(&graph, &spec));
    let model = Model::new(cfg, &graph, temb);
    let deep = model.blocks(n..cfg.num_layers - n, x, &mut Vec::new());
    graph.output("deep", if cfg.has_long_skips() { deep } else { deep - x });
    graph.finish()
}

/// Builds the shallow decoder: blocks `depth - n..depth` and the final layer. It runs at every
/// step.
///
/// Inputs: `deep` `[b, tokens, hidden]`, the skips, `temb`. Output: `noise_pred` `[b, out_channels,
/// side, side]` in fp32.
pub fn shallow_decoder(cfg: &DitConfig, n: usize, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("shallow-decoder", options);
    let deep = input(&graph, &tokens(cfg, "deep"));
    let names = (0..cfg.skips(n)).map(skip_name);
    let mut skips: Vec<Var> = names.map(|name| input(&graph, &tokens(cfg, &name))).collect();
    let model = Model::new(cfg, &graph, input(&graph, &vector(cfg, "temb")));
    let x = if cfg.has_long_skips() { deep } else { skips[0] + deep };
    let x = model.blocks(cfg.num_layers - n..cfg.num_layers, x, &mut skips);
    graph.output("noise_pred", model.final_layer(x));
    graph.finish()
}

/// Builds encoder, core and decoder as one graph, for comparison and for runs without a cache.
pub fn full(cfg: &DitConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = Graph::new("full", options);
    let (x, temb) = embed(cfg, &graph);
    let model = Model::new(cfg, &graph, temb);
    let x = model.blocks(0..cfg.num_layers, x, &mut Vec::new());
    graph.output("noise_pred", model.final_layer(x));
    graph.finish()
}

/// The interface of the graph `name` of a model that is cut at `n`; `None` of graphs that are not
/// the transformer's.
pub(crate) fn interface(name: &str, cfg: &DitConfig, n: usize) -> Option<Interface> {
    let skips = || (0..cfg.skips(n)).map(|i| tokens(cfg, &skip_name(i)));
    let temb = || vector(cfg, "temb");
    let prediction = || vec![latents(cfg, "noise_pred", cfg.out_channels())];
    let (inputs, outputs) = match name {
        "conditioner" => {
            let labels = spec("class_labels", DType::I64, &[Symbol::Batch.into()]);
            (vec![labels], vec![vector(cfg, "extra")])
        }
        "shallow-encoder" => (embedded(cfg), skips().chain([temb()]).collect()),
        "deep-core" => {
            (skips().next_back().into_iter().chain([temb()]).collect(), vec![tokens(cfg, "deep")])
        }
        "shallow-decoder" => (
            [tokens(cfg, "deep")].into_iter().chain(skips()).chain([temb()]).collect(),
            prediction(),
        ),
        "full" => (embedded(cfg), prediction()),
        _ => return None,
    };
    Some(Interface { inputs, outputs })
}

fn spec(name: &str, dtype: DType, shape: &[Dim]) -> TensorSpec {
    TensorSpec { name: name.to_string(), dtype, shape: shape.to_vec() }
}

/// `[b, tokens, hidden]`.
fn tokens(cfg: &DitConfig, name: &str) -> TensorSpec {
    let tokens = cfg.grid() * cfg.grid();
    spec(name, DType::F32, &[Symbol::Batch.into(), tokens.into(), cfg.hidden_size.into()])
}

/// `[b, hidden]`.
fn vector(cfg: &DitConfig, name: &str) -> TensorSpec {
    spec(name, DType::F32, &[Symbol::Batch.into(), cfg.hidden_size.into()])
}

/// `[b, channels, side, side]`.
fn latents(cfg: &DitConfig, name: &str, channels: usize) -> TensorSpec {
    let side = Dim::from(cfg.sample_size);
    spec(name, DType::F32, &[Symbol::Batch.into(), channels.into(), side, side])
}

/// What a step begins with.
fn embedded(cfg: &DitConfig) -> Vec<TensorSpec> {
    let timestep = spec("timestep", DType::F32, &[Symbol::Batch.into()]);
    vec![latents(cfg, "latents", cfg.in_channels), timestep, vector(cfg, "extra")]
}

fn input<'g>(graph: &'g Graph, spec: &TensorSpec) -> Var<'g> {
    graph.input(&spec.name, spec.dtype, &spec.shape)
}

/// Declares what a step begins with; gives the patches of the latents at their positions, and the
/// condition: the timestep's embedding and the class's.
fn embed<'g>(cfg: &DitConfig, graph: &'g Graph) -> (Var<'g>, Var<'g>) {
    let specs = embedded(cfg);
    let [latents, timestep, extra] = [0, 1, 2].map(|i| input(graph, &specs[i]));
    let (w, d, p) = (graph.root(), cfg.hidden_size, cfg.patch_size);
    let patches = latents.conv2d(&w, "pos_embed.proj", d, p, p);
    let patches = patches.reshape([0, d as i64, -1]).transpose([0, 2, 1]).cast(DType::F32);
    let shape = [1, cfg.grid() * cfg.grid(), d];
    let (positions, shift) = match cfg.kind {
        DitKind::Diffusers => (graph.floats("positions", &shape, &positions(cfg.grid(), d)), 1),
        _ => (w.tensor("pos_embed.pos_embed", &shape, DType::F32), 0),
    };
    let w = w.pp("timestep_embedder");
    let temb = sinusoid(timestep, shift).linear(&w, "linear_1", d).silu().linear(&w, "linear_2", d);
    (patches + positions, temb.cast(DType::F32) + extra)
}

/// `get_2d_sincos_pos_embed` of diffusers for a square of `grid` rows, in float64 as there: for each
/// token `d / 4` sines and cosines of its column, and as many of its row.
fn positions(grid: usize, d: usize) -> Vec<f32> {
    let angles =
        |at: usize| (0..d / 4).map(move |i| at as f64 / 10000f64.powf(i as f64 / (d / 4) as f64));
    let of = |at: usize| angles(at).map(f64::sin).chain(angles(at).map(f64::cos));
    let tokens = (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column)));
    tokens.flat_map(|(row, column)| of(column).chain(of(row))).map(|x| x as f32).collect()
}

/// The values and the config that all blocks of one graph share.
struct Model<'c, 'g> {
    cfg: &'c DitConfig,
    w: Weights<'g>,
    temb: Var<'g>,
}

impl<'c, 'g> Model<'c, 'g> {
    fn new(cfg: &'c DitConfig, graph: &'g Graph, temb: Var<'g>) -> Model<'c, 'g> {
        Model { cfg, w: graph.root(), temb: temb.silu() }
    }

    /// Runs the blocks of `range`; the first half pushes the long skips, the second pops them, if
    /// there are any.
    fn blocks(&self, range: Range<usize>, mut x: Var<'g>, skips: &mut Vec<Var<'g>>) -> Var<'g> {
        let (half, long) = (self.cfg.num_layers / 2, self.cfg.has_long_skips());
        for layer in range {
            if let Some(index) = layer.checked_sub(half).filter(|_| long) {
                let skip = skips.pop().expect("one skip per block");
                x = self.skip(&self.w.pp("skips").pp(index), x, skip);
            }
            x = self.block(&self.w.pp("blocks").pp(layer), x);
            if long && layer < half {
                skips.push(x);
            }
        }
        x
    }

    /// A long skip: `FP32_Layernorm` and `ResidualLinear`, which adds nothing.
    fn skip(&self, w: &Weights<'g>, x: Var<'g>, skip: Var<'g>) -> Var<'g> {
        let _scope = w.enter();
        let normed = x.concat(&[skip], 2).layer_norm(w, "skip_norm", EPS).cast(x.graph.compute());
        normed.linear(w, "skip_linear", self.cfg.hidden_size).cast(DType::F32)
    }

    /// `DiTBlock.forward`, adaLN-Zero. As in [`hunyuan_dit`](crate::hunyuan_dit) the residual
    /// stream stays in fp32.
    fn block(&self, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
        let _scope = w.enter();
        let d = self.cfg.hidden_size;
        let chunks = self.temb.linear(w, "norm1.linear", 6 * d).unsqueeze([1]);
        let chunk = |i: usize| chunks.slice(2, i * d, (i + 1) * d);
        let attended = self.attention(&w.pp("attn1"), modulated(x, chunk(0), chunk(1), EPS));
        let x = x + (chunk(2) * attended).cast(DType::F32);
        let eps = if self.cfg.kind == DitKind::Diffusers { 1e-5 } else { EPS };
        let ff = modulated(x, chunk(3), chunk(4), eps);
        let ff = ff.linear(w, "ff.net.0.proj", self.cfg.ff_inner_dim()).gelu("tanh");
        x + (chunk(5) * ff.linear(w, "ff.net.2", d)).cast(DType::F32)
    }

    /// timm's `Attention`, of which one matrix makes queries, keys and values.
    fn attention(&self, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
        let _scope = w.enter();
        let [d, heads] = [self.cfg.hidden_size, self.cfg.num_attention_heads];
        let [q, k, v] =
            ["to_q", "to_k", "to_v"].map(|name| x.linear(w, name, d).split_heads(heads));
        let scale = 1.0 / ((d / heads) as f32).sqrt();
        q.attend(k, v, scale, None).join_heads().linear(w, "to_out.0", d)
    }

    /// `FinalLayer` and `unpatchify`: `[b, tokens, hidden]` to latents' shape. Shift comes before
    /// scale, other than in Hunyuan-DiT.
    fn final_layer(&self, x: Var<'g>) -> Var<'g> {
        let (d, p, grid) = (self.cfg.hidden_size, self.cfg.patch_size, self.cfg.grid() as i64);
        let chunks = self.temb.linear(&self.w, "norm_out.linear", 2 * d).unsqueeze([1]);
        let x = modulated(x, chunks.slice(2, 0, d), chunks.slice(2, d, 2 * d), EPS);
        let channels = p * p * self.cfg.out_channels();
        let x = x.linear(&self.w, "proj_out", channels).cast(DType::F32);
        x.transpose([0, 2, 1]).reshape([0, channels as i64, grid, grid]).depth_to_space(p)
    }
}

/// `modulate` of the normed `x`, in the element type that the graph computes in.
fn modulated<'g>(x: Var<'g>, shift: Var<'g>, scale: Var<'g>, eps: f32) -> Var<'g> {
    x.plain_layer_norm(eps).cast(x.graph.compute()) * (scale + 1.0) + shift
}
