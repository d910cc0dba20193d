//! How much of the image and of the noise there is in latents.

use super::PredictionType;

/// The factors of image and noise, whose squares sum to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub alpha: f32,
    pub sigma: f32,
}

impl Level {
    /// At a timestep whose cumulative product of alphas is `a`, as `ddpm`, `ddim` and `lcm` have it.
    pub fn of_product(a: f32) -> Level {
        Level { alpha: a.sqrt(), sigma: (1.0 - a).sqrt() }
    }

    /// `_sigma_to_alpha_sigma_t`, of the ratio `sigma` of noise to image.
    pub fn of_ratio(sigma: f32) -> Level {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        Level { alpha, sigma: sigma * alpha }
    }

    /// The clean latents that the latents `x` and the model's `output` at them mean.
    #[inline]
    pub fn clean(self, prediction: PredictionType, x: f32, output: f32) -> f32 {
        match prediction {
            PredictionType::VPrediction => self.alpha * x - self.sigma * output,
            PredictionType::Epsilon => (x - self.sigma * output) / self.alpha,
        }
    }

    /// Half the logarithm of the signal to noise ratio.
    pub fn lambda(self) -> f32 {
        ln(self.alpha) - ln(self.sigma)
    }
}

/// The float32 nearest to the logarithm; torch's is within one unit in the last place of it.
fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// The float32 nearest to the exponential; torch's is within one unit in the last place of it.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// The float32 nearest to `exp(x) - 1`; torch's is within one unit in the last place of it.
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}
