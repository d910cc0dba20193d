//! The cut transformer: conditioner once per request, then encoder, core and decoder per step.

use std::collections::VecDeque;
use std::rc::Rc;

use hydit_graphs::hunyuan_dit::skip_name;
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{Manifest, Sizes};

use crate::artifacts::Artifacts;
use crate::cache::{Decision, Forecast, Plan};
use crate::error::Result;
use crate::pipeline::device_math::{Features, change_on_host};
use crate::pipeline::rope;
use crate::pipeline::text::{Encoded, PromptEmbeds};
use crate::request::Request;
use crate::runtime::{Backend, Provider, Session, Value};
use crate::timing::{Stage, Timings};

/// The four graphs of the transformer, and the arithmetic of cache policies.
pub struct Dit {
    conditioner: Session,
    encoder: Session,
    core: Session,
    decoder: Session,
    skips: Vec<String>,
    features: Features,
}

/// What stays the same through a request for rows that run together, where the graphs read it.
pub struct Condition {
    pub(crate) text_states: Value,
    pub(crate) extra: Value,
    pub(crate) cos: Rc<Value>,
    pub(crate) sin: Rc<Value>,
}

/// Rows of a request's batch that run together. With it go the latents they are given and the kept
/// outputs of the deep core: a lane belongs to one request and is dropped with it.
pub struct Lane {
    pub(crate) condition: Rc<Condition>,
    /// `[rows, channels, h, w]`, written before each step.
    pub latents: Value,
    /// The core's outputs, the latest first.
    kept: VecDeque<Value>,
    /// What the core was or would have been given at the step before.
    before: Option<Value>,
    /// Whether [`Lane::drift`] is wanted.
    pub watched: bool,
    /// How far the core's latest output is from the one before it, relative to that; where both lie
    /// on the host in f32.
    pub drift: Option<f32>,
}

/// What the shallow encoder makes of a lane: the skips, what the core reads being the last of them,
/// and `temb` behind.
pub struct Shallow(pub(crate) Vec<Value>);

impl Condition {
    /// How many rows it is for.
    pub fn rows(&self) -> usize {
        self.extra.shape()[0]
    }
}

impl Lane {
    /// Nothing is kept yet.
    pub fn new(condition: Rc<Condition>, latents: Value) -> Lane {
        Lane {
            condition,
            latents,
            kept: VecDeque::new(),
            before: None,
            watched: false,
            drift: None,
        }
    }

    /// The core's kept outputs, the latest first.
    pub fn kept(&self) -> &VecDeque<Value> {
        &self.kept
    }

    /// Keeps an output of the core beside those before it, `keeps` in all.
    pub fn keep(&mut self, deep: Value, keeps: usize) {
        let latest = self.kept.front().filter(|_| self.watched);
        self.drift = latest.and_then(|before| change_on_host(&deep, before));
        self.kept.truncate(keeps - 1);
        self.kept.push_front(deep);
    }

    /// Drops all of them.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// Whether the kept outputs of the core lie in the host's memory; `None` if nothing is kept.
    pub fn deep_on_host(&self) -> Option<bool> {
        self.kept.front().map(Value::on_host)
    }

    fn shared<'b>(&'b self, temb: &'b Value) -> [(&'static str, &'b Value); 4] {
        let Condition { text_states, cos, sin, .. } = &*self.condition;
        [("temb", temb), ("text_states", text_states), ("cos", cos), ("sin", sin)]
    }
}

impl Shallow {
    /// What the core reads.
    pub(crate) fn x(&self) -> &Value {
        &self.0[self.0.len() - 2]
    }

    pub(crate) fn temb(&self) -> &Value {
        &self.0[self.0.len() - 1]
    }

