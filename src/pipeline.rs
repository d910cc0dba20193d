//! [`Pipeline::generate`]: from a request to pictures. Read this first.
//!
//! Follows `HunyuanDiTPipeline.__call__` of diffusers, with the transformer cut for Skip-Cache.

use std::path::Path;
use std::time::Instant;

use hydit_graphs::Manifest;

use crate::artifacts::Artifacts;
use crate::cache::Decision;
use crate::dit::{Condition, Dit, SkipCache, sizes};
use crate::error::{Error, Result};
use crate::guidance::guide;
use crate::image::Image;
use crate::noise::TorchGenerator;
use crate::report::{Stage, Timings};
use crate::request::Request;
use crate::runtime::{Backend, Session};
use crate::sampler::Sampler;
use crate::text::TextEncoders;

/// A loaded model. One request at a time; nothing of a request stays in it.
pub struct Pipeline {
    artifacts: Artifacts,
    backend: Backend,
    text: TextEncoders,
    dit: Dit,
    vae: Session,
}

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

/// The pictures of a request and how they were made.
pub struct Generated {
    /// Pictures; the seed of picture i is the request's plus i.
    pub images: Vec<Image>,
    /// The timesteps visited.
    pub timesteps: Vec<u32>,
    /// What was done at each.
    pub plan: Vec<Decision>,
    /// Where the time went.
    pub timings: Timings,
}

impl Pipeline {
    /// Loads all graphs of the artifact folder `path`, after checking that none was changed.
    pub fn load(path: &Path, backend: Backend) -> Result<Pipeline> {
        Pipeline::open(Artifacts::open(path)?, backend)
    }

    /// As [`Pipeline::load`], of a folder whose manifest was read already.
    pub fn open(artifacts: Artifacts, backend: Backend) -> Result<Pipeline> {
        artifacts.check_engine(&backend)?;
        artifacts.check_code()?;
        let text = TextEncoders::load(&artifacts, &backend)?;
        let dit = Dit::load(&artifacts, &backend)?;
        let mut vae = backend.load(&artifacts.graph("vae-decoder")?)?;
        vae.outputs_to_host(&["image"])?;
        Ok(Pipeline { artifacts, backend, text, dit, vae })
    }

    /// What the model is.
    pub fn manifest(&self) -> &Manifest {
        &self.artifacts.manifest
    }

    /// The folder it was loaded from.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The engine it runs on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Draws the pictures of `request`; `told` hears of every step.
    ///
    /// # Errors
    /// [`Error::Request`] before any work if a field is out of range; [`Error::NotFinite`] rather
    /// than a black picture; what the engine says otherwise.
    pub fn generate(&mut self, request: &Request, told: &mut dyn FnMut(Step)) -> Result<Generated> {
        let mut sampler = request.check(&self.artifacts.manifest)?;
        let plan = request.cache.plan(sampler.timesteps());
        let mut timings = Timings::default();

        let condition = self.condition(request, &mut timings)?;
        let mut noise: Vec<TorchGenerator> = (0..request.batch_size as u64)
            .map(|picture| TorchGenerator::new(request.seed + picture))
            .collect();
        let start = Instant::now();
        timings.began = Some(start);
        let latents =
            self.denoise(request, &condition, &mut sampler, &plan, &mut noise, &mut timings, told)?;
        timings.denoise = start.elapsed();
        let images = self.decode(request, latents, &mut timings)?;
        Ok(Generated { images, timesteps: sampler.timesteps().to_vec(), plan, timings })
    }

    fn condition(&mut self, request: &Request, timings: &mut Timings) -> Result<Condition> {
        let Pipeline { artifacts, backend, text, dit, .. } = self;
        let both = [request.negative.as_str(), request.prompt.as_str()];
        let texts = if request.guided() { &both[..] } else { &both[1..] };
        let prompt = timings.time(Stage::TextEncoders, || text.encode(backend, texts))?;
        timings.time(Stage::Conditioner, || {
            dit.condition(backend, &artifacts.manifest, &prompt, request)
        })
    }

    /// Latents `[pictures, channels, h, w]` from noise to clean.
    #[allow(clippy::too_many_arguments)] // the request's whole state, owned by `generate`
    fn denoise(
        &mut self,
        request: &Request,
        condition: &Condition,
        sampler: &mut Sampler,
        plan: &[Decision],
        noise: &mut [TorchGenerator],
        timings: &mut Timings,
        told: &mut dyn FnMut(Step),
    ) -> Result<Vec<f32>> {
        let dit = &self.artifacts.manifest.model.transformer;
        let sizes = sizes(&self.artifacts.manifest, request);
        let picture = dit.in_channels * sizes.height * sizes.width;
        let mut latents: Vec<f32> = noise.iter_mut().flat_map(|g| g.randn(picture)).collect();

        // With guidance the batch is [negative rows, positive rows] over the same latents.
        let copies = sizes.batch / request.batch_size;
        let shape = [sizes.batch, dit.in_channels, sizes.height, sizes.width];
        let mut input = latents.repeat(copies);
        let mut latents_value = self.backend.tensor_f32(&shape, &input)?;
        let mut timestep = self.backend.tensor_f32(&[sizes.batch], &vec![0.0; sizes.batch])?;
        let mut guided = vec![0.0; latents.len()];
        let mut cache = SkipCache::default();

        for (index, &decision) in plan.iter().enumerate() {
            let t = sampler.timesteps()[index] as f32;
            timestep.write_f32(&vec![t; sizes.batch])?;
            input.chunks_mut(latents.len()).for_each(|half| half.copy_from_slice(&latents));
            latents_value.write_f32(&input)?;
            let predicted = self.dit.predict(
                &latents_value,
                &timestep,
                condition,
                decision,
                &mut cache,
                timings,
            )?;
            let predicted = predicted.read_f32()?;
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
                sampler.step(index, &guided, &mut latents, noise);
                Ok(())
            })?;
            told(Step { index, total: plan.len(), decision });
        }
        Ok(latents)
    }

    fn decode(
        &mut self,
        request: &Request,
        mut latents: Vec<f32>,
        timings: &mut Timings,
    ) -> Result<Vec<Image>> {
        let manifest = &self.artifacts.manifest;
        let (dit, vae) = (&manifest.model.transformer, &manifest.model.vae);
        let sizes = sizes(manifest, request);
        latents.iter_mut().for_each(|v| *v /= vae.scaling_factor);
        let picture = dit.in_channels * sizes.height * sizes.width;
        let shape = [1, dit.in_channels, sizes.height, sizes.width];
        let mut images = Vec::new();
        for latents in latents.chunks(picture) {
            let latents = self.backend.tensor_f32(&shape, latents)?;
            let outputs = timings.time(Stage::Vae, || self.vae.run(&[("latents", &latents)]))?;
            let pixels = outputs[0].read_f32()?;
            images.push(Image::from_decoder(&pixels, request.width, request.height)?);
        }
        Ok(images)
    }
}
