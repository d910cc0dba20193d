//! The denoising loop of a request: from noise to clean latents.

use std::rc::Rc;
use std::time::Instant;

use hydit_graphs::Manifest;

use crate::cache::{Decision, Plan};
use crate::error::{Error, Result};
use crate::pipeline::guidance::guide;
use crate::pipeline::transformer::{Condition, Dit, Lane, sizes};
use crate::request::Request;
use crate::runtime::{Backend, Value};
use crate::sampler::Sampler;
use crate::sampler::TorchGenerator;
use crate::timing::{Stage, Timings};

/// One step of a request, told when it is done.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Counted from 0.
    pub index: usize,
    /// Steps in all.
    pub total: usize,
    /// Whether the deep core ran.
    pub decision: Decision,
}

/// What the loop has made.
pub struct Denoised {
    /// `[pictures, channels, h, w]`, clean.
    pub latents: Vec<f32>,
    /// What was done at each step.
    pub decisions: Vec<Decision>,
    /// Whether the kept outputs of the deep core lay in the host's memory.
    pub deep_on_host: bool,
}

/// A request on its way down the timesteps: where it is, and the tensors that the model reads there.
pub struct Walk {
    request: Request,
    /// Rows that run together, their latents as of the last [`Walk::arrive`].
    pub lanes: Vec<Lane>,
    /// `[rows]`, likewise.
    pub timestep: Value,
    /// Where it is.
    pub place: Place,
    /// Which of its texts were longer than the text encoders read.
    pub truncated: Vec<&'static str>,
    /// Whether [`Walk::clean`] is wanted.
    pub shown: bool,
    /// What clean latents the last prediction meant, laid out as the latents.
    pub clean: Vec<f32>,
    /// Numbers of one picture's latents.
    picture: usize,
    /// Latents of all rows of the batch.
    input: Vec<f32>,
    predicted: Vec<f32>,
}

/// All that a step changes.
#[derive(Clone)]
pub struct Place {
    /// Index of the step that comes next.
    pub step: usize,
    /// `[pictures, channels, h, w]`.
    pub latents: Vec<f32>,
    sampler: Sampler,
    noise: Vec<TorchGenerator>,
}

impl Walk {
    /// At the first step, with the latents that the request's seeds give. `conditions` are its prompt
    /// and size as the transformer reads them: of all rows, or of those of one text each, negative
    /// ones first.
    pub fn new(
        backend: &Backend,
        manifest: &Manifest,
        request: &Request,
        conditions: Vec<Condition>,
        sampler: Sampler,
    ) -> Result<Walk> {
        let channels = manifest.model.transformer.in_channels;
        let sizes = sizes(manifest, request);
        let picture = channels * sizes.height * sizes.width;
        let mut noise: Vec<TorchGenerator> = (0..request.num_images as u64)
            .map(|picture| TorchGenerator::new(request.seed + picture))
            .collect();
        let latents: Vec<f32> = noise.iter_mut().flat_map(|g| g.randn(picture)).collect();

        // With guidance the batch is [negative rows, positive rows] over the same latents.
        let input = latents.repeat(sizes.batch / request.num_images);
        let rows = conditions[0].rows();
        let shape = [rows, channels, sizes.height, sizes.width];
        let conditions: Vec<Rc<Condition>> = conditions.into_iter().map(Rc::new).collect();
        let mut lanes = Vec::new();
        for (i, latents) in input.chunks(rows * picture).enumerate() {
            let condition = &conditions[i * rows * conditions.len() / sizes.batch];
            lanes.push(Lane::new(condition.clone(), backend.tensor_f32(&shape, latents)?));
        }
        let timestep = backend.tensor_f32(&[rows], &vec![0.0; rows])?;
        let place = Place { step: 0, latents, sampler, noise };
        Ok(Walk {
            request: request.clone(),
            lanes,
            timestep,
            place,
            truncated: Vec::new(),
            shown: false,
            clean: Vec::new(),
            picture,
            input,
            predicted: Vec::new(),
        })
    }

    /// The timesteps it visits.
    pub fn timesteps(&self) -> &[u32] {
        self.place.sampler.timesteps()
    }

    /// How many there are.
    pub fn steps(&self) -> usize {
        self.timesteps().len()
    }

