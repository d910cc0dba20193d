//! The state of a request between noise and clean latents.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use hydit_graphs::Manifest;
use hydit_graphs::config::TransformerShape;

use super::batch::{RowGroup, rows_mix};
use super::conditioner::Condition;
use super::cost::sizes;
use super::first_latents::{First, Moments, Outside};
use super::guidance::Predictions;
use super::rows::Rows;
use super::stack::Stacker;
use crate::cache::{Compared, Decision, KEPT, Plan};
use crate::error::{Error, Result};
use crate::request::{CheckedRequest, Request};
use crate::runtime::{Backend, Value};
use crate::sampler::{Sampler, TorchGenerator};

/// A step of a request that is done.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which step, counted from 0.
    pub index: usize,
    /// The number of steps of the request.
    pub total: usize,
    /// Whether the deep core ran.
    pub decision: Decision,
}

/// A request under way: where its sampler is, and what its rows keep from step to step.
///
/// [`Transformer::begin`](super::transformer::Transformer::begin) makes it,
/// [`Transformer::step`](super::transformer::Transformer::step) advances it until it
/// [is done](DenoiseState::is_done), [`Pipeline::decode`](super::Pipeline::decode) turns its
/// latents into images.
pub struct DenoiseState {
    request: Request,
    pub(crate) plan: Plan,
    /// Negative rows, positive rows, perturbed rows, of which a request may lack the first and the
    /// last; one item where all rows share a call at every step.
    pub(crate) rows: Vec<Rows>,
    /// Whether rows of several items share a call where they run at the same step.
    joined: bool,
    /// The steps at which other rows than the positive ones run, if there are any.
    guided: Range<usize>,
    sampler: SamplerState,
    /// What stays as an image has it, where a mask says so.
    outside: Option<Outside>,
    decisions: Vec<Decision>,
    truncated: Vec<&'static str>,
    /// The latents that the last prediction takes for clean, if they are wanted.
    preview: Option<Vec<f32>>,
    /// Numbers of one image's latents, and of those that are guided.
    image: usize,
    guided_numbers: usize,
    /// Latents of all rows: the sampler's for each part of them.
    input: Vec<f32>,
    predicted: Vec<f32>,
}

/// All that a step changes but the kept outputs of the deep core.
#[derive(Clone)]
pub(crate) struct SamplerState {
    /// Index of the step that comes next.
    pub step: usize,
    /// `[images, channels, h, w]`.
    pub latents: Vec<f32>,
    sampler: Sampler,
    noise: Vec<TorchGenerator>,
}

impl SamplerState {
    /// Advances the latents by a step with the prediction `guided`.
    pub(crate) fn advance(&mut self, guided: &[f32]) {
        self.sampler.step(self.step, guided, &mut self.latents, &mut self.noise);
        self.step += 1;
    }
}

/// What the denoising loop has made of a request.
pub(crate) struct Denoised {
    pub latents: Vec<f32>,
    pub timesteps: Vec<f32>,
    pub decisions: Vec<Decision>,
    pub truncated: Vec<&'static str>,
    pub deep_on_host: bool,
}

impl DenoiseState {
    /// At the first step, with the latents that the request's seeds give, and the `moments` of its
    /// image if it has one. `conditions` are one for
    /// all rows, or one for each part of them, negative first.
    pub(crate) fn new(
        backend: &Backend,
        stacker: &Rc<Stacker>,
        manifest: &Manifest,
        request: &CheckedRequest,
        truncated: Vec<&'static str>,
        conditions: &[Rc<Condition>],
        moments: Option<&Moments>,
    ) -> Result<DenoiseState> {
        let TransformerShape { in_channels: channels, guided_channels, .. } =
            manifest.model.transformer.shape();
        let sizes = sizes(manifest, request);
        let image = channels * sizes.height * sizes.width;
        let mut noise: Vec<TorchGenerator> = (0..request.num_images as u64)
            .map(|image| TorchGenerator::new(request.seed + image))
            .collect();
        let sampler = request.sampler().clone();
        let First { latents, outside } = First::new(request, &sampler, moments, image, &mut noise);

        // The rows are [negative rows, positive rows, perturbed rows] over the same latents.
        let input = latents.repeat(sizes.batch / request.num_images);
        let count = conditions[0].rows();
        let shape = [count, channels, sizes.height, sizes.width];
        let mut rows = Vec::new();
        for (i, latents) in input.chunks(count * image).enumerate() {
            rows.push(Rows {
                condition: conditions[i * count * conditions.len() / sizes.batch].clone(),
                latents: backend.tensor_f32(&shape, latents)?,
                timestep: backend.tensor_f32(&[count], &vec![0.0; count])?,
                step: 0,
                decision: Decision::REFRESH,
                keeps: request.plan().keeps(),
                kept: VecDeque::new(),
                forecast: None,
                compares: request.plan().compares(),
                before: None,
                earlier: None,
                stacker: stacker.clone(),
                batched: None,
                tracked: false,
                drift: None,
            });
        }
        // A plan that is made step by step watches each item by itself, and nets are those of an item.
        let joined = !request.guidance_interval.is_whole()
            && rows_mix(manifest, backend, request)
            && !request.plan().is_reactive()
            && request.controls.is_empty();
        Ok(DenoiseState {
            joined,
            guided: request.guided_steps(),
            request: (**request).clone(),
            plan: request.plan().clone(),
            rows,
            sampler: SamplerState { step: 0, latents, sampler, noise },
            outside,
            decisions: Vec::new(),
            truncated,
            preview: None,
            image,
            guided_numbers: image / channels * guided_channels,
            input,
            predicted: Vec::new(),
        })
    }

