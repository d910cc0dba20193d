//! The cut transformer: conditioner once per request, then encoder, core and decoder per step.

use hydit_graphs::hunyuan_dit::skip_name;
use hydit_graphs::variant::Reading;
use hydit_graphs::{Manifest, Sizes};

use crate::artifacts::Artifacts;
use crate::cache::Decision;
use crate::error::Result;
use crate::report::{Stage, Timings};
use crate::request::Request;
use crate::rope;
use crate::runtime::{Backend, Session, Value};
use crate::text::{Encoded, PromptEmbeds};

/// The four graphs of the transformer.
pub struct Dit {
    conditioner: Session,
    encoder: Session,
    core: Session,
    decoder: Session,
    skips: Vec<String>,
}

/// What stays the same through a request, where the graphs read it.
pub struct Condition {
    text_states: Value,
    extra: Value,
    cos: Value,
    sin: Value,
}

/// The kept output of the deep core: belongs to one request and is dropped with it.
#[derive(Default)]
pub struct SkipCache {
    deep: Option<Value>,
}

impl Dit {
    /// Loads the graphs.
    pub fn load(artifacts: &Artifacts, backend: &Backend) -> Result<Dit> {
        let load = |graph: &str| -> Result<Session> { Ok(backend.load(&artifacts.graph(graph)?)?) };
        let mut decoder = load("shallow-decoder")?;
        decoder.outputs_to_host(&["noise_pred"])?;
        Ok(Dit {
            conditioner: backend.load_seldom(&artifacts.graph("conditioner")?)?,
            encoder: load("shallow-encoder")?,
            core: load("deep-core")?,
            decoder,
            skips: (0..artifacts.manifest.cache_at_branch).map(skip_name).collect(),
        })
    }

    /// Runs the conditioner. Each row of `prompt` serves `request.batch_size` pictures.
    pub fn condition(
        &mut self,
        backend: &Backend,
        manifest: &Manifest,
        prompt: &PromptEmbeds,
        request: &Request,
    ) -> Result<Condition> {
        let pictures = request.batch_size;
        let (bert, bert_mask) = repeat(backend, &prompt.bert, pictures)?;
        let (t5, t5_mask) = repeat(backend, &prompt.t5, pictures)?;
        let mut inputs = vec![
            ("encoder_hidden_states", &bert),
            ("text_embedding_mask", &bert_mask),
            ("encoder_hidden_states_t5", &t5),
            ("text_embedding_mask_t5", &t5_mask),
        ];
        let rows = bert.shape()[0];
        let style = style(backend, manifest, request, rows)?;
        if let Some((size, style)) = &style {
            inputs.extend([("image_meta_size", size), ("style", style)]);
        }
        let mut outputs = self.conditioner.run(&inputs)?.into_iter();
        let mut next = || outputs.next().expect("the conditioner has two outputs");
        let (text_states, extra) = (next(), next());

        let grid = sizes(manifest, request);
        let head_dim = manifest.model.transformer.attention_head_dim;
        let shape = [grid.grid_height, grid.grid_width, head_dim];
        let (cos, sin) = rope::tables(shape[0], shape[1], head_dim, manifest.variant.reading);
        let place = |table: &[f32]| backend.place(backend.tensor_f32(&shape, table)?);
        Ok(Condition { text_states, extra, cos: place(&cos)?, sin: place(&sin)? })
    }

    /// One prediction `[rows, out_channels, h, w]`. The core runs if `decision` says so or if
    /// nothing is kept yet; its output never leaves the engine.
    pub fn predict(
        &mut self,
        latents: &Value,
        timestep: &Value,
        condition: &Condition,
        decision: Decision,
        cache: &mut SkipCache,
        timings: &mut Timings,
    ) -> Result<Value> {
        let Condition { text_states, extra, cos, sin } = condition;
        let mut encoded = timings.time(Stage::Encoder, || {
            self.encoder.run(&[
                ("latents", latents),
                ("timestep", timestep),
                ("extra", extra),
                ("text_states", text_states),
                ("cos", cos),
                ("sin", sin),
            ])
        })?;
        let temb = encoded.pop().expect("the encoder's last output is temb");
        let skips = encoded;
        let shared = [("temb", &temb), ("text_states", text_states), ("cos", cos), ("sin", sin)];

        let deep = match (decision, cache.deep.take()) {
            (Decision::Reuse, Some(deep)) => deep,
            _ => {
                let last = skips.len() - 1;
                let mut inputs = vec![(self.skips[last].as_str(), &skips[last])];
                inputs.extend(shared);
                let mut outputs = timings.time(Stage::Core, || self.core.run(&inputs))?;
                outputs.remove(0)
            }
        };
        let mut inputs = vec![("deep", &deep)];
        inputs.extend(self.skips.iter().map(String::as_str).zip(&skips));
        inputs.extend(shared);
        let mut outputs = timings.time(Stage::Decoder, || self.decoder.run(&inputs))?;
        cache.deep = Some(deep);
        Ok(outputs.remove(0))
    }
}

/// The sizes of a request's tensors, for shapes and costs.
pub fn sizes(manifest: &Manifest, request: &Request) -> Sizes {
    let factor = manifest.model.vae.factor();
    let patch = manifest.model.transformer.patch_size;
    let (height, width) = (request.height / factor, request.width / factor);
    Sizes {
        batch: request.batch_size * if request.guided() { 2 } else { 1 },
        grid_height: height / patch,
        grid_width: width / patch,
        height,
        width,
    }
}

/// Each row `times` times: `a b` -> `a a b b`.
fn repeat(backend: &Backend, encoded: &Encoded, times: usize) -> Result<(Value, Value)> {
    let [rows, length, width] = encoded.shape;
    let shape = [rows * times, length, width];
    let states = backend.tensor_f32(&shape, &repeat_rows(&encoded.states, rows, times))?;
    let mask = backend.tensor_i64(&shape[..2], &repeat_rows(&encoded.mask, rows, times))?;
    Ok((states, mask))
}

fn repeat_rows<T: Copy>(values: &[T], rows: usize, times: usize) -> Vec<T> {
    values.chunks(values.len() / rows).flat_map(|row| row.repeat(times)).collect()
}

/// Size and style conditions up to v1.1: trained size, target size in the reference's order, crop.
fn style(
    backend: &Backend,
    manifest: &Manifest,
    request: &Request,
    rows: usize,
) -> Result<Option<(Value, Value)>> {
    if !manifest.model.transformer.use_style_cond_and_image_meta_size {
        return Ok(None);
    }
    let (height, width) = (request.height as f32, request.width as f32);
    let [first, second] = match manifest.variant.reading {
        Reading::Diffusers => [height, width],
        Reading::Tencent => [width, height],
    };
    let size = [1024.0, 1024.0, first, second, 0.0, 0.0].repeat(rows);
    let size = backend.tensor_f32(&[rows, 6], &size)?;
    Ok(Some((size, backend.tensor_i64(&[rows], &vec![0; rows])?)))
}

/// FLOPs of a step of `request` that refreshes, and of one that reuses.
pub fn step_costs(manifest: &Manifest, request: &Request) -> (f64, f64) {
    let sizes = sizes(manifest, request);
    let of = |name: &str| {
        let graph = manifest.graphs.iter().find(|graph| graph.name == name);
        graph.map_or(0.0, |graph| graph.flops.at(&sizes) as f64)
    };
    let shallow = of("shallow-encoder") + of("shallow-decoder");
    (shallow + of("deep-core"), shallow)
}
