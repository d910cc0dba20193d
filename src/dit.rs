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
use crate::runtime::{Backend, Provider, Session, Value};
use crate::text::{Encoded, PromptEmbeds};

/// The four graphs of the transformer.
pub struct Dit {
    conditioner: Session,
    encoder: Session,
    core: Session,
    decoder: Session,
    skips: Vec<String>,
}

/// What stays the same through a request for rows that run together, where the graphs read it.
pub struct Condition {
    text_states: Value,
    extra: Value,
    cos: Value,
    sin: Value,
}

/// Rows of a request's batch that run together. With it go the latents they are given and the kept
/// output of the deep core: a lane belongs to one request and is dropped with it.
pub struct Lane<'a> {
    condition: &'a Condition,
    /// `[rows, channels, h, w]`, written before each step.
    pub latents: Value,
    deep: Option<Value>,
}

impl Condition {
    /// How many rows it is for.
    pub fn rows(&self) -> usize {
        self.extra.shape()[0]
    }
}

impl<'a> Lane<'a> {
    /// Nothing is kept yet.
    pub fn new(condition: &'a Condition, latents: Value) -> Lane<'a> {
        Lane { condition, latents, deep: None }
    }

    /// Whether the kept output of the core lies in the host's memory; `None` if nothing is kept.
    pub fn deep_on_host(&self) -> Option<bool> {
        self.deep.as_ref().map(Value::on_host)
    }

    fn shared<'b>(&'b self, temb: &'b Value) -> [(&'static str, &'b Value); 4] {
        let Condition { text_states, cos, sin, .. } = self.condition;
        [("temb", temb), ("text_states", text_states), ("cos", cos), ("sin", sin)]
    }
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

    /// Runs the conditioner: once for the whole batch `[negative rows, positive rows]`, or where rows
    /// run [apart](rows_together) once for each row of `prompt`, whose pictures share it.
    pub fn condition(
        &mut self,
        backend: &Backend,
        manifest: &Manifest,
        prompt: &PromptEmbeds,
        request: &Request,
    ) -> Result<Vec<Condition>> {
        let sizes = sizes(manifest, request);
        let texts = 0..prompt.bert.shape[0];
        let rows: Vec<Vec<usize>> = match rows_together(backend.provider(), &sizes) {
            1 => texts.map(|text| vec![text]).collect(),
            _ => vec![texts.flat_map(|text| vec![text; request.batch_size]).collect()],
        };
        let head_dim = manifest.model.transformer.attention_head_dim;
        let shape = [sizes.grid_height, sizes.grid_width, head_dim];
        let (cos, sin) = rope::tables(shape[0], shape[1], head_dim, manifest.variant.reading);
        let place = |table: &[f32]| backend.place(backend.tensor_f32(&shape, table)?);
        let mut condition = |rows: Vec<usize>| -> Result<Condition> {
            let (bert, bert_mask) = choose(backend, &prompt.bert, &rows)?;
            let (t5, t5_mask) = choose(backend, &prompt.t5, &rows)?;
            let mut inputs = vec![
                ("encoder_hidden_states", &bert),
                ("text_embedding_mask", &bert_mask),
                ("encoder_hidden_states_t5", &t5),
                ("text_embedding_mask_t5", &t5_mask),
            ];
            let style = style(backend, manifest, request, rows.len())?;
            if let Some((size, style)) = &style {
                inputs.extend([("image_meta_size", size), ("style", style)]);
            }
            let mut outputs = self.conditioner.run(&inputs)?.into_iter();
            let mut next = || outputs.next().expect("the conditioner has two outputs");
            let (text_states, extra) = (next(), next());
            Ok(Condition { text_states, extra, cos: place(&cos)?, sin: place(&sin)? })
        };
        rows.into_iter().map(&mut condition).collect()
    }

    /// One prediction `[rows, out_channels, h, w]` for each lane. The core runs if `decision` says so
    /// or if nothing is kept yet; its output never leaves the engine.
    pub fn predict(
        &mut self,
        lanes: &mut [Lane<'_>],
        timestep: &Value,
        decision: Decision,
        timings: &mut Timings,
    ) -> Result<Vec<Value>> {
        let Dit { encoder, core, decoder, skips, .. } = self;
        let mut encode = |lane: &Lane<'_>| {
            let Condition { text_states, extra, cos, sin } = lane.condition;
            encoder.run(&[
                ("latents", &lane.latents),
                ("timestep", timestep),
                ("extra", extra),
                ("text_states", text_states),
                ("cos", cos),
                ("sin", sin),
            ])
        };
        // Of each lane the skips, and temb last.
        let encoded: Vec<Vec<Value>> = timings.time(Stage::Encoder, || {
            lanes.iter().map(&mut encode).collect::<std::result::Result<_, _>>()
        })?;
        let last = skips.len();
        if decision == Decision::Refresh || lanes.iter().any(|lane| lane.deep.is_none()) {
            timings.time(Stage::Core, || -> Result<()> {
                for (lane, encoded) in lanes.iter_mut().zip(&encoded) {
                    lane.deep = None; // its memory serves the new one
                    let mut inputs = vec![(skips[last - 1].as_str(), &encoded[last - 1])];
                    inputs.extend(lane.shared(&encoded[last]));
                    lane.deep = Some(core.run(&inputs)?.remove(0));
                }
                Ok(())
            })?;
        }
        let mut decode = |(lane, encoded): (&Lane<'_>, &Vec<Value>)| -> Result<Value> {
            let mut inputs = vec![("deep", lane.deep.as_ref().expect("the core has run"))];
            inputs.extend(skips.iter().map(String::as_str).zip(encoded));
            inputs.extend(lane.shared(&encoded[last]));
            Ok(decoder.run(&inputs)?.remove(0))
        };
        timings.time(Stage::Decoder, || lanes.iter().zip(&encoded).map(&mut decode).collect())
    }
}

/// Image tokens from which the rows of a batch run one after the other on a CPU.
///
/// A run of all rows reads each weight once, a run of one row keeps its activations in the
/// processor's caches: on two cores together is 5 to 15 % faster up to 256 tokens, apart 2 to 7 %
/// from 1024 on (BENCHMARKS.md). Apart needs the memory of one row for activations, and in int8 a
/// row's rounding does not depend on its neighbours.
const APART_FROM: usize = 1024;

/// How many rows of the batch run together: all of them, or one.
pub fn rows_together(provider: Provider, sizes: &Sizes) -> usize {
    let tokens = sizes.grid_height * sizes.grid_width;
    match provider == Provider::Cpu && tokens >= APART_FROM {
        true => 1,
        false => sizes.batch,
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

/// States and mask of `rows` of `encoded`.
fn choose(backend: &Backend, encoded: &Encoded, rows: &[usize]) -> Result<(Value, Value)> {
    let [_, length, width] = encoded.shape;
    let row = |i: &usize| &encoded.states[i * length * width..][..length * width];
    let states: Vec<f32> = rows.iter().flat_map(row).copied().collect();
    let mask: Vec<i64> =
        rows.iter().flat_map(|i| &encoded.mask[i * length..][..length]).copied().collect();
    let states = backend.tensor_f32(&[rows.len(), length, width], &states)?;
    Ok((states, backend.tensor_i64(&[rows.len(), length], &mask)?))
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
    let of = |graph: &str| manifest.flops(graph, &sizes);
    let shallow = of("shallow-encoder") + of("shallow-decoder");
    (shallow + of("deep-core"), shallow)
}
