//! `DPMSolverMultistepScheduler.step` of diffusers (`scheduling_dpmsolver_multistep.py`) with
//! `dpmsolver++`, order 2, `midpoint` and a final sigma of zero: DPM-Solver++, arXiv 2211.01095.

use super::level::exp;
use super::{Level, PredictionType};

/// The coefficients of every step, and the x0 predicted at the step before.
#[derive(Clone, Debug)]
pub(super) struct Dpmpp {
    prediction: PredictionType,
    steps: Vec<Step>,
    /// Predicted x0 of the last step taken; empty before the first.
    previous: Vec<f32>,
    /// The step that must come next.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    level: Level,
    /// The weights of the present latents and of x0.
    x: f32,
    x0: f32,
    /// 1 / r: the weight of the difference to the previous x0. None at the first step, which has no
    /// previous one, and at the last, where h is infinite.
    slope: Option<f32>,
}

impl Dpmpp {
    /// Of the noise levels `sigmas` of all steps and that at the end.
    pub fn new(prediction: PredictionType, sigmas: &[f32]) -> Dpmpp {
        let levels: Vec<Level> = sigmas.iter().map(|&sigma| Level::of_ratio(sigma)).collect();
        let count = sigmas.len() - 1;
        let step = |i: usize| {
            let (now, then) = (levels[i], levels[i + 1]);
            let h = then.lambda() - now.lambda();
            let inner = i > 0 && i + 1 < count;
            Step {
                level: now,
                x: then.sigma / now.sigma,
                x0: then.alpha * (exp(-h) - 1.0),
                slope: inner.then(|| 1.0 / ((now.lambda() - levels[i - 1].lambda()) / h)),
            }
        };
        let steps = (0..count).map(step).collect();
        Dpmpp { prediction, steps, previous: Vec::new(), next: 0 }
    }

    /// Leaves out the first steps: the one that is the first then has none before it.
    pub fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
        self.steps[0].slope = None;
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise.
    pub fn next(&self) -> Vec<[f32; 6]> {
        let next = |s: &Step| {
            let bend = 0.5 * s.x0 * s.slope.unwrap_or_default();
            [s.x, -s.x0 - bend, 0.0, bend, 0.0, 0.0]
        };
        self.steps.iter().map(next).collect()
    }

    #[track_caller]
    pub fn step(&mut self, index: usize, model_output: &[f32], latents: &mut [f32]) {
        assert_eq!(index, self.next, "dpmms remembers the step before: steps go in order");
        self.next += 1;
        self.previous.resize(latents.len(), 0.0);
        let s = self.steps[index];
        let to_x0 = |x: &f32, output: &f32| s.level.clean(self.prediction, *x, *output);
        // First order without a slope, else second; x0 is kept for the next step.
        let all = latents.iter_mut().zip(model_output).zip(&mut self.previous);
        match s.slope {
            None => all.for_each(|((x, m), kept)| {
                let x0 = to_x0(x, m);
                *x = s.x * *x - s.x0 * x0;
                *kept = x0;
            }),
            Some(slope) => all.for_each(|((x, m), kept)| {
                let x0 = to_x0(x, m);
                let d1 = slope * (x0 - *kept);
                *x = s.x * *x - s.x0 * x0 - (0.5 * s.x0) * d1;
                *kept = x0;
            }),
        }
    }
}
