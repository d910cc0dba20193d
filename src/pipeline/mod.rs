//! [`Pipeline::generate`]: from a request to pictures. Read this first.
//!
//! Follows `HunyuanDiTPipeline.__call__` of diffusers, with the transformer cut for Skip-Cache.

pub mod batch;
pub mod component;
pub mod denoise;
pub mod device_math;
pub mod guidance;
pub mod preview;
pub mod rope;
pub mod text;
pub mod transformer;

use std::path::Path;

use hydit_graphs::Manifest;

use crate::artifacts::Artifacts;
use crate::cache::{Decision, Plan};
use crate::error::Result;
use crate::image::Image;
use crate::pipeline::component::Part;
use crate::pipeline::denoise::{Denoised, Step, Walk};
use crate::pipeline::text::{PromptEmbeds, TextEncoders};
use crate::pipeline::transformer::{Dit, sizes};
use crate::request::Request;
use crate::runtime::{Backend, Session};
use crate::sampler::Sampler;
use crate::timing::{Stage, Timings};

/// A loaded model. One request at a time; nothing of a request stays in it.
pub struct Pipeline {
    artifacts: Artifacts,
    backend: Backend,
    text: Part<TextEncoders>,
    dit: Part<Dit>,
    vae: Part<Session>,
}

/// The pictures of a request and how they were made.
pub struct Generated {
    /// Pictures; the seed of picture i is the request's plus i.
    pub images: Vec<Image>,
    /// Clean, `[pictures, channels, h, w]`, before the image decoder's scale.
    pub latents: Vec<f32>,
    /// The timesteps visited.
    pub timesteps: Vec<u32>,
    /// What was done at each.
    pub plan: Vec<Decision>,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the deep core's kept output lay in the host's memory, not in a GPU's.
    pub deep_on_host: bool,
    /// Which texts were longer than the text encoders read.
    pub truncated: Vec<&'static str>,
}

impl Pipeline {
    /// Loads all graphs of the artifact folder `path`, after checking that none was changed. On a
    /// [low-memory](Backend::low_memory) engine every request loads them, part by part.
    pub fn load(path: &Path, backend: Backend) -> Result<Pipeline> {
        Pipeline::open(Artifacts::open(path)?, backend)
    }

