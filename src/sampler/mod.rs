//! Samplers: which timesteps to visit, and how a model output moves the latents from one to the
//! next.
//!
//! `Sampler` is made per request. It is plain float32 arithmetic on the host, in the order of
//! operations of diffusers' schedulers, so that a trajectory has the bits of the reference. One
//! file per sampler ([`SamplerKind`]); the choice of timesteps is that of [`timesteps`].

mod ddim;
mod ddpm;
mod dpmpp;
mod error;
mod torch_rng;

use hydit_graphs::single::COEFFICIENTS;
use hydit_graphs::timesteps::timesteps;
use serde::{Deserialize, Serialize};

use crate::util::UnknownName;
pub use error::SamplerError;
pub use hydit_graphs::scheduler::{BetaSchedule, NoiseSchedule, PredictionType, Spacing};
pub use torch_rng::TorchGenerator;

/// The sampler, by the names of Tencent's `--sampler`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumMessage,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = SamplerError, parse_err_fn = unknown_sampler)]
pub enum SamplerKind {
    /// diffusers' `DDPMScheduler`: ancestral, fresh noise at every step.
    Ddpm,
    /// diffusers' `DDIMScheduler`: deterministic unless eta is raised.
    Ddim,
    /// diffusers' `DPMSolverMultistepScheduler`: DPM-Solver++ of order 2, midpoint; good from about
    /// 15 steps.
    Dpmms,
}

/// One request's sampler: the timesteps, and what it remembers between steps.
#[derive(Clone, Debug)]
pub struct Sampler {
    kind: SamplerKind,
    timesteps: Vec<u32>,
    method: Method,
    prediction: PredictionType,
    /// sqrt(a) and sqrt(1 - a) of every step.
    levels: Vec<[f32; 2]>,
}

#[derive(Clone, Debug)]
enum Method {
    Ddpm(ddpm::Ddpm),
    Ddim(ddim::Ddim),
    Dpmms(dpmpp::Dpmpp),
}

impl Sampler {
    /// A sampler of `steps` steps; `ddim` with eta 0.
    ///
    /// # Errors
    /// When `steps` is 0, above the number of training timesteps, or when the spacing gives a timestep twice or one
    /// that was never trained (a handful of step counts next to the maximum).
    pub fn new(
        kind: SamplerKind,
        schedule: &NoiseSchedule,
        spacing: Spacing,
        steps: usize,
    ) -> Result<Self, SamplerError> {
        Self::with_eta(kind, schedule, spacing, steps, 0.0)
    }

    /// As [`Sampler::new`], with the share of fresh noise of `ddim`: 0 is deterministic, 1 as noisy
    /// as `ddpm`.
    ///
    /// # Errors
    /// Also when `eta` is outside 0..=1, or not 0 for another sampler than `ddim`.
    pub fn with_eta(
        kind: SamplerKind,
        schedule: &NoiseSchedule,
        spacing: Spacing,
        steps: usize,
        eta: f32,
    ) -> Result<Self, SamplerError> {
        if !(0.0..=1.0).contains(&eta) || (eta != 0.0 && kind != SamplerKind::Ddim) {
            return Err(SamplerError::Eta { eta, kind });
        }
        let max = schedule.num_train_timesteps;
        if steps == 0 || steps > max {
            return Err(SamplerError::Steps { steps, max });
        }
        let timesteps = timesteps(schedule, spacing, steps, kind == SamplerKind::Dpmms)
            .ok_or(SamplerError::Timesteps { kind, spacing, steps, max })?;
        let method = match kind {
            SamplerKind::Ddpm => Method::Ddpm(ddpm::Ddpm::new(schedule, &timesteps)),
            SamplerKind::Ddim => Method::Ddim(ddim::Ddim::new(schedule, &timesteps, eta)),
            SamplerKind::Dpmms => Method::Dpmms(dpmpp::Dpmpp::new(schedule, &timesteps)),
        };
        let table = schedule.alphas_cumprod();
        let level = |&t: &u32| [table[t as usize].sqrt(), (1.0 - table[t as usize]).sqrt()];
        let levels = timesteps.iter().map(level).collect();
        Ok(Self { kind, timesteps, method, prediction: schedule.prediction_type, levels })
    }

    /// The sampler of a run that begins at step `first`: the steps before it are left out, and it
    /// remembers nothing of them.
    ///
    /// # Panics
    /// When no step is left.
    #[track_caller]
    pub fn begin_at(mut self, first: usize) -> Self {
        assert!(first < self.timesteps.len(), "step {first} of {}", self.timesteps.len());
        self.timesteps.drain(..first);
        self.levels.drain(..first);
        match &mut self.method {
            Method::Ddpm(ddpm) => ddpm.begin_at(first),
            Method::Ddim(ddim) => ddim.begin_at(first),
            Method::Dpmms(dpmpp) => dpmpp.begin_at(first),
        }
        self
    }

