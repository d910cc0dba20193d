//! [`Pipeline::generate`]: from a request to images. Read this first.
//!
//! Follows `HunyuanDiTPipeline.__call__` of diffusers, with the transformer cut for Skip-Cache.

pub mod batch;
pub mod component;
mod conditioner;
mod control;
pub mod cost;
pub mod denoise;
pub mod device_math;
pub mod first_latents;
mod guidance;
mod host_math;
mod image_prompt;
pub mod images;
pub mod lora;
mod perturbed;
pub mod preview;
pub mod rope;
pub mod rows;
mod stack;
mod sweep;
pub mod tables;
pub mod text;
pub mod transformer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hydit_graphs::Manifest;

use self::component::{Component, Loaded};
use self::cost::sizes;
use self::denoise::{DenoiseState, Denoised, Step};
use self::first_latents::Moments;
use self::image_prompt::ImageEmbeds;
use self::images::EncodedImages;
use self::sweep::Sweep;
use self::text::{PromptEmbeds, TextEncoders};
use self::transformer::Transformer;
use crate::artifacts::Artifacts;
use crate::cache::Decision;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::request::{CheckedRequest, Request};
use crate::runtime::{Backend, Session};
use crate::timing::{Stage, Timings};

/// A loaded model. It draws one request at a time, or several [step by
/// step](Transformer::step_together), and keeps nothing of a request.
pub struct Pipeline {
    artifacts: Arc<Artifacts>,
    backend: Backend,
    text: Component<TextEncoders>,
    image_encoder: Component<Session>,
    transformer: Component<Transformer>,
    vae_encoder: Component<Session>,
    vae: Component<Session>,
    sweep: Sweep,
}

/// The images of a request and how they were made.
#[non_exhaustive]
pub struct Generated {
    /// The images; the seed of image i is the request's plus i.
    pub images: Vec<Image>,
    /// The clean latents `[images, channels, h, w]`, before the image decoder's scale.
    pub latents: Vec<f32>,
    /// The timesteps visited.
    pub timesteps: Vec<f32>,
    /// What was done at each timestep.
    pub plan: Vec<Decision>,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the deep core's kept output lay in the host's memory, not in a GPU's.
    pub deep_on_host: bool,
    /// The prompts that were longer than the text encoders read: `prompt`, `negative_prompt`.
    pub truncated: Vec<&'static str>,
}

impl Pipeline {
    /// Loads all graphs of the artifact folder `path`, after checking that none was changed. On a
    /// [low-memory](Backend::low_memory) backend every request loads them, component by component.
    ///
    /// # Errors
    /// When the folder is incomplete or changed, or `backend` cannot run its graphs.
    pub fn load(path: &Path, backend: Backend) -> Result<Pipeline> {
        Pipeline::open(Artifacts::open(path)?, backend)
    }