    /// As [`Pipeline::load`], of a folder whose manifest was read already.
    pub fn open(artifacts: Artifacts, backend: Backend) -> Result<Pipeline> {
        artifacts.check_engine(&backend)?;
        artifacts.check_code()?;
        let text = Part::new(TextEncoders::load, &artifacts, &backend)?;
        let dit = Part::new(Dit::load, &artifacts, &backend)?;
        let vae = Part::new(load_vae, &artifacts, &backend)?;
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
    ///
    /// [`Error::Request`]: crate::Error::Request
    /// [`Error::NotFinite`]: crate::Error::NotFinite
    pub fn generate(&mut self, request: &Request, told: &mut dyn FnMut(Step)) -> Result<Generated> {
        let (_, plan) = request.plan(&self.artifacts)?;
        self.draw(request, plan, told)
    }

    /// As [`Pipeline::generate`], by `plan` instead of the request's cache policy.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    ///
    /// # Panics
    /// When the plan has fewer decisions than the request steps, does not begin with a refresh, or
    /// forecasts from more outputs than it has refreshed by then.
    pub fn draw(
        &mut self,
        request: &Request,
        plan: Plan,
        told: &mut dyn FnMut(Step),
    ) -> Result<Generated> {
        let mut timings = Timings::default();
        let (timesteps, truncated, denoised) = self.walks(
            std::slice::from_ref(request),
            &mut timings,
            |backend, dit, mut walks, timings| {
                let walk = walks.remove(0);
                let timesteps = walk.timesteps().to_vec();
                let truncated = walk.truncated.clone();
                Ok((timesteps, truncated, walk.run(backend, dit, plan, timings, told)?))
            },
        )?;
        let Denoised { latents, decisions: plan, deep_on_host } = denoised;
        let images = self.decode(request, &latents, &mut timings)?;
        Ok(Generated { images, latents, timesteps, plan, timings, deep_on_host, truncated })
    }

    /// Lends `work` the transformer, and `requests` on their ways, each at its first step.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) before any work if a field is out of range; what the
    /// engine and `work` say otherwise.
    pub fn walks<R>(
        &mut self,
        requests: &[Request],
        timings: &mut Timings,
        work: impl FnOnce(&Backend, &mut Dit, Vec<Walk>, &mut Timings) -> Result<R>,
    ) -> Result<R> {
        let check = |request: &Request| request.check(&self.artifacts.manifest);
        let samplers: Vec<Sampler> = requests.iter().map(check).collect::<Result<_>>()?;
        let prompts = self.encode(requests, timings)?;
        let Pipeline { artifacts, backend, dit, .. } = self;
        let manifest = &artifacts.manifest;
        dit.lend(artifacts, backend, timings, |dit, timings| {
            let mut walks = Vec::with_capacity(requests.len());
            for ((request, prompt), sampler) in requests.iter().zip(&prompts).zip(samplers) {
                let conditions = timings.time(Stage::Conditioner, || {
                    dit.condition(backend, manifest, prompt, request)
                })?;
                let mut walk = Walk::new(backend, manifest, request, conditions, sampler)?;
                walk.truncated = prompt.truncated(request);
                walks.push(walk);
            }
            work(backend, dit, walks, timings)
        })
    }

    /// Puts `request` at its first step.
    ///
    /// # Errors
    /// As [`Pipeline::walks`].
    pub fn enter(&mut self, request: &Request, timings: &mut Timings) -> Result<Walk> {
        let requests = std::slice::from_ref(request);
        self.walks(requests, timings, |_, _, mut walks, _| Ok(walks.remove(0)))
    }

    /// Lends `work` the transformer.
    ///
    /// # Errors
    /// What the engine and `work` say.
    pub fn transformer<R>(
        &mut self,
        timings: &mut Timings,
        work: impl FnOnce(&Backend, &mut Dit, &mut Timings) -> Result<R>,
    ) -> Result<R> {
        let Pipeline { artifacts, backend, dit, .. } = self;
        dit.lend(artifacts, backend, timings, |dit, timings| work(backend, dit, timings))
    }

    fn encode(&mut self, requests: &[Request], timings: &mut Timings) -> Result<Vec<PromptEmbeds>> {
        let Pipeline { artifacts, backend, text, .. } = self;
        text.lend(artifacts, backend, timings, |text, timings| {
            let encode = |request: &Request| {
                let both = [request.negative_prompt.as_str(), request.prompt.as_str()];
                let texts = if request.guided() { &both[..] } else { &both[1..] };
                timings.time(Stage::TextEncoders, || text.encode(backend, texts))
            };
            requests.iter().map(encode).collect()
        })
    }

    /// The pictures of clean `latents`, `[pictures, channels, h, w]`.
    ///
    /// # Errors
    /// When a picture is not finite, or what the engine says.
    pub fn decode(
        &mut self,
        request: &Request,
        latents: &[f32],
        timings: &mut Timings,
    ) -> Result<Vec<Image>> {
        let Pipeline { artifacts, backend, vae, .. } = self;
        let model = &artifacts.manifest.model;
        let sizes = sizes(&artifacts.manifest, request);
        let shape = [1, model.transformer.in_channels, sizes.height, sizes.width];
        vae.lend(artifacts, backend, timings, |vae, timings| {
            let mut images = Vec::new();
            for latents in latents.chunks(shape.iter().product()) {
                let scale = model.vae.scaling_factor;
                let latents: Vec<f32> = latents.iter().map(|v| v / scale).collect();
                let latents = backend.tensor_f32(&shape, &latents)?;
                let outputs = timings.time(Stage::Vae, || vae.run(&[("latents", &latents)]))?;
                let pixels = outputs[0].read_f32()?;
                images.push(Image::from_decoder(&pixels, request.width, request.height)?);
            }
            Ok(images)
        })
    }
}

fn load_vae(artifacts: &Artifacts, backend: &Backend) -> Result<Session> {
    let mut vae = backend.load_seldom(&artifacts.graph("vae-decoder")?)?;
    vae.outputs_to_host(&["image"])?;
    Ok(vae)
}