    /// Which sampler this is.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// The training timesteps visited, in order, each larger than the next.
    pub fn timesteps(&self) -> &[u32] {
        &self.timesteps
    }

    /// What clean latents `model_output` means at `timesteps()[index]`, all laid out as `latents`:
    /// to show, not to go on with.
    ///
    /// # Panics
    /// When there is no such step.
    #[track_caller]
    pub fn clean(&self, index: usize, model_output: &[f32], latents: &[f32]) -> Vec<f32> {
        let [alpha, sigma] = self.levels[index];
        let clean = |(x, out): (&f32, &f32)| match self.prediction {
            PredictionType::VPrediction => alpha * x - sigma * out,
            PredictionType::Epsilon => (x - sigma * out) / alpha,
        };
        latents.iter().zip(model_output).map(clean).collect()
    }

    /// `clean` latents with as much of `noise` as there is at `timesteps()[index]`: `add_noise` of
    /// diffusers' schedulers.
    ///
    /// # Panics
    /// When there is no such step.
    #[track_caller]
    pub fn noised(&self, index: usize, clean: &[f32], noise: &[f32]) -> Vec<f32> {
        let [alpha, sigma] = self.levels[index];
        clean.iter().zip(noise).map(|(x, z)| alpha * x + sigma * z).collect()
    }

    /// The factors of every step, for those who take the steps themselves. With `k` those of a step,
    /// the clean latents are `k[0]` times the latents plus `k[1]` times the model's output; the next
    /// latents are `k[2]` times the latents, plus `k[3]` times the clean ones, `k[4]` times the
    /// output, `k[5]` times the clean ones of the step before and `k[6]` times fresh noise.
    pub fn coefficients(&self) -> Vec<[f32; COEFFICIENTS]> {
        let next = match &self.method {
            Method::Ddpm(ddpm) => ddpm.next(),
            Method::Ddim(ddim) => ddim.next(),
            Method::Dpmms(dpmpp) => dpmpp.next(),
        };
        let clean = |[alpha, sigma]: [f32; 2]| match self.prediction {
            PredictionType::VPrediction => [alpha, -sigma],
            PredictionType::Epsilon => [1.0 / alpha, -sigma / alpha],
        };
        let rows = self.levels.iter().zip(next);
        rows.map(|(&level, [x, x0, output, before, noise])| {
            let [from_x, from_output] = clean(level);
            [from_x, from_output, x, x0, output, before, noise]
        })
        .collect()
    }

    /// Moves `latents` from `timesteps()[index]` to the next timestep, in place.
    ///
    /// `model_output` is the guided prediction at that timestep, laid out as `latents`: [n, 4, h,
    /// w] of n pictures. `noise` holds one generator per picture, the one that drew the picture's
    /// first latents; samplers that draw nothing (`dpmms`, `ddim` with eta 0) do not look at it.
    ///
    /// # Panics
    /// When the steps are not taken in order from 0, the lengths differ, or the latents do not divide into one part
    /// per generator.
    #[track_caller]
    pub fn step(
        &mut self,
        index: usize,
        model_output: &[f32],
        latents: &mut [f32],
        noise: &mut [TorchGenerator],
    ) {
        assert!(index < self.timesteps.len(), "step {index} of {}", self.timesteps.len());
        assert_eq!(model_output.len(), latents.len(), "one prediction per latent");
        match &mut self.method {
            Method::Ddpm(ddpm) => ddpm.step(index, model_output, latents, noise),
            Method::Ddim(ddim) => ddim.step(index, model_output, latents, noise),
            Method::Dpmms(dpmpp) => dpmpp.step(index, model_output, latents),
        }
    }
}

/// Adds `scale` times fresh noise to each picture from its own generator, as diffusers'
/// `randn_tensor` draws for a list of generators.
#[track_caller]
fn add_noise(scale: f32, latents: &mut [f32], noise: &mut [TorchGenerator]) {
    assert!(
        !noise.is_empty() && latents.len().is_multiple_of(noise.len()),
        "{} latents do not divide among {} generators",
        latents.len(),
        noise.len()
    );
    let size = latents.len() / noise.len();
    if size == 0 {
        return;
    }
    for (picture, generator) in latents.chunks_exact_mut(size).zip(noise) {
        for (x, z) in picture.iter_mut().zip(generator.randn(size)) {
            *x += scale * z;
        }
    }
}

fn unknown_sampler(name: &str) -> SamplerError {
    UnknownName::of::<SamplerKind>("sampler", name).into()
}
