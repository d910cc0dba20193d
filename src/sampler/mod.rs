//! Samplers: which timesteps to visit, and how a model output moves the latents from one to the
//! next.
//!
//! `Sampler` is made per request. It is plain float32 arithmetic on the host, in the order of
//! operations of diffusers' schedulers, so that a trajectory has the bits of the reference. One
//! file per sampler ([`SamplerKind`]); the choice of timesteps is that of [`NoiseLevels`].

mod ddim;
mod ddpm;
mod dpmpp;
mod error;
mod euler;
mod lcm;
mod level;
mod torch_rng;
mod unipc;

use hydit_graphs::single::COEFFICIENTS;
use hydit_graphs::timesteps::NoiseLevels;

use self::level::Level;
pub use error::SamplerError;
pub use hydit_graphs::sampler::SamplerKind;
pub use hydit_graphs::scheduler::{BetaSchedule, NoiseSchedule, PredictionType, Spacing};
pub use torch_rng::TorchGenerator;

/// One request's sampler: the timesteps, and what it remembers between steps.
///
/// Latents of `euler` and `euler-ancestral` are as large as their noise is: they begin as noise of
/// [another size](Sampler::init_noise_sigma), and the model reads them
/// [scaled](Sampler::scale_model_input). Those of the others always have the size that it reads.
#[derive(Clone, Debug)]
pub struct Sampler {
    kind: SamplerKind,
    timesteps: Vec<f32>,
    method: Method,
    prediction: PredictionType,
    init_noise_sigma: f32,
    /// Those of every step.
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
enum Method {
    Ddpm(ddpm::Ddpm),
    Ddim(ddim::Ddim),
    Dpmms(dpmpp::Dpmpp),
    UniPc(unipc::UniPc),
    Euler(euler::Euler),
    Lcm(lcm::Lcm),
}

impl Sampler {
    /// A sampler of `steps` steps; `ddim` with eta 0.
    ///
    /// # Errors
    /// When `steps` is 0, above the number of training timesteps, or when the spacing is none of the sampler's, gives
    /// a timestep twice or one that was never trained (a handful of step counts next to the maximum).
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
        if !kind.spacings().contains(&spacing) {
            return Err(SamplerError::Spacing { kind, spacing });
        }
        let NoiseLevels { timesteps, sigmas } = NoiseLevels::new(schedule, kind, spacing, steps)
            .ok_or(SamplerError::Timesteps { kind, spacing, steps, max })?;
        let prediction = schedule.prediction_type;
        let by_ratio = || sigmas[..steps].iter().map(|&sigma| Level::of_ratio(sigma)).collect();
        let by_product = || {
            let table = schedule.alphas_cumprod();
            timesteps.iter().map(|&t| Level::of_product(table[t as usize])).collect()
        };
        let mut init_noise_sigma = 1.0;
        let (method, levels) = match kind {
            SamplerKind::Ddpm => {
                (Method::Ddpm(ddpm::Ddpm::new(schedule, &timesteps)), by_product())
            }
            SamplerKind::Ddim => {
                (Method::Ddim(ddim::Ddim::new(schedule, &timesteps, eta)), by_product())
            }
            SamplerKind::Lcm => (Method::Lcm(lcm::Lcm::new(schedule, &timesteps)), by_product()),
            SamplerKind::Dpmms => {
                (Method::Dpmms(dpmpp::Dpmpp::new(prediction, &sigmas)), by_ratio())
            }
            SamplerKind::UniPc => {
                let levels = by_ratio();
                (Method::UniPc(unipc::UniPc::new(prediction, sigmas)), levels)
            }
            SamplerKind::Euler | SamplerKind::EulerAncestral => {
                let euler =
                    euler::Euler::new(prediction, &sigmas, kind == SamplerKind::EulerAncestral);
                // What diffusers takes for an image of zeros, and for one of deviation 1.
                init_noise_sigma =
                    if spacing == Spacing::Leading { euler.scale(0) } else { sigmas[0] };
                (Method::Euler(euler), by_ratio())
            }
        };
        Ok(Self { kind, timesteps, method, prediction, init_noise_sigma, levels })
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
            Method::UniPc(unipc) => unipc.begin_at(first),
            Method::Euler(euler) => euler.begin_at(first),
            Method::Lcm(lcm) => lcm.begin_at(first),
        }
        self
    }

    /// Whether it reads variances behind the predictions.
    pub fn learns_variance(&self) -> bool {
        matches!(&self.method, Method::Ddpm(ddpm) if ddpm.learns_variance())
    }

    /// Which sampler this is.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// The timesteps visited, descending. They are whole numbers but for `euler` and `euler-ancestral`; with
    /// [`Spacing::Karras`] neighbours can be equal.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// What the noise that a run begins with is multiplied with.
    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    /// Makes `latents` at `timesteps()[index]` what the model reads, in place.
    ///
    /// # Panics
    /// When there is no such step.
    #[track_caller]
    pub fn scale_model_input(&self, index: usize, latents: &mut [f32]) {
        if let Method::Euler(euler) = &self.method {
            let scale = euler.scale(index);
            latents.iter_mut().for_each(|x| *x /= scale);
        }
    }

    /// What clean latents `model_output` means at `timesteps()[index]`, all laid out as `latents`:
    /// to show, not to go on with.
    ///
    /// # Panics
    /// When there is no such step.
    #[track_caller]
    pub fn clean(&self, index: usize, model_output: &[f32], latents: &[f32]) -> Vec<f32> {
        let mut clean = latents.to_vec();
        self.scale_model_input(index, &mut clean);
        for (x, output) in clean.iter_mut().zip(model_output) {
            *x = self.levels[index].clean(self.prediction, *x, *output);
        }
        clean
    }

    /// `clean` latents with as much of `noise` as there is at `timesteps()[index]`: `add_noise` of
    /// diffusers' schedulers.
    ///
    /// # Panics
    /// When there is no such step.
    #[track_caller]
    pub fn noised(&self, index: usize, clean: &[f32], noise: &[f32]) -> Vec<f32> {
        let pairs = clean.iter().zip(noise);
        if let Method::Euler(euler) = &self.method {
            return pairs.map(|(x, z)| euler.noised(index, *x, *z)).collect();
        }
        let Level { alpha, sigma } = self.levels[index];
        pairs.map(|(x, z)| alpha * x + sigma * z).collect()
    }

    /// The factors of image and noise at each step, in latents of the size that the model reads.
    pub(crate) fn levels(&self) -> Vec<[f32; 2]> {
        self.levels.iter().map(|level| [level.alpha, level.sigma]).collect()
    }

    /// The factors of every step, for those who take the steps themselves, with latents of the size
    /// that the model reads. With `k` those of a step, the clean latents are `k[0]` times the latents
    /// plus `k[1]` times the model's output; the next latents are `k[2]` times the latents, plus `k[3]`
    /// times the clean ones, `k[4]` times the output, `k[5]` times the clean ones of the step before,
    /// `k[6]` times those of the step before that and `k[7]` times fresh noise.
    pub fn coefficients(&self) -> Vec<[f32; COEFFICIENTS]> {
        let next = match &self.method {
            Method::Ddpm(ddpm) => ddpm.next(),
            Method::Ddim(ddim) => ddim.next(),
            Method::Dpmms(dpmpp) => dpmpp.next(),
            Method::UniPc(unipc) => unipc.next(),
            Method::Euler(euler) => euler.next(),
            Method::Lcm(lcm) => lcm.next(),
        };
        let clean = |&Level { alpha, sigma }: &Level| match self.prediction {
            PredictionType::VPrediction => [alpha, -sigma],
            PredictionType::Epsilon => [1.0 / alpha, -sigma / alpha],
        };
        let rows = self.levels.iter().zip(next);
        rows.map(|(level, [x, x0, output, before, before_that, noise])| {
            let [from_x, from_output] = clean(level);
            [from_x, from_output, x, x0, output, before, before_that, noise]
        })
        .collect()
    }

    /// Moves `latents` from `timesteps()[index]` to the next timestep, in place.
    ///
    /// `model_output` is the guided prediction at that timestep, laid out as `latents`: [n, 4, h,
    /// w] of n pictures; behind it, laid out likewise, the model's variances if it has learned any,
    /// which `ddpm` reads of a schedule that says so. `noise` holds one generator per picture, the
    /// one that drew the picture's first latents; samplers that draw nothing (`dpmms`, `unipc`,
    /// `euler`, `ddim` with eta 0) do not look at it.
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
        let outputs = model_output.len() / latents.len().max(1);
        assert!(outputs * latents.len() == model_output.len(), "one prediction per latent");
        assert!(outputs == 2 || !self.learns_variance(), "one variance per latent");
        match &mut self.method {
            Method::Ddpm(ddpm) => ddpm.step(index, model_output, latents, noise),
            Method::Ddim(ddim) => ddim.step(index, model_output, latents, noise),
            Method::Dpmms(dpmpp) => dpmpp.step(index, model_output, latents),
            Method::UniPc(unipc) => unipc.step(index, model_output, latents),
            Method::Euler(euler) => euler.step(index, model_output, latents, noise),
            Method::Lcm(lcm) => lcm.step(index, model_output, latents, noise),
        }
    }
}

/// Adds `scale` times fresh noise to each picture from its own generator, as diffusers'
/// `randn_tensor` draws for a list of generators.
#[track_caller]
fn add_noise(scale: f32, latents: &mut [f32], noise: &mut [TorchGenerator]) {
    add_scaled_noise(latents, noise, |_| scale);
}

/// [`add_noise`] with a `scale` for each latent, by its place.
#[track_caller]
fn add_scaled_noise(
    latents: &mut [f32],
    noise: &mut [TorchGenerator],
    scale: impl Fn(usize) -> f32,
) {
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
    for (i, (picture, generator)) in latents.chunks_exact_mut(size).zip(noise).enumerate() {
        for (j, (x, z)) in picture.iter_mut().zip(generator.randn(size)).enumerate() {
            *x += scale(i * size + j) * z;
        }
    }
}
