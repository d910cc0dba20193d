//! `DDPMScheduler.step` of diffusers (`scheduling_ddpm.py`), variance `fixed_small` or
//! `learned_range`: Denoising Diffusion Probabilistic Models, arXiv 2006.11239, formulas (6), (7)
//! and (15); Improved Denoising Diffusion Probabilistic Models, arXiv 2102.09672, formula (15).

use hydit_graphs::scheduler::VarianceType;

use super::{Level, NoiseSchedule, PredictionType, add_noise, add_scaled_noise};
use crate::sampler::TorchGenerator;

/// The coefficients of every step, float32 in diffusers' order of operations.
#[derive(Clone, Debug)]
pub(super) struct Ddpm {
    prediction: PredictionType,
    steps: Vec<Step>,
    /// Whether the model predicts how much noise there is.
    learned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    level: Level,
    /// The weights of x0 and of the present latents in the mean.
    x0: f32,
    x: f32,
    /// The standard deviation; none at timestep 0, where no noise is drawn.
    noise: Option<f32>,
    /// Between which a learned variance lies: logarithms of that of `noise`, and of beta.
    range: [f32; 2],
}

impl Ddpm {
    pub fn new(schedule: &NoiseSchedule, timesteps: &[f32]) -> Self {
        let table = schedule.alphas_cumprod();
        let step = |(i, &t): (usize, &f32)| {
            let a = table[t as usize];
            let a_prev = timesteps.get(i + 1).map_or(1.0, |&t| table[t as usize]);
            let (b, b_prev) = (1.0 - a, 1.0 - a_prev);
            let current_alpha = a / a_prev;
            let current_beta = 1.0 - current_alpha;
            let variance = (b_prev / b * current_beta).max(1e-20);
            Step {
                level: Level::of_product(a),
                x0: a_prev.sqrt() * current_beta / b,
                x: current_alpha.sqrt() * b_prev / b,
                noise: (t > 0.0).then(|| variance.sqrt()),
                range: [variance, current_beta].map(|beta| f64::from(beta).ln() as f32),
            }
        };
        let steps = timesteps.iter().enumerate().map(step).collect();
        let learned = schedule.variance_type == VarianceType::LearnedRange;
        Self { prediction: schedule.prediction_type, steps, learned }
    }

    pub fn learns_variance(&self) -> bool {
        self.learned
    }

    /// Leaves out the first steps.
    pub fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise.
    pub fn next(&self) -> Vec<[f32; 6]> {
        self.steps.iter().map(|s| [s.x, s.x0, 0.0, 0.0, 0.0, s.noise.unwrap_or_default()]).collect()
    }

    #[track_caller]
    pub fn step(
        &self,
        index: usize,
        model_output: &[f32],
        latents: &mut [f32],
        noise: &mut [TorchGenerator],
    ) {
        let s = self.steps[index];
        for (x, output) in latents.iter_mut().zip(model_output) {
            let x0 = s.level.clean(self.prediction, *x, *output);
            *x = s.x0 * x0 + s.x * *x;
        }
        let Some(scale) = s.noise else { return };
        if !self.learned {
            return add_noise(scale, latents, noise);
        }
        let variance = &model_output[latents.len()..];
        add_scaled_noise(latents, noise, |i| {
            let share = (variance[i] + 1.0) / 2.0;
            let log = share * s.range[1] + (1.0 - share) * s.range[0];
            f64::from(0.5 * log).exp() as f32
        });
    }
}
