//! The figures of a contender: means over its samples.

use hydit::eval::Contender;
use hydit::eval::statistics::{mean, mean_psnr, percentile};

use super::Report;
use super::judge::Sample;

/// The family of the controls.
const CONTROL: &str = "fewer steps";

/// The means of one contender over all prompts and seeds.
#[derive(Default)]
pub struct Means {
    /// The contender as text.
    pub label: String,
    /// The name of the curve on which the contender lies.
    pub family: String,
    /// Number of steps that ran the deep core.
    pub refreshes: f64,
    pub steps: usize,
    /// Speed-up of the denoising loop by FLOPs.
    pub speed_up: f64,
    /// Seconds of the denoising loop for one image.
    pub seconds: f64,
    /// PSNR in dB, over the images that are not equal to the uncached one; infinite when all are.
    pub psnr: f64,
    /// The PSNR in dB that nine images in ten have or exceed.
    pub p10: f64,
    pub ssim: f64,
    pub latent_error: f64,
}

impl Report {
    /// Computes the means of each contender.
    pub fn means(&self) -> Vec<Means> {
        self.contenders.iter().enumerate().map(|(i, contender)| self.mean(i, contender)).collect()
    }

    fn mean(&self, index: usize, contender: &Contender) -> Means {
        let samples: Vec<&Sample> =
            self.samples.iter().filter(|sample| sample.contender == index).collect();
        let all = |figure: fn(&Sample) -> f64| {
            samples.iter().map(|sample| figure(sample)).collect::<Vec<f64>>()
        };
        let psnr = all(|sample| sample.to_uncached.psnr);
        let label = contender.to_string();
        let family = match contender {
            Contender::Policy(_) => family(&label),
            Contender::Steps(_) => CONTROL.to_string(),
        };
        Means {
            label,
            family,
            refreshes: mean(&all(|sample| sample.refreshes as f64)),
            steps: samples.first().map_or(0, |sample| sample.steps),
            speed_up: mean(&all(|sample| sample.speed_up)),
            seconds: mean(&all(|sample| sample.seconds)),
            psnr: mean_psnr(&psnr),
            p10: percentile(&psnr, 10),
            ssim: mean(&all(|sample| sample.to_uncached.ssim)),
            latent_error: mean(&all(|sample| sample.to_uncached.latent_error)),
        }
    }
}

impl Means {
    /// Whether the contender is the control: no cache, fewer steps.
    pub fn is_control(&self) -> bool {
        self.family == CONTROL
    }
}

/// Names what a policy shares with those that differ from it in their first number:
/// `N3-700-50+taylor1` -> `N+taylor1`, since 700-50 is the usual window, `N3-1000-0` -> `N-1000-0`,
/// `auto:35dB` -> `auto`.
pub fn family(policy: &str) -> String {
    if let Some((kind, value)) = policy.split_once(':') {
        return match value.rsplit_once('+') {
            Some((_, more)) if more.chars().all(|c| c.is_ascii_alphanumeric()) => {
                format!("{kind}+{more}")
            }
            _ => kind.to_string(),
        };
    }
    let kind = policy.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let (kind, rest) = policy.split_at(policy.len() - kind.len());
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{kind}{}", rest.replacen("-700-50", "", 1))
}

/// Writes a PSNR: "38.2 dB", or "equal" for infinity.
pub fn decibels(psnr: f64) -> String {
    if psnr.is_finite() { format!("{psnr:.1} dB") } else { "equal".to_string() }
}

/// Writes a mean count: "14" or, for policies that differ from image to image, "13.5".
pub fn count(mean: f64) -> String {
    if mean.fract() == 0.0 { format!("{mean}") } else { format!("{mean:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_differ_in_numbers_are_of_one_family() {
        let families = [
            ("N3-700-50", "N"),
            ("N12-1000-0", "N-1000-0"),
            ("N3-700-50+taylor1", "N+taylor1"),
            ("N3-700-50+align", "N+align"),
            ("schedule:some/folder-2/v1.2.txt", "schedule"),
            ("schedule:a+b/cat.txt", "schedule"),
            ("probe:0.12", "probe"),
            ("probe:0.12+taylor2", "probe+taylor2"),
            ("auto:35dB", "auto"),
            ("off", "off"),
        ];
        for (policy, expected) in families {
            assert_eq!(family(policy), expected, "{policy}");
        }
    }
}