    /// The request it is the state of.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The timesteps of all steps, descending.
    pub fn timesteps(&self) -> &[f32] {
        self.sampler.sampler.timesteps()
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps().len()
    }

    /// The number of steps that are done.
    pub fn steps_done(&self) -> usize {
        self.sampler.step
    }

    /// Whether the latents are clean.
    pub fn is_done(&self) -> bool {
        self.steps_done() == self.steps()
    }

    /// The rows that run at the step that comes next: one for each image where it is not guided.
    pub fn row_count(&self) -> usize {
        self.rows[self.run_next()].iter().map(Rows::count).sum()
    }

    /// The latents `[images, channels, h, w]` as of the last step.
    pub fn latents(&self) -> &[f32] {
        &self.sampler.latents
    }

    /// What was done at each step so far.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// The prompts that were longer than the text encoders read: `prompt`, `negative_prompt`.
    pub fn truncated(&self) -> &[&'static str] {
        &self.truncated
    }

    /// From now on, keeps what [`DenoiseState::preview`] gives.
    pub fn keep_preview(&mut self) {
        self.preview = Some(Vec::new());
    }

    /// The clean latents that the last prediction implies, laid out as the latents; empty before
    /// the first step, and unless [kept](DenoiseState::keep_preview).
    pub fn preview(&self) -> &[f32] {
        self.preview.as_deref().unwrap_or_default()
    }

    /// From now on, measures what [`DenoiseState::drifts`] gives.
    pub fn track_drift(&mut self) {
        self.rows.iter_mut().for_each(|rows| rows.tracked = true);
    }

    /// How far the deep core's latest output is from the one before it, for each call of a step:
    /// the root mean square of the difference over that of the one before. Empty unless
    /// [tracked](DenoiseState::track_drift), before the second refresh, and where the outputs do
    /// not lie on the host in f32.
    pub fn drifts(&self) -> impl Iterator<Item = f32> {
        self.rows.iter().filter_map(|rows| rows.drift)
    }

    /// Whether the step that comes next is guided.
    fn guides(&self) -> bool {
        self.guided.contains(&self.steps_done())
    }

    /// The rows that run at the step that comes next.
    pub(crate) fn running(&mut self) -> &mut [Rows] {
        let run_next = self.run_next();
        &mut self.rows[run_next]
    }

    /// Those of the [`rows`](DenoiseState::rows) that run at the step that comes next: the positive
    /// ones alone, where it is not guided.
    fn run_next(&self) -> Range<usize> {
        let parts = self.request.rows_per_image();
        if parts == 1 || self.guides() {
            return 0..self.rows.len();
        }
        let part = self.rows.len() / parts;
        let first = if self.request.guided() { part } else { 0 };
        first..first + part
    }

