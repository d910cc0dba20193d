//! What is between the parts: the arithmetic that the orchestrator does on the host otherwise.

use super::{COEFFICIENTS, KEPT};
use crate::arithmetic::{corrected, weighted_sum};
use crate::builder::{Graph, GraphDef, Var};
use crate::config::HunyuanDitConfig;
use crate::dim::{Dim, Symbol};
use crate::manifest::ModelConfig;
use crate::options::Precision;
use crate::tensor::DType;

/// What there is before the first step: the `first` latents; `nothing`, clean latents of zeros; and
/// `none`, an output of the deep core of zeros.
pub fn begin(cfg: &HunyuanDitConfig) -> GraphDef {
    let graph = Graph::new("begin", Precision::Fp32);
    let latents = graph.input("latents", DType::F32, &latents_shape(cfg, Dim::ONE));
    let extra = graph.input("extra", DType::F32, &[rows(), cfg.hidden_size.into()]);
    let cos = graph.input("cos", DType::F32, &grid_shape(cfg));
    let sigma = graph.input("init_noise_sigma", DType::F32, &[Dim::ONE]);
    graph.output("first", latents * sigma);
    graph.output("nothing", latents * 0.0);
    let tokens = cos.slice(2, 0, 1).reshape([1, -1, 1]);
    graph.output("none", (tokens * 0.0) + (extra.unsqueeze([1]) * 0.0));
    graph.finish()
}

/// What the model reads at a step: every image twice, and the timestep of each row.
pub fn prepare(cfg: &HunyuanDitConfig) -> GraphDef {
    let graph = Graph::new("prepare", Precision::Fp32);
    let latents = graph.input("latents", DType::F32, &latents_shape(cfg, Dim::ONE));
    let timestep = graph.input("timestep_now", DType::F32, &[]);
    let extra = graph.input("extra", DType::F32, &[rows(), cfg.hidden_size.into()]);
    graph.output("pair", latents.twice());
    graph.output("timestep", (extra.slice(1, 0, 1).squeeze(1) * 0.0) + timestep);
    graph.finish()
}

/// What the decoder reads for the deep core's output: the kept ones times `weights`, summed up and
/// corrected as [`correct`](crate::arithmetic::correct) does it.
pub fn stand_in(cfg: &HunyuanDitConfig) -> GraphDef {
    let graph = Graph::new("stand-in", Precision::Fp32);
    let hidden = Dim::from(cfg.hidden_size);
    let tokens = |name: &str| graph.input(name, DType::F32, &[rows(), Dim::tokens(), hidden]);
    let deep: Vec<Var<'_>> = (0..KEPT).map(|i| tokens(&format!("deep_{i}"))).collect();
    let [now, before] = ["now", "before"].map(tokens);
    let weights = graph.input("weights", DType::F32, &[KEPT.into()]);
    let down = graph.input("down", DType::F32, &[hidden, Symbol::Rank.into()]);
    let up = graph.input("up", DType::F32, &[Symbol::Rank.into(), hidden]);
    let terms = deep.into_iter().enumerate().map(|(i, deep)| (deep, weights.slice(0, i, i + 1)));
    graph.output("deep", corrected(weighted_sum(terms), now, before, [down, up]));
    graph.finish()
}

/// Guidance and the sampler's step, as [`file()`](super::file()) has it.
pub fn advance(cfg: &HunyuanDitConfig) -> GraphDef {
    let graph = Graph::new("advance", Precision::Fp32);
    let mut predicted = latents_shape(cfg, 2.into());
    predicted[1] = cfg.out_channels().into();
    let predicted = graph.input("noise_pred", DType::F32, &predicted);
    let latents = |name| graph.input(name, DType::F32, &latents_shape(cfg, Dim::ONE));
    let [x, before, before_that, noise] =
        ["latents", "clean", "clean_before", "noise"].map(latents);
    let [scale, rescale] =
        ["guidance", "guidance_rescale"].map(|name| graph.input(name, DType::F32, &[]));
    let coefficients = graph.input("coefficients", DType::F32, &[COEFFICIENTS.into()]);
    let k = |i: usize| coefficients.slice(0, i, i + 1);

    // The learned variance behind the first channels is not used.
    let [negative, positive] = predicted.slice(1, 0, cfg.in_channels).halves();
    let guided = negative + (positive - negative) * scale;
    let factor = (spread(positive) / spread(guided)).sqrt();
    let guided = (guided * factor) * rescale + guided * ((rescale * -1.0) + 1.0);

    let clean = x * k(0) + guided * k(1);
    let past = before * k(5) + before_that * k(6);
    let next = x * k(2) + clean * k(3) + guided * k(4) + past + noise * k(7);
    graph.output("next", next);
    graph.output("next_clean", clean);
    graph.finish()
}

/// The transformer, which is a Hunyuan-DiT: other models have no pipeline in one file.
///
/// # Panics
/// If it is another.
#[track_caller]
pub fn dit(model: &ModelConfig) -> &HunyuanDitConfig {
    model.transformer.hunyuan_dit().expect("the pipeline of a Hunyuan-DiT")
}

/// What the image decoder reads.
pub fn scale(model: &ModelConfig) -> GraphDef {
    let graph = Graph::new("scale", Precision::Fp32);
    let shape = latents_shape(dit(model), Dim::ONE);
    let latents = graph.input("latents", DType::F32, &shape);
    graph.output("scaled", latents / model.vae.scaling_factor);
    graph.finish()
}

/// Bytes of pixels, row by row.
pub fn pixels(model: &ModelConfig) -> GraphDef {
    let graph = Graph::new("pixels", Precision::Fp32);
    let sides = [Symbol::Height, Symbol::Width].map(Dim::from);
    let shape = [Symbol::Batch.into(), model.vae.out_channels.into(), sides[0], sides[1]];
    let image = graph.input("image", DType::F32, &shape);
    let values = ((image * 0.5 + 0.5).clip(0.0, 1.0) * 255.0).round();
    // TensorRT has bytes as outputs, but nothing that reads them.
    graph.output("pixels", values.transpose([0, 2, 3, 1]).cast(DType::U8));
    graph.finish()
}

/// The variance of each image `[n, c, h, w]`: `[n, 1, 1, 1]`.
fn spread<'g>(image: Var<'g>) -> Var<'g> {
    let mean = |x: Var<'g>| (1..4).rev().fold(x, Var::mean);
    let centred = image - mean(image);
    mean(centred * centred)
}

/// Rows of a call: two an image.
fn rows() -> Dim {
    Dim::from(2) * Symbol::Batch.into()
}

/// The rotary tables' shape.
pub fn grid_shape(cfg: &HunyuanDitConfig) -> [Dim; 3] {
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth].map(Dim::from);
    [height, width, cfg.attention_head_dim.into()]
}

/// The shape of the latents of each image `times` over.
pub fn latents_shape(cfg: &HunyuanDitConfig, times: Dim) -> Vec<Dim> {
    let patch = Dim::from(cfg.patch_size);
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth].map(|side| patch * side.into());
    vec![times * Symbol::Batch.into(), cfg.in_channels.into(), height, width]
}
