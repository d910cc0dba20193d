//! `DDIMScheduler.step` of diffusers (`scheduling_ddim.py`): Denoising Diffusion Implicit Models,
//! arXiv 2010.02502, formulas (12) and (16).

use super::{Level, NoiseSchedule, PredictionType, add_noise};
use crate::sampler::TorchGenerator;

/// The coefficients of every step, float32 in diffusers' order of operations.
#[derive(Clone, Debug)]
pub(super) struct Ddim {
    prediction: PredictionType,
    steps: Vec<Step>,
    /// With eta 0 nothing is drawn.
    noisy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    level: Level,
    /// The weights of x0 and of the predicted noise.
    x0: f32,
    direction: f32,
    /// The standard deviation of fresh noise.
    noise: f32,
}

impl Ddim {
    pub fn new(schedule: &NoiseSchedule, timesteps: &[f32], eta: f32) -> Self {
        let table = schedule.alphas_cumprod();
        // The next noise level is one whole stride below, whatever the next timestep is.
        let stride = schedule.num_train_timesteps / timesteps.len();
        let last = if schedule.set_alpha_to_one { 1.0 } else { table[0] };
        let step = |&t: &f32| {
            let a = table[t as usize];
            let a_prev = (t as usize).checked_sub(stride).map_or(last, |t| table[t]);
            let b = 1.0 - a;
            let variance = ((1.0 - a_prev) / b) * (1.0 - a / a_prev);
            let noise = eta * variance.sqrt();
            Step {
                level: Level::of_product(a),
                x0: a_prev.sqrt(),
                direction: (1.0 - a_prev - noise * noise).sqrt(),
                noise,
            }
        };
        let steps = timesteps.iter().map(step).collect();
        Self { prediction: schedule.prediction_type, steps, noisy: eta > 0.0 }
    }

    /// Leaves out the first steps.
    pub fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise.
    pub fn next(&self) -> Vec<[f32; 6]> {
        let next = |s: &Step| {
            let [x, output] = match self.prediction {
                PredictionType::VPrediction => {
                    [s.direction * s.level.sigma, s.direction * s.level.alpha]
                }
                PredictionType::Epsilon => [0.0, s.direction],
            };
            [x, s.x0, output, 0.0, 0.0, s.noise]
        };
        self.steps.iter().map(next).collect()
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
        let Level { alpha, sigma } = s.level;
        for (x, output) in latents.iter_mut().zip(model_output) {
            let x0 = s.level.clean(self.prediction, *x, *output);
            let eps = match self.prediction {
                PredictionType::VPrediction => alpha * output + sigma * *x,
                PredictionType::Epsilon => *output,
            };
            *x = s.x0 * x0 + s.direction * eps;
        }
        if self.noisy {
            add_noise(s.noise, latents, noise);
        }
    }
}
