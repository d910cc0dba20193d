//! `UniPCMultistepScheduler.step` of diffusers (`scheduling_unipc_multistep.py`) with `bh2`, order 2,
//! `predict_x0` and a final sigma of zero: UniPC, arXiv 2302.04867, algorithms 5 to 8.
//!
//! A step corrects the latents that the step before has predicted, with the prediction of the model
//! that has come of them, and predicts the next ones. The correction needs no call of the model.

use super::level::exp_m1;
use super::{Level, PredictionType};

/// The coefficients of every step, and what it remembers of the steps before.
#[derive(Clone, Debug)]
pub(super) struct UniPc {
    prediction: PredictionType,
    sigmas: Vec<f32>,
    steps: Vec<Step>,
    /// The corrected latents of the last step taken; empty before the first.
    corrected: Vec<f32>,
    /// x0 of the last step taken and of that before, as the model predicted them.
    past: [Vec<f32>; 2],
    /// The step that must come next.
    next: usize,
}

/// From one noise level to the next, predicted at its beginning and corrected at its end.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// At its beginning.
    level: Level,
    /// The weights of the latents, and of the newest x0 and of differences to it.
    x: f32,
    x0: f32,
    /// `rk`, by which the difference to the x0 before is divided. None of order 1, which has none
    /// before it or ends at sigma 0.
    ratio: Option<f32>,
    /// The weights of the differences to the x0 before and to the one after, in the correction.
    rhos: [f32; 2],
}

impl UniPc {
    /// Of the noise levels `sigmas` of all steps and that at the end.
    pub fn new(prediction: PredictionType, sigmas: Vec<f32>) -> UniPc {
        let steps = steps(&sigmas);
        let (corrected, past) = (Vec::new(), [Vec::new(), Vec::new()]);
        UniPc { prediction, sigmas, steps, corrected, past, next: 0 }
    }

    /// Leaves out the first steps: the one that is the first then has none before it.
    pub fn begin_at(&mut self, first: usize) {
        self.sigmas.drain(..first);
        self.steps = steps(&self.sigmas);
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and before
    /// that, and noise. The latents are those predicted, not those corrected.
    pub fn next(&self) -> Vec<[f32; 6]> {
        let next = |i: usize| {
            let s = self.steps[i];
            // Of the correction, what it adds to the predicted latents.
            let [mut now, mut before, mut before_that] = [0.0; 3];
            if i > 0 {
                let done = self.steps[i - 1];
                let slope = done.ratio.map_or(0.0, |ratio| (done.rhos[0] - 0.5) / ratio);
                now = -done.x0 * done.rhos[1];
                before = done.x0 * (done.rhos[1] + slope);
                before_that = -done.x0 * slope;
            }
            let slope = s.ratio.map_or(0.0, |ratio| 0.5 * s.x0 / ratio);
            let clean = s.x * now - s.x0 + slope;
            [s.x, clean, 0.0, s.x * before - slope, s.x * before_that, 0.0]
        };
        (0..self.steps.len()).map(next).collect()
    }

    #[track_caller]
    pub fn step(&mut self, index: usize, model_output: &[f32], latents: &mut [f32]) {
        assert_eq!(index, self.next, "unipc remembers the steps before: steps go in order");
        self.next += 1;
        let s = self.steps[index];
        let pairs = latents.iter().zip(model_output);
        let x0 = pairs.map(|(x, output)| s.level.clean(self.prediction, *x, *output));
        let x0: Vec<f32> = x0.collect();
        if index > 0 {
            self.correct(self.steps[index - 1], &x0, latents);
        }
        self.corrected.clear();
        self.corrected.extend_from_slice(latents);
        self.past.swap(0, 1);
        self.past[0] = x0;
        let all = latents.iter_mut().zip(&self.past[0]);
        match s.ratio {
            None => all.for_each(|(x, m0)| *x = s.x * *x - s.x0 * m0),
            Some(ratio) => all.zip(&self.past[1]).for_each(|((x, m0), m1)| {
                *x = s.x * *x - s.x0 * m0 - s.x0 * (0.5 * ((m1 - m0) / ratio));
            }),
        }
    }

    /// `multistep_uni_c_bh_update`: the latents at the end of the step `s`, at which the model has
    /// predicted `x0`.
    fn correct(&self, s: Step, x0: &[f32], latents: &mut [f32]) {
        let [m0s, m1s] = &self.past;
        let all = latents.iter_mut().zip(&self.corrected).zip(x0).zip(m0s);
        match s.ratio {
            None => all.for_each(|(((x, last), x0), m0)| {
                *x = s.x * last - s.x0 * m0 - s.x0 * (s.rhos[1] * (x0 - m0));
            }),
            Some(ratio) => all.zip(m1s).for_each(|((((x, last), x0), m0), m1)| {
                let sum = s.rhos[0] * ((m1 - m0) / ratio) + s.rhos[1] * (x0 - m0);
                *x = s.x * last - s.x0 * m0 - s.x0 * sum;
            }),
        }
    }
}

fn steps(sigmas: &[f32]) -> Vec<Step> {
    let levels: Vec<Level> = sigmas.iter().map(|&sigma| Level::of_ratio(sigma)).collect();
    let count = sigmas.len() - 1;
    let step = |i: usize| {
        let (now, then) = (levels[i], levels[i + 1]);
        let h = then.lambda() - now.lambda();
        let first_order = i == 0 || i + 1 == count;
        let ratio = (!first_order).then(|| (levels[i - 1].lambda() - now.lambda()) / h);
        Step {
            level: now,
            x: then.sigma / now.sigma,
            x0: then.alpha * exp_m1(-h),
            ratio,
            rhos: ratio.map_or([0.0, 0.5], |ratio| rhos(-h, ratio)),
        }
    };
    (0..count).map(step).collect()
}

/// The solution of `rho_0 + rho_1 = b_1`, `ratio * rho_0 + rho_1 = b_2`.
fn rhos(hh: f32, ratio: f32) -> [f32; 2] {
    let phi = exp_m1(hh);
    let phi_1 = phi / hh - 1.0;
    let phi_2 = phi_1 / hh - 0.5;
    let [b_1, b_2] = [phi_1 / phi, phi_2 * 2.0 / phi].map(f64::from);
    let rho_0 = (b_2 - b_1) / (f64::from(ratio) - 1.0);
    [rho_0 as f32, (b_1 - rho_0) as f32]
}
