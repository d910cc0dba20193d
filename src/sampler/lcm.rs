//! `LCMScheduler.step` of diffusers (`scheduling_lcm.py`): latent consistency models, arXiv
//! 2310.04378, algorithm 3. Its boundary scalings are those of that class: `sigma_data` 0.5,
//! `timestep_scaling` 10.

use super::{Level, NoiseSchedule, PredictionType, add_noise};
use crate::sampler::TorchGenerator;

/// `sigma_data` of the boundary scalings.
const SIGMA_DATA: f32 = 0.5;
/// `timestep_scaling` of the boundary scalings.
const TIMESTEP_SCALING: f32 = 10.0;

/// The coefficients of every step, float32 in diffusers' order of operations.
#[derive(Clone, Debug)]
pub(super) struct Lcm {
    prediction: PredictionType,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    level: Level,
    /// The boundary scalings: the weights of the latents and of x0 in the clean image.
    skip: f32,
    out: f32,
    /// The level at the next step; none after the last, which ends at the clean image.
    next: Option<Level>,
}

impl Lcm {
    pub fn new(schedule: &NoiseSchedule, timesteps: &[f32]) -> Lcm {
        let table = schedule.alphas_cumprod();
        let level = |t: f32| Level::of_product(table[t as usize]);
        let step = |(i, &t): (usize, &f32)| {
            let scaled = t * TIMESTEP_SCALING;
            let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
            Step {
                level: level(t),
                skip: SIGMA_DATA * SIGMA_DATA / square,
                out: scaled / square.sqrt(),
                next: timesteps.get(i + 1).map(|&t| level(t)),
            }
        };
        let steps = timesteps.iter().enumerate().map(step).collect();
        Lcm { prediction: schedule.prediction_type, steps }
    }

    /// Leaves out the first steps.
    pub fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise.
    pub fn next(&self) -> Vec<[f32; 6]> {
        let next = |s: &Step| {
            let Level { alpha, sigma } = s.next.unwrap_or(Level { alpha: 1.0, sigma: 0.0 });
            [alpha * s.skip, alpha * s.out, 0.0, 0.0, 0.0, sigma]
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
        for (x, output) in latents.iter_mut().zip(model_output) {
            let x0 = s.level.clean(self.prediction, *x, *output);
            *x = s.out * x0 + s.skip * *x;
        }
        if let Some(next) = s.next {
            latents.iter_mut().for_each(|x| *x *= next.alpha);
            add_noise(next.sigma, latents, noise);
        }
    }
}
