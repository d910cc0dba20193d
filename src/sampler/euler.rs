//! `EulerDiscreteScheduler.step` and `EulerAncestralDiscreteScheduler.step` of diffusers
//! (`scheduling_euler_discrete.py`, `scheduling_euler_ancestral_discrete.py`): Euler's method in the
//! noise level (arXiv 2206.00364, algorithm 1), the ancestral one a step too far and fresh noise on
//! top.
//!
//! The latents are an image with `sigma` times noise on it, so their size grows with the noise; the
//! model reads them divided by `sqrt(sigma^2 + 1)`.

use super::{PredictionType, add_noise};
use crate::sampler::TorchGenerator;

/// The coefficients of every step, float32 in diffusers' order of operations.
#[derive(Clone, Debug)]
pub(super) struct Euler {
    prediction: PredictionType,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// The noise level at this step, and at the next one.
    sigma: f32,
    next: f32,
    /// The noise level that Euler's method goes to, less that at this step.
    dt: f32,
    /// The standard deviation of fresh noise.
    noise: f32,
}

impl Euler {
    /// Of the noise levels `sigmas` of all steps and that at the end.
    pub fn new(prediction: PredictionType, sigmas: &[f32], ancestral: bool) -> Euler {
        let step = |pair: &[f32]| {
            let (from, to) = (pair[0], pair[1]);
            let square = |x: f32| x * x;
            let up = if ancestral {
                (square(to) * (square(from) - square(to)) / square(from)).sqrt()
            } else {
                0.0
            };
            let down = if ancestral { (square(to) - square(up)).sqrt() } else { to };
            Step { sigma: from, next: to, dt: down - from, noise: up }
        };
        Euler { prediction, steps: sigmas.windows(2).map(step).collect() }
    }

    /// Leaves out the first steps.
    pub fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
    }

    /// The standard deviation of latents at a step.
    pub fn scale(&self, index: usize) -> f32 {
        size(self.steps[index].sigma)
    }

    /// `clean` latents with `noise` at a step.
    pub fn noised(&self, index: usize, clean: f32, noise: f32) -> f32 {
        clean + noise * self.steps[index].sigma
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise; the latents divided as the model reads them, also the next ones.
    pub fn next(&self) -> Vec<[f32; 6]> {
        let next = |s: &Step| {
            let share = s.dt / s.sigma;
            let then = size(s.next);
            [size(s.sigma) * (1.0 + share) / then, -share / then, 0.0, 0.0, 0.0, s.noise / then]
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
        let pairs = latents.iter_mut().zip(model_output);
        match self.prediction {
            PredictionType::VPrediction => {
                let square = s.sigma * s.sigma + 1.0;
                let output = -s.sigma / square.sqrt();
                pairs.for_each(|(x, v)| {
                    let x0 = v * output + *x / square;
                    *x += (*x - x0) / s.sigma * s.dt;
                });
            }
            PredictionType::Epsilon => pairs.for_each(|(x, eps)| {
                let x0 = *x - s.sigma * eps;
                *x += (*x - x0) / s.sigma * s.dt;
            }),
        }
        if s.noise > 0.0 {
            add_noise(s.noise, latents, noise);
        }
    }
}

/// The standard deviation of an image of standard deviation 1 with `sigma` times noise on it.
fn size(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}