    /// As [`Pipeline::load`], of a folder whose manifest was read already.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn open(artifacts: impl Into<Arc<Artifacts>>, backend: Backend) -> Result<Pipeline> {
        let artifacts = artifacts.into();
        artifacts.check_engine(&backend)?;
        artifacts.check_code()?;
        let text = Component::new(TextEncoders::load, &artifacts, &backend)?;
        let transformer = Component::new(Transformer::load, &artifacts, &backend)?;
        let image_encoder = Component::later(image_prompt::load);
        let vae_encoder = Component::later(load_vae_encoder);
        let vae = Component::new(load_vae, &artifacts, &backend)?;
        let sweep = Sweep::default();
        Ok(Pipeline {
            artifacts,
            backend,
            text,
            image_encoder,
            transformer,
            vae_encoder,
            vae,
            sweep,
        })
    }

    /// What the model is.
    pub fn manifest(&self) -> &Manifest {
        &self.artifacts.manifest
    }

    /// The folder the model was loaded from.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The backend the model runs on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Draws the images of `request`; `on_step` is called after every step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] rather than a black image; otherwise what the
    /// backend says.
    pub fn generate(
        &mut self,
        request: &CheckedRequest,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Generated> {
        let timer = self.backend.timer();
        timer.record();
        let prompt = self.encode_prompt(request)?;
        let images = self.encode(request)?;
        let mut transformer = self.transformer()?;
        let mut state = transformer.begin(request, &prompt, &images)?;
        let began = Instant::now();
        while !state.is_done() {
            on_step(transformer.step(&mut state)?);
        }
        let denoise = began.elapsed();
        let Denoised { latents, timesteps, decisions, truncated, deep_on_host } = state.finish();
        drop(transformer);
        let images = self.decode(request, &latents)?;
        let mut timings = timer.recorded();
        (timings.began, timings.denoise) = (Some(began), denoise);
        let plan = decisions;
        Ok(Generated { images, latents, timesteps, plan, timings, deep_on_host, truncated })
    }

    /// Takes `request` to its first step.
    ///
    /// # Errors
    /// What the backend says.
    pub fn begin(&mut self, request: &CheckedRequest) -> Result<DenoiseState> {
        let prompt = self.encode_prompt(request)?;
        let images = self.encode(request)?;
        self.transformer()?.begin(request, &prompt, &images)
    }

    /// The prompts of `request`, texts and image, as the transformer reads them.
    ///
    /// # Errors
    /// When a number is not finite, or what the backend says.
    pub fn encode_prompt(&mut self, request: &CheckedRequest) -> Result<PromptEmbeds> {
        let mut prompt = self.text_encoders()?.encode(request)?;
        if request.image_prompt.is_some() {
            let Pipeline { artifacts, backend, image_encoder, .. } = self;
            let mut encoder = image_encoder.load(artifacts, backend)?;
            let image = ImageEmbeds::encode(&artifacts.manifest, backend, &mut encoder, request)?;
            prompt.image = Some(image);
        }
        Ok(prompt)
    }

    /// The text encoders, loaded now on a [low-memory](Backend::low_memory) backend.
    ///
    /// # Errors
    /// When they cannot be loaded.
    pub fn text_encoders(&mut self) -> Result<Loaded<'_, TextEncoders>> {
        self.text.load(&self.artifacts, &self.backend)
    }

    /// The transformer, loaded now on a [low-memory](Backend::low_memory) backend.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn transformer(&mut self) -> Result<Loaded<'_, Transformer>> {
        self.transformer.load(&self.artifacts, &self.backend)
    }

    /// The latents of the images that `request` brings along: the one that it is made from, and those
    /// of its ControlNets.
    ///
    /// # Errors
    /// When a value is not finite, or what the backend says.
    pub fn encode(&mut self, request: &CheckedRequest) -> Result<EncodedImages> {
        let Request { init_image, controls, .. } = &**request;
        let mut images = EncodedImages::default();
        if init_image.is_none() && controls.is_empty() {
            return Ok(images);
        }
        let vae = &self.artifacts.manifest.model.vae;
        let shape = [1, 3, request.height, request.width];
        let mut encoder = self.vae_encoder.load(&self.artifacts, &self.backend)?;
        let mut encode = |planes: &[f32]| -> Result<Vec<f32>> {
            let image = self.backend.tensor_f32(&shape, planes)?;
            let timed = self.backend.timer().start(Stage::VaeEncoder);
            let moments = encoder.run_single(&[("image", &image)])?;
            drop(timed);
            let values = moments.read_f32()?.to_vec();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err(Error::NotEncoded),
            }
        };
        if let Some(init_image) = init_image {
            let pixels = init_image.pixels();
            let repaint = pixels.repaint_latents(vae.factor());
            let values = encode(&pixels.planes())?;
            images.init = Some(Moments::new(values, vae.scaling_factor, repaint));
        }
        for control in controls {
            let mut means = encode(&control.planes())?;
            means.truncate(means.len() / 2);
            means.iter_mut().for_each(|mean| *mean *= vae.scaling_factor);
            images.controls.push(means);
        }
        Ok(images)
    }

    /// The images of clean `latents`, `[images, channels, h, w]`, of the size of `request`.
    ///
    /// # Errors
    /// When an image is not finite, or what the backend says.
    pub fn decode(&mut self, request: &Request, latents: &[f32]) -> Result<Vec<Image>> {
        let mut vae = self.vae.load(&self.artifacts, &self.backend)?;
        let model = &self.artifacts.manifest.model;
        let sizes = sizes(&self.artifacts.manifest, request);
        let shape = [1, model.transformer.shape().in_channels, sizes.height, sizes.width];
        let mut images = Vec::new();
        for latents in latents.chunks(shape.iter().product()) {
            let scaled: Vec<f32> = latents.iter().map(|v| v / model.vae.scaling_factor).collect();
            let scaled = self.backend.tensor_f32(&shape, &scaled)?;
            let timed = self.backend.timer().start(Stage::Vae);
            let pixels = vae.run_single(&[("latents", &scaled)])?;
            drop(timed);
            images.push(Image::from_decoder(&pixels.read_f32()?, request.width, request.height)?);
        }
        drop(vae);
        self.sweep.run(&self.backend)?;
        Ok(images)
    }
}

fn load_vae_encoder(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Session> {
    let mut encoder = artifacts.load_seldom("vae-encoder", backend)?;
    encoder.outputs_to_host(&["moments"])?;
    Ok(encoder)
}

fn load_vae(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Session> {
    let mut vae = artifacts.load_seldom("vae-decoder", backend)?;
    vae.outputs_to_host(&["image"])?;
    Ok(vae)
}
