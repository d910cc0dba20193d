//! The denoising loop of a request: from noise to clean latents.

use std::time::Instant;

use hydit_graphs::Manifest;

use crate::cache::Decision;
use crate::dit::{Condition, Dit, Lane, sizes};
use crate::error::{Error, Result};
use crate::guidance::guide;
use crate::noise::TorchGenerator;
use crate::report::{Stage, Timings};
use crate::request::Request;
use crate::runtime::Backend;
use crate::sampler::Sampler;

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

/// What the loop of one request works with.
pub struct Denoising<'a> {
    /// The engine of `dit`.
    pub backend: &'a Backend,
    /// What the model is.
    pub manifest: &'a Manifest,
    /// The transformer.
    pub dit: &'a mut Dit,
    /// What is drawn.
    pub request: &'a Request,
    /// The request's prompt and size, as the transformer reads them: of all rows, or of those of one
    /// text each, negative ones first.
    pub conditions: &'a [Condition],
    /// The request's sampler.
    pub sampler: &'a mut Sampler,
    /// At which steps the deep core runs.
    pub plan: &'a [Decision],
}

/// What the loop has made.
pub struct Denoised {
    /// `[pictures, channels, h, w]`, clean.
    pub latents: Vec<f32>,
    /// Whether the kept output of the deep core lay in the host's memory.
    pub deep_on_host: bool,
}

impl Denoising<'_> {
    /// From noise to clean latents; `told` hears of every step.
    ///
    /// # Errors
    /// [`Error::NotFinite`], or what the engine says.
    pub fn run(self, timings: &mut Timings, told: &mut dyn FnMut(Step)) -> Result<Denoised> {
        let start = Instant::now();
        timings.began = Some(start);
        let Denoising { backend, manifest, dit, request, conditions, sampler, plan } = self;
        let channels = manifest.model.transformer.in_channels;
        let sizes = sizes(manifest, request);
        let picture = channels * sizes.height * sizes.width;
        let mut noise: Vec<TorchGenerator> = (0..request.batch_size as u64)
            .map(|picture| TorchGenerator::new(request.seed + picture))
            .collect();
        let mut latents: Vec<f32> = noise.iter_mut().flat_map(|g| g.randn(picture)).collect();

        // With guidance the batch is [negative rows, positive rows] over the same latents.
        let copies = sizes.batch / request.batch_size;
        let mut input = latents.repeat(copies);
        let rows = conditions[0].rows();
        let shape = [rows, channels, sizes.height, sizes.width];
        let mut lanes = Vec::new();
        for (i, latents) in input.chunks(rows * picture).enumerate() {
            let condition = &conditions[i * rows * conditions.len() / sizes.batch];
            lanes.push(Lane::new(condition, backend.tensor_f32(&shape, latents)?));
        }
        let mut times = vec![0.0; rows];
        let mut timestep = backend.tensor_f32(&[rows], &times)?;
        let (mut predicted, mut guided) = (Vec::new(), vec![0.0; latents.len()]);

        for (index, &decision) in plan.iter().enumerate() {
            times.fill(sampler.timesteps()[index] as f32);
            timestep.write_f32(&times)?;
            input.chunks_mut(latents.len()).for_each(|half| half.copy_from_slice(&latents));
            for (lane, latents) in lanes.iter_mut().zip(input.chunks(rows * picture)) {
                lane.latents.write_f32(latents)?;
            }
            predicted.clear();
            for rows in dit.predict(&mut lanes, &timestep, decision, timings)? {
                predicted.extend_from_slice(&rows.read_f32()?);
            }
            timings.time(Stage::Sampler, || {
                // The learned variance behind the first channels is not used.
                let row = predicted.len() / sizes.batch;
                for (i, out) in guided.chunks_mut(picture).enumerate() {
                    let rows = |i: usize| &predicted[i * row..][..picture];
                    match request.guided() {
                        true => guide(
                            rows(i),
                            rows(request.batch_size + i),
                            request.guidance_scale,
                            request.guidance_rescale,
                            out,
                        ),
                        false => out.copy_from_slice(rows(i)),
                    }
                }
                if !guided.iter().all(|v| v.is_finite()) {
                    return Err(Error::NotFinite { step: index + 1, steps: plan.len() });
                }
                sampler.step(index, &guided, &mut latents, &mut noise);
                Ok(())
            })?;
            told(Step { index, total: plan.len(), decision });
        }
        timings.denoise = start.elapsed();
        let deep_on_host = lanes.iter().all(|lane| lane.deep_on_host() == Some(true));
        Ok(Denoised { latents, deep_on_host })
    }
}