    /// Gives the lanes the latents and the timestep of where it is.
    pub fn arrive(&mut self) -> Result<()> {
        let Walk { lanes, timestep, place, input, .. } = self;
        let now = place.sampler.timesteps()[place.step] as f32;
        timestep.write_f32(&vec![now; timestep.shape()[0]])?;
        input.chunks_mut(place.latents.len()).for_each(|half| half.copy_from_slice(&place.latents));
        let rows = input.len() / lanes.len();
        for (lane, latents) in lanes.iter_mut().zip(input.chunks(rows)) {
            lane.latents.write_f32(latents)?;
        }
        Ok(())
    }

    /// The guided prediction `[pictures, channels, h, w]` of what the decoder made of each lane.
    ///
    /// # Errors
    /// [`Error::NotFinite`], or what the engine says.
    pub fn guided(&mut self, predictions: &[Value]) -> Result<Vec<f32>> {
        let Walk { request, place, picture, input, predicted, .. } = self;
        predicted.clear();
        for rows in predictions {
            predicted.extend_from_slice(&rows.read_f32()?);
        }
        // The learned variance behind the first channels is not used.
        let batch = input.len() / *picture;
        let row = predicted.len() / batch;
        let mut guided = vec![0.0; place.latents.len()];
        for (i, out) in guided.chunks_mut(*picture).enumerate() {
            let rows = |i: usize| &predicted[i * row..][..*picture];
            let Request { num_images, guidance_scale, guidance_rescale, .. } = *request;
            match request.guided() {
                true => guide(rows(i), rows(num_images + i), guidance_scale, guidance_rescale, out),
                false => out.copy_from_slice(rows(i)),
            }
        }
        match guided.iter().all(|v| v.is_finite()) {
            true => Ok(guided),
            false => Err(Error::NotFinite { step: place.step + 1, steps: self.steps() }),
        }
    }

    /// Goes one step on with the prediction `guided`.
    pub fn advance(&mut self, guided: &[f32]) {
        let Place { step, latents, sampler, noise } = &mut self.place;
        if self.shown {
            self.clean = sampler.clean(*step, guided, latents);
        }
        sampler.step(*step, guided, latents, noise);
        *step += 1;
    }

    /// The request it is on the way for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether it has arrived.
    pub fn is_done(&self) -> bool {
        self.place.step == self.steps()
    }

    /// The rows of the batch it runs.
    pub fn rows(&self) -> usize {
        self.input.len() / self.picture
    }

    /// Goes one step on as `plan` decides.
    ///
    /// # Errors
    /// [`Error::NotFinite`], or what the engine says.
    pub fn step(
        &mut self,
        dit: &mut Dit,
        plan: &mut Plan,
        timings: &mut Timings,
    ) -> Result<Decision> {
        self.arrive()?;
        let step = self.place.step;
        let (predictions, decision) =
            dit.predict(&mut self.lanes, &self.timestep, step, plan, timings)?;
        self.follow(&predictions, timings)?;
        Ok(decision)
    }

    /// Goes one step on with what the decoder made of each lane.
    ///
    /// # Errors
    /// As [`Walk::guided`].
    pub fn follow(&mut self, predictions: &[Value], timings: &mut Timings) -> Result<()> {
        timings.time(Stage::Sampler, || {
            let guided = self.guided(predictions)?;
            self.advance(&guided);
            Ok(())
        })
    }

    /// From noise to clean latents, as `plan` decides; `told` hears of every step.
    ///
    /// # Errors
    /// [`Error::NotFinite`], or what the engine says.
    pub fn run(
        mut self,
        backend: &Backend,
        dit: &mut Dit,
        mut plan: Plan,
        timings: &mut Timings,
        told: &mut dyn FnMut(Step),
    ) -> Result<Denoised> {
        dit.prepare(backend, plan.keeps(), plan.planned().is_none())?;
        let start = Instant::now();
        timings.began = Some(start);
        let total = self.steps();
        let mut decisions = Vec::with_capacity(total);
        for index in 0..total {
            let decision = self.step(dit, &mut plan, timings)?;
            decisions.push(decision);
            told(Step { index, total, decision });
        }
        timings.denoise = start.elapsed();
        let deep_on_host = self.lanes.iter().all(|lane| lane.deep_on_host() == Some(true));
        Ok(Denoised { latents: self.place.latents, decisions, deep_on_host })
    }
}