    /// The rows that share a call at the step that comes next, while the request runs alone.
    ///
    /// # Errors
    /// When they cannot be put together.
    pub(crate) fn groups(&mut self) -> Result<Vec<RowGroup<'_>>> {
        let joined = self.joined;
        match self.running() {
            rows @ [_, _, ..] if joined => Ok(vec![RowGroup::together(rows.iter_mut().collect())?]),
            rows => Ok(rows.iter_mut().map(RowGroup::alone).collect()),
        }
    }

    /// Gives the rows what they read at the next step. Comes before the shallow encoder.
    pub(crate) fn write_inputs(&mut self) -> Result<()> {
        let SamplerState { step, ref latents, ref sampler, .. } = self.sampler;
        let timestep = sampler.timesteps()[step];
        for part in self.input.chunks_mut(latents.len()) {
            part.copy_from_slice(latents);
            sampler.scale_model_input(step, part);
        }
        let decision = match &self.plan {
            Plan::Planned(decisions) => Some(decisions[step].clone()),
            Plan::Reactive(_) => None,
        };
        // Every part of the input is the same.
        let input = std::mem::take(&mut self.input);
        let size = input.len() / self.rows.len();
        for (rows, latents) in self.running().iter_mut().zip(input.chunks(size)) {
            rows.latents.write_f32(latents)?;
            rows.timestep.write_f32(&vec![timestep; rows.count()])?;
            rows.forecast = None;
            rows.step = step;
            if let Some(decision) = &decision {
                rows.decision = decision.clone();
            }
        }
        self.input = input;
        Ok(())
    }

    /// Sets what the step under way does with the deep core.
    pub(crate) fn decide(&mut self, decision: Decision) {
        for rows in self.running() {
            rows.decision = decision.clone();
            rows.forecast = None;
        }
    }

    /// Lets a plan that decides step by step see the `change` of the shallow encoder's output.
    pub(crate) fn watch(&mut self, change: f32) {
        if let Plan::Reactive(watch) = &mut self.plan {
            let decision = watch.decide(self.sampler.step, change);
            self.decide(decision);
        }
    }

    /// How many outputs of the deep core are kept.
    pub(crate) fn kept_outputs(&self) -> usize {
        self.rows[0].kept.len()
    }

    /// From now on keeps all that a forecast may need, whatever the plan does.
    pub(crate) fn keep_for_forecasts(&mut self) {
        for rows in &mut self.rows {
            rows.keeps = KEPT;
            rows.compares = Compared::LastRefresh;
        }
    }

    /// The guided prediction `[images, channels, h, w]` of the shallow decoder's `predictions`,
    /// `[rows, out channels, h, w]` of each of the rows that run; behind it, laid out likewise, the
    /// variances, where the sampler reads them. These are the positive rows', as are channels that
    /// are not guided.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn guided(&mut self, predictions: &[Value]) -> Result<Vec<f32>> {
        let guides = self.guides();
        let DenoiseState { request, sampler, image, guided_numbers, predicted, .. } = self;
        predicted.clear();
        for rows in predictions {
            predicted.extend_from_slice(&rows.read_f32()?);
        }
        let images = request.num_images;
        let parts = if guides { request.rows_per_image() } else { 1 };
        let row = predicted.len() / (images * parts);
        let whole = |part: usize, i: usize| &predicted[(part * images + i) * row..][..row];
        let row = |part: usize, i: usize| &whole(part, i)[..*guided_numbers];
        let positive = usize::from(guides && request.guided());
        let timestep = sampler.sampler.timesteps()[sampler.step];
        let mut guided = vec![0.0; sampler.latents.len()];
        for (i, out) in guided.chunks_mut(*image).enumerate() {
            let predictions = Predictions {
                negative: (positive > 0).then(|| row(0, i)),
                positive: row(positive, i),
                perturbed: (guides && request.perturbed()).then(|| row(positive + 1, i)),
            };
            predictions.guide(request, timestep, &mut out[..*guided_numbers]);
            out[*guided_numbers..].copy_from_slice(&whole(positive, i)[*guided_numbers..*image]);
        }
        if sampler.sampler.learns_variance() {
            (0..images).for_each(|i| guided.extend_from_slice(&whole(positive, i)[*image..]));
        }
        if guided.iter().all(|v| v.is_finite()) {
            Ok(guided)
        } else {
            Err(Error::NotFinite { step: self.steps_done() + 1, steps: self.steps() })
        }
    }

    /// Advances the latents by a step with the prediction `guided`.
    pub(crate) fn advance(&mut self, guided: &[f32]) {
        if let Some(preview) = &mut self.preview {
            let SamplerState { step, latents, sampler, .. } = &self.sampler;
            *preview = sampler.clean(*step, guided, latents);
        }
        self.sampler.advance(guided);
        if let Some(outside) = &self.outside {
            let SamplerState { step, latents, sampler, .. } = &mut self.sampler;
            outside.put_back(sampler, *step, latents);
        }
    }

    /// Ends the step under way with the shallow decoder's `predictions`.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn finish_step(&mut self, predictions: &[Value]) -> Result<Step> {
        let guided = self.guided(predictions)?;
        let (index, decision) = (self.steps_done(), self.running()[0].decision.clone());
        self.advance(&guided);
        self.decisions.push(decision.clone());
        Ok(Step { index, total: self.steps(), decision })
    }

    /// Where the sampler is, to come back to.
    pub(crate) fn sampler_state(&self) -> SamplerState {
        self.sampler.clone()
    }

    /// Goes back to `state`, with nothing kept of the deep core.
    pub(crate) fn rewind(&mut self, state: &SamplerState) {
        self.sampler = state.clone();
        self.decisions.truncate(state.step);
        self.rows.iter_mut().for_each(|rows| rows.kept.clear());
    }

    /// Drops the tensors.
    pub(crate) fn finish(self) -> Denoised {
        let on_host = |rows: &Rows| rows.kept.front().is_some_and(Value::on_host);
        Denoised {
            timesteps: self.timesteps().to_vec(),
            deep_on_host: self.rows.iter().any(on_host),
            latents: self.sampler.latents,
            decisions: self.decisions,
            truncated: self.truncated,
        }
    }
}
