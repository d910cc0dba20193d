//! `--compare`: the same request without the cache, and what the cache gained and cost.

use anyhow::Result;
use hydit::cache::CachePolicy;
use hydit::eval::compare::{Comparison, compare};
use hydit::image::{Image, Texts};
use hydit::pipeline::cost::StepCosts;
use hydit::{Generated, Pipeline, Request};
use serde_json::{Value, json};

use super::pictures::Pictures;
use crate::cmd::files::Output;
use crate::cmd::progress::Progress;

/// What the cache gained in a run, and what it cost.
pub struct Gain {
    /// Seconds of the denoising loop without the cache.
    uncached_seconds: f64,
    /// Seconds of the denoising loop with it.
    cached_seconds: f64,
    /// The speed-up that the plan allows by FLOPs.
    allowed: f64,
    /// The worst of each figure over the batch.
    worst: Comparison,
    /// The file with both images of each seed.
    side_by_side: Output,
}

/// Draws `request` without the cache, after a short run that warms the engine up.
pub fn uncached(pipeline: &mut Pipeline, request: &Request) -> Result<Generated> {
    let uncached = Request { cache_policy: CachePolicy::off(), ..request.clone() };
    let warm_up = Request { steps: request.steps.min(2), init_image: None, ..uncached.clone() };
    pipeline.generate(&warm_up.check(pipeline.artifacts())?, &mut |_| {})?;
    let uncached = uncached.check(pipeline.artifacts())?;
    let mut progress = Progress::new("uncached");
    let made = pipeline.generate(&uncached, &mut |step| progress.step(step))?;
    progress.finish();
    Ok(made)
}

/// Compares two runs of `request`, and writes their images side by side, uncached left.
pub fn gain(
    pipeline: &Pipeline,
    request: &Request,
    uncached: &Generated,
    cached: &Generated,
    pictures: &Pictures,
) -> Result<Gain> {
    let side_by_side = pictures.compared.clone().expect("two runs are compared");
    let mut rows = Vec::with_capacity(cached.images.len());
    for (left, right) in uncached.images.iter().zip(&cached.images) {
        rows.push(Image::side_by_side(&[left.clone(), right.clone()])?);
    }
    pictures.write(&side_by_side, &Image::stacked(&rows)?, &Texts::new())?;
    Ok(Gain {
        uncached_seconds: uncached.timings.denoise.as_secs_f64(),
        cached_seconds: cached.timings.denoise.as_secs_f64(),
        allowed: StepCosts::of(pipeline.manifest(), request).speed_up(&cached.plan),
        worst: Comparison::worst(&compare(uncached, cached)?),
        side_by_side,
    })
}

impl Gain {
    fn speed_up(&self) -> f64 {
        self.uncached_seconds / self.cached_seconds
    }

    /// Writes it as three lines for people.
    pub fn text(&self) -> String {
        format!(
            "denoising {:.1} ms without cache, {:.1} ms with: {:.2}x faster ({:.2}x by FLOPs)\n\
             to the uncached picture: PSNR {:.1} dB, SSIM {:.4}\n\
             side by side, uncached left: {}\n\n",
            1e3 * self.uncached_seconds,
            1e3 * self.cached_seconds,
            self.speed_up(),
            self.allowed,
            self.worst.psnr,
            self.worst.ssim,
            self.side_by_side
        )
    }

    /// Gives it as data. PSNR is null when the images are equal.
    pub fn json(&self) -> Value {
        json!({
            "uncached_denoise_seconds": self.uncached_seconds,
            "speed_up": self.speed_up(),
            "speed_up_allowed": self.allowed,
            "psnr": self.worst.psnr.is_finite().then_some(self.worst.psnr),
            "ssim": self.worst.ssim,
            "side_by_side": self.side_by_side.to_string(),
        })
    }
}
