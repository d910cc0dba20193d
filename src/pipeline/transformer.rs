//! The cut transformer: the conditioner once per request, then shallow encoder, deep core and
//! shallow decoder per step.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use hydit_graphs::hunyuan_dit::skip_name;

use super::batch::RowGroup;
use super::conditioner::{Condition, Conditioner};
use super::control::{Controls, Nets};
use super::denoise::{DenoiseState, Step};
use super::device_math::DeviceMath;
use super::images::EncodedImages;
use super::lora::LoraCache;
use super::rows::Rows;
use super::stack::{Stacked, Stacker};
use super::text::PromptEmbeds;
use crate::artifacts::Artifacts;
use crate::cache::Forecast;
use crate::error::Result;
use crate::request::CheckedRequest;
use crate::runtime::{Backend, Session, Value};
use crate::timing::{Stage, Timer};

/// From this many bytes of attention scores on, a call gives back its memory: a tenth of a second
/// beside many seconds of computing, and some gigabytes at the largest sizes.
const LARGE: usize = 32 << 20;

/// The four graphs of the transformer, and the arithmetic of cache policies. It keeps nothing of a
/// request but the inputs of its LoRAs, by their content.
pub struct Transformer {
    conditioner: Conditioner,
    encoder: Session,
    core: Session,
    decoder: Session,
    math: DeviceMath,
    pub(super) stacker: Rc<Stacker>,
    nets: Nets,
    loras: LoraCache,
    /// Names of the skip connections across the cut, outermost first.
    skips: Vec<String>,
    artifacts: Arc<Artifacts>,
    backend: Backend,
    timer: Timer,
}

/// What the shallow encoder makes of the rows of a call.
pub struct Shallow {
    /// `[rows, tokens, hidden]` of each block before the cut; the deep core reads the last.
    pub(crate) skips: Vec<Value>,
    /// `[rows, hidden]`, the timestep's embedding and the condition.
    pub(crate) temb: Value,
    /// What the ControlNets that count make of the rows.
    pub(crate) controls: Controls,
}

impl Shallow {
    /// What the deep core reads, `[rows, tokens, hidden]`.
    pub(crate) fn x(&self) -> &Value {
        self.skips.last().expect("the cut leaves a block on each side")
    }

    pub(crate) fn into_x(mut self) -> Value {
        self.skips.pop().expect("the cut leaves a block on each side")
    }
}

impl Transformer {
    /// Loads the graphs.
    ///
    /// # Errors
    /// When one is missing or does not load.
    pub fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Transformer> {
        let load = |graph: &str| artifacts.load(graph, backend);
        let mut decoder = load("shallow-decoder")?;
        decoder.outputs_to_host(&["noise_pred"])?;
        let (model, n) = (&artifacts.manifest.model, artifacts.manifest.cache_at_branch);
        Ok(Transformer {
            conditioner: Conditioner::load(artifacts, backend)?,
            encoder: load("shallow-encoder")?,
            core: load("deep-core")?,
            decoder,
            math: DeviceMath::new(&artifacts.manifest, backend),
            stacker: Rc::new(Stacker::new(backend)),
            nets: Nets::new(artifacts, backend),
            loras: LoraCache::default(),
            skips: (0..model.transformer.skips(n)).map(skip_name).collect(),
            artifacts: artifacts.clone(),
            backend: backend.clone(),
            timer: backend.timer(),
        })
    }

