//! [`Pipeline::generate`]: from a request to pictures. Read this first.
//!
//! Follows `HunyuanDiTPipeline.__call__` of diffusers, with the transformer cut for Skip-Cache.

use std::path::Path;

use hydit_graphs::Manifest;

use crate::artifacts::Artifacts;
use crate::cache::Decision;
use crate::denoise::{Denoised, Denoising, Step};
use crate::dit::{Dit, sizes};
use crate::error::Result;
use crate::image::Image;
use crate::part::Part;
use crate::report::{Stage, Timings};
use crate::request::Request;
use crate::runtime::{Backend, Session};
use crate::text::{PromptEmbeds, TextEncoders};

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
    /// `[pictures, channels, h, w]`, clean, before the image decoder's scaling.
    pub latents: Vec<f32>,
    /// The timesteps visited.
    pub timesteps: Vec<u32>,
    /// What was done at each.
    pub plan: Vec<Decision>,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the deep core's kept output lay in the host's memory, not in a GPU's.
    pub deep_on_host: bool,
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
        let mut sampler = request.check(&self.artifacts.manifest)?;
        let plan = request.cache.plan(sampler.timesteps());
        let mut timings = Timings::default();

        let prompt = self.encode(request, &mut timings)?;
        let Pipeline { artifacts, backend, dit, .. } = self;
        let manifest = &artifacts.manifest;
        let denoised = dit.lend(artifacts, backend, &mut timings, |dit, timings| {
            let conditions = timings
                .time(Stage::Conditioner, || dit.condition(backend, manifest, &prompt, request))?;
            let (conditions, sampler, plan) = (&conditions[..], &mut sampler, &plan[..]);
            Denoising { backend, manifest, dit, request, conditions, sampler, plan }
                .run(timings, told)
        })?;
        let Denoised { latents, deep_on_host } = denoised;
        let images = self.decode(request, &latents, &mut timings)?;
        let timesteps = sampler.timesteps().to_vec();
        Ok(Generated { images, latents, timesteps, plan, timings, deep_on_host })
    }

    fn encode(&mut self, request: &Request, timings: &mut Timings) -> Result<PromptEmbeds> {
        let Pipeline { artifacts, backend, text, .. } = self;
        let both = [request.negative.as_str(), request.prompt.as_str()];
        let texts = if request.guided() { &both[..] } else { &both[1..] };
        text.lend(artifacts, backend, timings, |text, timings| {
            timings.time(Stage::TextEncoders, || text.encode(backend, texts))
        })
    }

    fn decode(
        &mut self,
        request: &Request,
        latents: &[f32],
        timings: &mut Timings,
    ) -> Result<Vec<Image>> {
        let Pipeline { artifacts, backend, vae, .. } = self;
        let model = &artifacts.manifest.model;
        let sizes = sizes(&artifacts.manifest, request);
        let scaled: Vec<f32> = latents.iter().map(|v| v / model.vae.scaling_factor).collect();
        let shape = [1, model.transformer.in_channels, sizes.height, sizes.width];
        vae.lend(artifacts, backend, timings, |vae, timings| {
            let mut images = Vec::new();
            for latents in scaled.chunks(shape.iter().product()) {
                let latents = backend.tensor_f32(&shape, latents)?;
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
