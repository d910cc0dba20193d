//! From samples to figures: medians over rounds, ratios paired by round.

use std::time::Duration;

use anyhow::Result;
use hydit::eval::compare::{Comparison, compare};
use hydit::eval::matmul::Probe;
use hydit::pipeline::cost::StepCosts;
use hydit::timing::Stage;

use super::Report;
use super::measure::{Round, Variant};
use hydit::eval::statistics::{median, percentile};

/// The middle of samples, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// Figures of a variant. Times are in seconds.
pub struct Figures {
    pub denoise: Spread,
    pub total: Spread,
    pub steps_per_second: f64,
    pub images_per_second: f64,
    /// Share of the loop outside the engine.
    pub overhead: f64,
    /// Of the loop over that of the first variant.
    pub speed_up: Spread,
    /// For a policy other than `off`.
    pub cache: Option<Cache>,
}

/// What a cache policy gains, and what it costs.
pub struct Cache {
    /// Speed-up of the loop that the plan allows by FLOPs.
    pub allowed: f64,
    /// Against `off` in the same setup, where that was measured.
    pub off: Option<AgainstOff>,
}

/// A cached variant beside its uncached twin.
pub struct AgainstOff {
    pub speed_up: Spread,
    /// Share of the allowed speed-up that was reached.
    pub reached: f64,
    /// In dB, infinite for equal pictures; of the worst picture.
    pub psnr: f64,
    pub ssim: f64,
}

/// All calls of a graph, or of the large product.
pub struct Calls {
    pub seconds: Vec<f64>,
    pub median: f64,
    pub p95: f64,
    pub flops: f64,
}

impl Calls {
    /// None without a call.
    fn new(seconds: Vec<f64>, flops: f64) -> Option<Calls> {
        (!seconds.is_empty()).then(|| Calls {
            median: median(&seconds),
            p95: percentile(&seconds, 95),
            seconds,
            flops,
        })
    }

    /// FLOPs per second of a median call.
    pub fn rate(&self) -> f64 {
        self.flops / self.median
    }
}

/// Whether the large product is a limit to `stage`: it is what the linears of the blocks compute.
pub fn limited(stage: Stage) -> bool {
    matches!(stage, Stage::Encoder | Stage::Core | Stage::Decoder)
}

impl Report {
    /// Figures of the variant at `index`.
    pub fn figures(&self, index: usize) -> Result<Figures> {
        let variant = &self.variants[index];
        let setup = &self.setups[variant.setup];
        let denoise = spread(variant, denoise);
        let total = spread(variant, |round| round.total.as_secs_f64());
        Ok(Figures {
            denoise,
            total,
            steps_per_second: variant.made.plan.len() as f64 / denoise.median,
            images_per_second: setup.request.num_images as f64 / total.median,
            overhead: spread(variant, |round| round.timings.overhead()).median,
            speed_up: faster(variant, &self.variants[0]),
            cache: self.cache(variant)?,
        })
    }

    fn cache(&self, variant: &Variant) -> Result<Option<Cache>> {
        if variant.policy.is_off() {
            return Ok(None);
        }
        let setup = &self.setups[variant.setup];
        let costs = StepCosts::of(setup.manifest(), &setup.request);
        let allowed = costs.speed_up(&variant.made.plan);
        let twin =
            self.variants.iter().find(|twin| twin.setup == variant.setup && twin.policy.is_off());
        let off = match twin {
            None => None,
            Some(twin) => {
                let speed_up = faster(variant, twin);
                let Comparison { psnr, ssim, .. } =
                    Comparison::worst(&compare(&twin.made, &variant.made)?);
                Some(AgainstOff { speed_up, reached: speed_up.median / allowed, psnr, ssim })
            }
        };
        Ok(Some(Cache { allowed, off }))
    }

    /// All calls of `stage` in all variants of a setup.
    pub fn calls(&self, setup: usize, stage: Stage) -> Option<Calls> {
        let seconds = self.rounds_of(setup).flat_map(|round| round.timings.each(stage));
        Calls::new(seconds.map(Duration::as_secs_f64).collect(), self.setups[setup].flops(stage)?)
    }

    /// All large products of a setup.
    pub fn products(&self, setup: usize) -> Option<Calls> {
        let seconds = self.rounds_of(setup).flat_map(|round| &round.products);
        let flops = Probe::flops(&self.setups[setup].sizes());
        Calls::new(seconds.map(Duration::as_secs_f64).collect(), flops)
    }

    fn rounds_of(&self, setup: usize) -> impl Iterator<Item = &Round> {
        let variants = self.variants.iter().filter(move |variant| variant.setup == setup);
        variants.flat_map(|variant| &variant.rounds)
    }
}

fn denoise(round: &Round) -> f64 {
    round.timings.denoise.as_secs_f64()
}

fn spread(variant: &Variant, figure: impl Fn(&Round) -> f64) -> Spread {
    Spread::of(&variant.rounds.iter().map(figure).collect::<Vec<_>>())
}

/// How many times faster the loop of `variant` is than that of `base` in the same round.
fn faster(variant: &Variant, base: &Variant) -> Spread {
    let pairs = base.rounds.iter().zip(&variant.rounds);
    Spread::of(&pairs.map(|(base, own)| denoise(base) / denoise(own)).collect::<Vec<_>>())
}

impl Spread {
    fn of(samples: &[f64]) -> Spread {
        let (low, high) = samples
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        Spread { median: median(samples), low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_ends_of_its_samples() {
        let spread = Spread::of(&[1.5, 0.5, 4.0]);
        assert_eq!(spread, Spread { median: 1.5, low: 0.5, high: 4.0 });
    }
}