    /// Takes `request`, whose prompts are encoded in `prompt` and whose `images` are, to its first
    /// step.
    ///
    /// # Errors
    /// When a graph fails, or one that the request's cache policy or its ControlNets need does not
    /// load.
    ///
    /// # Panics
    /// When the request was checked against another model, `images` are not those that it has, or its
    /// image prompt is not in `prompt`.
    #[track_caller]
    pub fn begin(
        &mut self,
        request: &CheckedRequest,
        prompt: &PromptEmbeds,
        images: &EncodedImages,
    ) -> Result<DenoiseState> {
        assert!(request.is_for(&self.artifacts), "the request was checked against another model");
        let EncodedImages { init, controls } = images;
        assert_eq!(request.init_image.is_some(), init.is_some(), "an image and its moments");
        assert_eq!(request.controls.len(), controls.len(), "images of ControlNets");
        assert_eq!(request.image_prompt.is_some(), prompt.image.is_some(), "an image prompt");
        self.nets.prepare(request)?;
        self.math.prepare(request.plan().keeps(), request.plan().compares())?;
        let (backend, stacker) = (&self.backend, &self.stacker);
        let manifest = &self.artifacts.manifest;
        let loras = self.loras.get(manifest, backend, request.chosen_loras())?;
        let conditions = self.conditioner.run(request, prompt, &loras, images, &mut self.nets)?;
        let truncated = prompt.truncated.clone();
        let moments = init.as_ref();
        DenoiseState::new(backend, stacker, manifest, request, truncated, &conditions, moments)
    }

    /// Takes `state`, which is not done, one step on.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite), or what the backend says.
    pub fn step(&mut self, state: &mut DenoiseState) -> Result<Step> {
        state.write_inputs()?;
        let shallow = self.encode(&state.groups()?)?;
        if state.plan.is_reactive() {
            self.decide(state, &shallow)?;
        }
        let mut groups = state.groups()?;
        let predictions = self.predict(&mut groups, &shallow)?;
        remember(&mut groups, shallow)?;
        let _timed = self.timer.start(Stage::Sampler);
        state.finish_step(&predictions)
    }

    /// Takes each of `states`, none of which is done, one step on; what became of each, in their
    /// order. They [can be batched](super::batch::can_batch), and run in one call of each shallow
    /// graph, each at its own timestep; those that refresh run in one call of the deep core.
    ///
    /// # Errors
    /// When a graph fails, for all of them.
    pub fn step_together(&mut self, states: &mut [&mut DenoiseState]) -> Result<Vec<Result<Step>>> {
        if let [only] = states {
            return Ok(vec![self.step(only)]);
        }
        states.iter_mut().try_for_each(|state| state.write_inputs())?;
        let rows = states.iter_mut().flat_map(|state| state.running()).collect();
        let mut groups = [RowGroup::together(rows)?];
        let shallow = self.encode(&groups)?;
        let mut predictions = self.predict(&mut groups, &shallow)?;
        remember(&mut groups, shallow)?;
        let mut steps = Vec::with_capacity(states.len());
        for state in states {
            let _timed = self.timer.start(Stage::Sampler);
            let rest = predictions.split_off(state.running().len());
            steps.push(state.finish_step(&predictions));
            predictions = rest;
        }
        Ok(steps)
    }