    fn into_x(mut self) -> Value {
        self.0.swap_remove(self.0.len() - 2)
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
            features: Features::new(&artifacts.manifest),
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
            _ => vec![texts.flat_map(|text| vec![text; request.num_images]).collect()],
        };
        let head_dim = manifest.model.transformer.attention_head_dim;
        let shape = [sizes.grid_height, sizes.grid_width, head_dim];
        let (cos, sin) =
            rope::tables(shape[0], shape[1], head_dim, manifest.variant.rope_convention);
        let place = |table: &[f32]| -> Result<Rc<Value>> {
            Ok(Rc::new(backend.to_device(backend.tensor_f32(&shape, table)?)?))
        };
        let (cos, sin) = (place(&cos)?, place(&sin)?);
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
            Ok(Condition { text_states, extra, cos: cos.clone(), sin: sin.clone() })
        };
        rows.into_iter().map(&mut condition).collect()
    }

    /// Loads what forecasts from up to `keeps` outputs of the core need beside the model, and what
    /// watching the encoder's output needs, if it is `watched`.
    pub fn prepare(&mut self, backend: &Backend, keeps: usize, watched: bool) -> Result<()> {
        self.features.prepare(backend, keeps, watched)
    }

    /// One prediction `[rows, out_channels, h, w]` for each lane at `step`, as `plan` decides. What
    /// is kept of the core stays where the engine has put it.
    pub fn predict(
        &mut self,
        lanes: &mut [Lane],
        timestep: &Value,
        step: usize,
        plan: &mut Plan,
        timings: &mut Timings,
    ) -> Result<(Vec<Value>, Decision)> {
        let encoded: Vec<Shallow> = timings.time(Stage::Encoder, || {
            lanes.iter().map(|lane| self.encode(lane, timestep)).collect::<Result<_>>()
        })?;
        let keeps = plan.keeps();
        let reactive = plan.planned().is_none();
        let decision = match plan {
            Plan::Planned(decisions) => decisions[step],
            Plan::Reactive(watch) => timings.time(Stage::Policy, || -> Result<Decision> {
                Ok(watch.decide(step, self.change(lanes, &encoded)?))
            })?,
        };
        let forecasts = match decision {
            Decision::Refresh => {
                timings.time(Stage::Core, || -> Result<()> {
                    for (lane, encoded) in lanes.iter_mut().zip(&encoded) {
                        if !lane.watched {
                            lane.kept.truncate(keeps - 1); // their memory serves the new one
                        }
                        let deep = self.core(lane, encoded)?;
                        lane.keep(deep, keeps);
                    }
                    Ok(())
                })?;
                None
            }
            Decision::Reuse(Forecast::LAST) => None,
            Decision::Reuse(forecast) => Some(timings.time(Stage::Policy, || {
                let forecast = |lane: &Lane| self.forecast(lane, forecast);
                lanes.iter().map(forecast).collect::<Result<Vec<Value>>>()
            })?),
        };
        let predictions = timings.time(Stage::Decoder, || {
            let lanes = lanes.iter().zip(&encoded).enumerate();
            let decode = |(i, (lane, encoded)): (usize, (&Lane, &Shallow))| {
                let deep = forecasts.as_ref().map_or(&lane.kept[0], |forecasts| &forecasts[i]);
                self.decode(lane, encoded, deep)
            };
            lanes.map(decode).collect::<Result<_>>()
        })?;
        if reactive {
            lanes
                .iter_mut()
                .zip(encoded)
                .for_each(|(lane, encoded)| lane.before = Some(encoded.into_x()));
        }
        Ok((predictions, decision))
    }

    /// Runs the shallow encoder.
    pub fn encode(&mut self, lane: &Lane, timestep: &Value) -> Result<Shallow> {
        let Condition { text_states, extra, cos, sin } = &*lane.condition;
        Ok(Shallow(self.encoder.run(&[
            ("latents", &lane.latents),
            ("timestep", timestep),
            ("extra", extra),
            ("text_states", text_states),
            ("cos", cos),
            ("sin", sin),
        ])?))
    }

    /// Runs the deep core; it keeps nothing.
    pub fn core(&mut self, lane: &Lane, encoded: &Shallow) -> Result<Value> {
        let last = self.skips.last().expect("the cut leaves a block on each side");
        let mut inputs = vec![(last.as_str(), encoded.x())];
        inputs.extend(lane.shared(encoded.temb()));
        Ok(self.core.run(&inputs)?.remove(0))
    }

    /// Runs the shallow decoder on `deep`, the core's output or what stands for it.
    pub fn decode(&mut self, lane: &Lane, encoded: &Shallow, deep: &Value) -> Result<Value> {
        let mut inputs = vec![("deep", deep)];
        inputs.extend(self.skips.iter().map(String::as_str).zip(&encoded.0));
        inputs.extend(lane.shared(encoded.temb()));
        Ok(self.decoder.run(&inputs)?.remove(0))
    }

    /// The weighted sum of a lane's kept outputs.
    pub fn forecast(&mut self, lane: &Lane, forecast: Forecast) -> Result<Value> {
        self.features.blend(&lane.kept, forecast.weights())
    }

    /// How far the encoder's output has moved since the step before, the mean of the lanes; 0 at the
    /// first.
    fn change(&mut self, lanes: &[Lane], encoded: &[Shallow]) -> Result<f32> {
        let mut sum = 0.0;
        for (lane, encoded) in lanes.iter().zip(encoded) {
            if let Some(before) = &lane.before {
                sum += self.features.change(encoded.x(), before)?;
            }
        }
        Ok(sum / lanes.len() as f32)
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
    match rows_apart(provider, sizes) {
        true => 1,
        false => sizes.batch,
    }
}

/// Whether each row of a batch runs alone.
pub fn rows_apart(provider: Provider, sizes: &Sizes) -> bool {
    provider == Provider::Cpu && sizes.grid_height * sizes.grid_width >= APART_FROM
}

/// The sizes of a request's tensors, for shapes and costs.
pub fn sizes(manifest: &Manifest, request: &Request) -> Sizes {
    let factor = manifest.model.vae.factor();
    let patch = manifest.model.transformer.patch_size;
    let (height, width) = (request.height / factor, request.width / factor);
    Sizes {
        batch: request.num_images * if request.guided() { 2 } else { 1 },
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
    let [first, second] = match manifest.variant.rope_convention {
        RopeConvention::Diffusers => [height, width],
        RopeConvention::Tencent => [width, height],
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
