//! `DPMSolverMultistepScheduler.step` of diffusers (`scheduling_dpmsolver_multistep.py`) with
//! `dpmsolver++`, order 2, `midpoint` and a final sigma of zero: DPM-Solver++, arXiv 2211.01095.

use super::{NoiseSchedule, PredictionType};

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
    /// alpha and sigma at this timestep, alpha^2 + sigma^2 = 1.
    alpha: f32,
    sigma: f32,
    /// The weights of the present latents and of x0.
    x: f32,
    x0: f32,
    /// 1 / r: the weight of the difference to the previous x0. None at the first step, which has no
    /// previous one, and at the last, where h is infinite.
    slope: Option<f32>,
}

/// alpha, sigma and half the logarithm of the signal to noise ratio.
#[derive(Clone, Copy)]
struct Level {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

impl Level {
    /// `_sigma_to_alpha_sigma_t`; `sigma` here is the ratio sqrt((1 - a) / a).
    fn new(sigma: f32) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let sigma = sigma * alpha;
        Self { alpha, sigma, lambda: ln(alpha) - ln(sigma) }
    }
}

impl Dpmpp {
    pub(super) fn new(schedule: &NoiseSchedule, timesteps: &[u32]) -> Self {
        let table = schedule.alphas_cumprod();
        let sigmas = timesteps.iter().map(|&t| {
            let a = table[t as usize];
            ((1.0 - a) / a).sqrt()
        });
        let levels: Vec<Level> = sigmas.chain([0.0]).map(Level::new).collect();
        let step = |i: usize| {
            let (now, then) = (levels[i], levels[i + 1]);
            let h = then.lambda - now.lambda;
            let inner = i > 0 && i + 1 < timesteps.len();
            Step {
                alpha: now.alpha,
                sigma: now.sigma,
                x: then.sigma / now.sigma,
                x0: then.alpha * (exp(-h) - 1.0),
                slope: inner.then(|| 1.0 / ((now.lambda - levels[i - 1].lambda) / h)),
            }
        };
        let steps = (0..timesteps.len()).map(step).collect();
        Self { prediction: schedule.prediction_type, steps, previous: Vec::new(), next: 0 }
    }

    /// Leaves out the first steps: the one that is the first then has none before it.
    pub(super) fn begin_at(&mut self, first: usize) {
        self.steps.drain(..first);
        self.steps[0].slope = None;
    }

    /// For each step the factors of latents, clean latents, output, clean latents before and noise.
    pub(super) fn next(&self) -> Vec<[f32; 5]> {
        let next = |s: &Step| {
            let bend = 0.5 * s.x0 * s.slope.unwrap_or_default();
            [s.x, -s.x0 - bend, 0.0, bend, 0.0]
        };
        self.steps.iter().map(next).collect()
    }

    #[track_caller]
    pub(super) fn step(&mut self, index: usize, model_output: &[f32], latents: &mut [f32]) {
        assert_eq!(index, self.next, "dpmms remembers the step before: steps go in order");
        self.next += 1;
        self.previous.resize(latents.len(), 0.0);
        let s = self.steps[index];
        match self.prediction {
            PredictionType::VPrediction => {
                self.update(s, model_output, latents, |x, v| s.alpha * x - s.sigma * v);
            }
            PredictionType::Epsilon => {
                self.update(s, model_output, latents, |x, eps| (x - s.sigma * eps) / s.alpha);
            }
        }
    }

    /// First order without a slope, else second; keeps x0 for the next step.
    fn update(
        &mut self,
        s: Step,
        model_output: &[f32],
        latents: &mut [f32],
        to_x0: impl Fn(f32, f32) -> f32,
    ) {
        let all = latents.iter_mut().zip(model_output).zip(&mut self.previous);
        match s.slope {
            None => all.for_each(|((x, m), kept)| {
                let x0 = to_x0(*x, *m);
                *x = s.x * *x - s.x0 * x0;
                *kept = x0;
            }),
            Some(slope) => all.for_each(|((x, m), kept)| {
                let x0 = to_x0(*x, *m);
                let d1 = slope * (x0 - *kept);
                *x = s.x * *x - s.x0 * x0 - (0.5 * s.x0) * d1;
                *kept = x0;
            }),
        }
    }
}

/// The float32 nearest to the logarithm; torch's is within one unit in the last place of it.
fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// The float32 nearest to the exponential; torch's is within one unit in the last place of it.
fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}