    /// The predictions `[rows, out channels, h, w]` of each of the rows in `groups`, from what the
    /// shallow encoder made of them. Does with the deep core what was decided for the rows.
    pub(crate) fn predict(
        &mut self,
        groups: &mut [RowGroup<'_>],
        shallow: &[Shallow],
    ) -> Result<Vec<Value>> {
        self.refresh(groups, shallow)?;
        self.predict_from_kept(groups, shallow)
    }

    /// The same where the core has run already, if it was to.
    pub(crate) fn predict_from_kept(
        &mut self,
        groups: &mut [RowGroup<'_>],
        shallow: &[Shallow],
    ) -> Result<Vec<Value>> {
        self.forecast(groups, shallow)?;
        let deep: Vec<Stacked> = groups.iter().map(RowGroup::deep).collect::<Result<_>>()?;
        let deep: Vec<&Value> = deep.iter().map(|deep| &**deep).collect();
        let decoded = self.decode(groups, shallow, &deep)?;
        let mut predictions = Vec::new();
        for (group, decoded) in groups.iter().zip(decoded) {
            predictions.extend(group.split(decoded)?);
        }
        Ok(predictions)
    }

    /// Has the plan of `state` decide by how far the shallow encoder's output has moved since the
    /// step before, relative to it: the mean over the calls, 0 at the first step.
    fn decide(&mut self, state: &mut DenoiseState, shallow: &[Shallow]) -> Result<()> {
        let _timed = self.timer.start(Stage::Policy);
        let (mut change, mut compared) = (0.0, 0);
        for (rows, shallow) in state.running().iter().zip(shallow) {
            if let Some(before) = &rows.before {
                change += self.math.change(shallow.x(), before)?;
                compared += 1;
            }
        }
        state.watch(change / compared.max(1) as f32);
        Ok(())
    }

    /// Runs the deep core for the rows that refresh, and keeps its output.
    pub(crate) fn refresh(
        &mut self,
        groups: &mut [RowGroup<'_>],
        shallow: &[Shallow],
    ) -> Result<()> {
        if groups.iter().all(RowGroup::all_refresh) {
            return self.run_and_keep(groups, shallow);
        }
        let (mut parts, mut read) = (Vec::new(), Vec::new());
        for (group, shallow) in groups.iter_mut().zip(shallow) {
            if let Some((part, shallow)) = group.refreshing(shallow)? {
                parts.push(part);
                read.push(shallow);
            }
        }
        if parts.is_empty() { Ok(()) } else { self.run_and_keep(&mut parts, &read) }
    }

    fn run_and_keep(&mut self, groups: &mut [RowGroup<'_>], shallow: &[Shallow]) -> Result<()> {
        groups.iter_mut().flat_map(RowGroup::rows).for_each(Rows::make_room);
        let deep = self.core(groups, shallow)?;
        for (group, deep) in groups.iter_mut().zip(deep) {
            let parts = group.split(deep)?;
            group.rows().zip(parts).for_each(|(rows, deep)| rows.keep(deep));
        }
        Ok(())
    }

    /// Makes the forecasts that the rows want.
    fn forecast(&mut self, groups: &mut [RowGroup<'_>], shallow: &[Shallow]) -> Result<()> {
        let wants = |rows: &mut Rows| rows.wants_forecast().is_some();
        if !groups.iter_mut().flat_map(RowGroup::rows).any(wants) {
            return Ok(());
        }
        let _timed = self.timer.start(Stage::Policy);
        for (group, shallow) in groups.iter_mut().zip(shallow) {
            let mut start = 0;
            for rows in group.rows() {
                let range = start..start + rows.count();
                start = range.end;
                rows.forecast = self.stand_in(rows, shallow.x(), range)?;
            }
        }
        Ok(())
    }

    /// What the decoder gets for the core's output of `rows`, if not the latest as it is. At `range`
    /// of `shallow` is what the core reads, or would read.
    fn stand_in(
        &mut self,
        rows: &Rows,
        shallow: &Value,
        range: Range<usize>,
    ) -> Result<Option<Value>> {
        let Some(forecast) = rows.wants_forecast() else { return Ok(None) };
        if *forecast == Forecast::ALIGNED {
            let now = self.stacker.part(shallow, range)?;
            let [before, earlier] = [&rows.before, &rows.earlier]
                .map(|read| read.as_ref().expect("there were two refreshes"));
            return Ok(Some(self.math.align(&rows.kept, &now, before, earlier)?));
        }
        let blended = match forecast.weights() {
            [_] => None,
            weights => Some(self.math.blend(&rows.kept, weights)?),
        };
        let (Some(correction), Some(before)) = (forecast.correction(), &rows.before) else {
            return Ok(blended);
        };
        let now = self.stacker.part(shallow, range)?;
        let deep = blended.as_ref().unwrap_or(&rows.kept[0]);
        Ok(Some(self.math.correct(deep, correction, &now, before)?))
    }

    /// Runs the shallow encoder for each group, on the latents and timesteps that were
    /// [written](DenoiseState::write_inputs) into its rows.
    pub(crate) fn encode(&mut self, groups: &[RowGroup<'_>]) -> Result<Vec<Shallow>> {
        self.keep_or_give_back(groups);
        let controls = groups.iter().map(|group| self.nets.encode(group));
        let controls: Vec<Controls> = controls.collect::<Result<_>>()?;
        let _timed = self.timer.start(Stage::Encoder);
        let mut shallow = Vec::with_capacity(groups.len());
        for (group, controls) in groups.iter().zip(controls) {
            let condition = group.condition();
            let (latents, timestep) = (group.latents()?, group.timestep()?);
            let mut inputs: Vec<(&str, &Value)> =
                vec![("latents", &latents), ("timestep", &timestep), ("extra", &condition.extra)];
            inputs.extend(condition.texts());
            inputs.extend(condition.adapters("shallow-encoder"));
            let mut outputs = self.encoder.run_by_name(&inputs)?;
            let skips = outputs.take_all(&self.skips)?;
            shallow.push(Shallow { skips, temb: outputs.take("temb")?, controls });
        }
        Ok(shallow)
    }

    /// Says to the graphs of a step whether they give back the memory of their calls for `groups`.
    fn keep_or_give_back(&mut self, groups: &[RowGroup<'_>]) {
        let shape = self.artifacts.manifest.model.transformer.shape();
        let large = groups.iter().any(|group| group.score_bytes(shape) >= LARGE);
        let gives_back = large || self.backend.low_memory();
        for graph in [&mut self.encoder, &mut self.core, &mut self.decoder] {
            graph.set_gives_back(gives_back);
        }
        self.nets.set_gives_back(gives_back);
    }

    /// Runs the deep core for each group: `[rows, tokens, hidden]`. Keeps nothing.
    pub(crate) fn core(
        &mut self,
        groups: &[RowGroup<'_>],
        shallow: &[Shallow],
    ) -> Result<Vec<Value>> {
        let last = self.skips.last().expect("the cut leaves a block on each side");
        let pairs = groups.iter().zip(shallow);
        let controls =
            pairs.clone().map(|(group, shallow)| self.nets.core(group, &shallow.controls));
        let controls: Vec<_> = controls.collect::<Result<_>>()?;
        let _timed = self.timer.start(Stage::Core);
        let mut deep = Vec::with_capacity(groups.len());
        for ((group, shallow), controls) in pairs.zip(&controls) {
            let mut inputs: Vec<(&str, &Value)> = vec![(last, shallow.x())];
            inputs.extend(shared(group.condition(), shallow));
            inputs.extend(controls.iter().map(|(name, control)| (name.as_str(), &**control)));
            inputs.extend(group.condition().adapters("deep-core"));
            deep.push(self.core.run_single(&inputs)?);
        }
        Ok(deep)
    }

    /// Runs the shallow decoder for each group on `deep`, the deep core's output or what stands in
    /// for it: `[rows, out channels, h, w]`, on the host.
    pub(crate) fn decode(
        &mut self,
        groups: &[RowGroup<'_>],
        shallow: &[Shallow],
        deep: &[&Value],
    ) -> Result<Vec<Value>> {
        let _timed = self.timer.start(Stage::Decoder);
        let mut predictions = Vec::with_capacity(groups.len());
        for ((group, shallow), &deep) in groups.iter().zip(shallow).zip(deep) {
            let mut inputs: Vec<(&str, &Value)> = vec![("deep", deep)];
            inputs.extend(self.skips.iter().map(String::as_str).zip(&shallow.skips));
            inputs.extend(shared(group.condition(), shallow));
            let none = group.condition().no_control.as_deref();
            let controls: Vec<_> = shallow.controls.of_decoder(self.skips.len(), none).collect();
            inputs.extend(controls.iter().map(|(name, control)| (name.as_str(), *control)));
            inputs.extend(group.condition().adapters("shallow-decoder"));
            predictions.push(self.decoder.run_single(&inputs)?);
        }
        Ok(predictions)
    }
}

/// Has the rows of `groups` remember what their plans compare with.
pub(crate) fn remember(groups: &mut [RowGroup<'_>], shallow: Vec<Shallow>) -> Result<()> {
    groups.iter_mut().zip(shallow).try_for_each(|(group, shallow)| group.remember(shallow))
}

/// What the deep core and the shallow decoder read alike.
fn shared<'a>(
    condition: &'a Condition,
    shallow: &'a Shallow,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    std::iter::once(("temb", &shallow.temb)).chain(condition.texts())
}
