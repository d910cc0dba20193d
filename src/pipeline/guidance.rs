//! Guidance on the host: classifier-free and by perturbed attention. Follows
//! `HunyuanDiTPAGPipeline.__call__`, `PAGMixin` and `rescale_noise_cfg` of diffusers.

use crate::request::Request;

/// What the rows of one picture predict, all `[channels, h, w]` of equal length.
pub struct Predictions<'a> {
    /// Of the negative prompt, if the picture is drawn away from it.
    pub negative: Option<&'a [f32]>,
    /// Of the prompt.
    pub positive: &'a [f32],
    /// Of the prompt with perturbed self-attention, if the picture is drawn away from that.
    pub perturbed: Option<&'a [f32]>,
}

impl Predictions<'_> {
    /// The guided prediction at `timestep`, by the scales of `request`, into `out`:
    /// `negative + guidance_scale * (positive - negative) + pag_scale * (positive - perturbed)`, or
    /// `positive` for the first two terms where there is no negative prompt. With one, and with a
    /// `guidance_rescale`, it is moved towards the spread of `positive`.
    pub fn guide(&self, request: &Request, timestep: f32, out: &mut [f32]) {
        let Predictions { negative, positive, perturbed } = *self;
        out.copy_from_slice(positive);
        if let Some(negative) = negative {
            for ((out, &negative), &positive) in out.iter_mut().zip(negative).zip(positive) {
                *out = negative + request.guidance_scale * (positive - negative);
            }
        }
        if let Some(perturbed) = perturbed {
            let scale = pag_scale(request, timestep);
            for ((out, &perturbed), &positive) in out.iter_mut().zip(perturbed).zip(positive) {
                *out += scale * (positive - perturbed);
            }
        }
        let rescale = request.guidance_rescale;
        if negative.is_some() && rescale > 0.0 {
            let factor = deviation(positive) / deviation(out);
            for out in out {
                *out = rescale * (*out * factor) + (1.0 - rescale) * *out;
            }
        }
    }
}

/// The scale of guidance by perturbed attention at `timestep`: `PAGMixin._get_pag_scale`.
fn pag_scale(request: &Request, timestep: f32) -> f32 {
    let Request { pag_scale, pag_adaptive_scale, .. } = *request;
    (pag_scale - pag_adaptive_scale * (1000.0 - timestep)).max(0.0)
}

/// Standard deviation, unbiased as `torch.std`.
fn deviation(values: &[f32]) -> f32 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    (square / (n - 1.0)).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guided prediction of a picture that is drawn away from `negative`.
    fn guided<const N: usize>(
        negative: &[f32; N],
        positive: &[f32; N],
        scale: f32,
        rescale: f32,
    ) -> [f32; N] {
        let request = serde_json::json!({
            "prompt": "a cat", "width": 16, "height": 16, "steps": 1, "seed": 0,
            "guidance_scale": scale, "guidance_rescale": rescale,
            "sampler": "ddpm", "spacing": "leading", "cache_policy": "off",
        });
        let request: Request = serde_json::from_value(request).expect("a request");
        let mut out = [0.0; N];
        Predictions { negative: Some(negative), positive, perturbed: None }
            .guide(&request, 999.0, &mut out);
        out
    }

    #[test]
    fn an_adaptive_scale_falls_to_nothing_with_the_timestep() {
        let request = serde_json::json!({
            "prompt": "a cat", "width": 16, "height": 16, "steps": 1, "seed": 0,
            "guidance_scale": 1, "guidance_rescale": 0, "pag_scale": 3, "pag_adaptive_scale": 0.01,
            "sampler": "ddpm", "spacing": "leading", "cache_policy": "off",
        });
        let request: Request = serde_json::from_value(request).expect("a request");
        for (timestep, scale) in [(1000.0, 3.0), (900.0, 2.0), (700.0, 0.0), (1.0, 0.0)] {
            assert_eq!(pag_scale(&request, timestep), scale, "{timestep}");
        }
    }

    #[test]
    fn scale_one_gives_the_conditional_prediction() {
        assert_eq!(guided(&[1.0, 2.0, 3.0], &[4.0, 6.0, 5.0], 1.0, 0.0), [4.0, 6.0, 5.0]);
    }

    #[test]
    fn full_rescale_gives_the_spread_of_the_conditional_prediction() {
        let (uncond, cond) = ([0.1, -0.4, 0.3, 0.9], [0.5, -1.0, 0.25, 2.0]);
        let out = guided(&uncond, &cond, 7.0, 1.0);
        assert!((deviation(&out) - deviation(&cond)).abs() < 1e-6);
        assert!((deviation(&[1.0, 3.0]) - 2f32.sqrt()).abs() < 1e-6);
    }
}
