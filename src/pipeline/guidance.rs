//! Classifier-free guidance on the host. Follows `HunyuanDiTPipeline.__call__` and
//! `rescale_noise_cfg` of diffusers.

/// One picture's guided prediction: `uncond + scale * (cond - uncond)`, then with `rescale > 0`
/// moved towards the spread of `cond`. All `[channels, h, w]` of equal length.
pub fn guide(uncond: &[f32], cond: &[f32], scale: f32, rescale: f32, out: &mut [f32]) {
    for ((out, &uncond), &cond) in out.iter_mut().zip(uncond).zip(cond) {
        *out = uncond + scale * (cond - uncond);
    }
    if rescale > 0.0 {
        let factor = deviation(cond) / deviation(out);
        for out in out {
            *out = rescale * (*out * factor) + (1.0 - rescale) * *out;
        }
    }
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

    #[test]
    fn scale_one_gives_the_conditional_prediction() {
        let mut out = [0.0; 3];
        guide(&[1.0, 2.0, 3.0], &[4.0, 6.0, 5.0], 1.0, 0.0, &mut out);
        assert_eq!(out, [4.0, 6.0, 5.0]);
    }

    #[test]
    fn full_rescale_gives_the_spread_of_the_conditional_prediction() {
        let (uncond, cond) = ([0.1, -0.4, 0.3, 0.9], [0.5, -1.0, 0.25, 2.0]);
        let mut out = [0.0; 4];
        guide(&uncond, &cond, 7.0, 1.0, &mut out);
        assert!((deviation(&out) - deviation(&cond)).abs() < 1e-6);
        assert!((deviation(&[1.0, 3.0]) - 2f32.sqrt()).abs() < 1e-6);
    }
}
