//! `--compare`: the same request without the cache, and what the cache gained and cost.

use std::path::PathBuf;

use anyhow::Result;
use hydit::cache::CachePolicy;
use hydit::eval::compare;
use hydit::image::ImageError;
use hydit::pipeline::cost::StepCosts;
use hydit::{Generated, Pipeline, Request};
use hydit_graphs::Manifest;
use serde_json::{Value, json};

use super::progress::Progress;

/// A cached run beside its uncached twin.
pub struct Comparison {
    uncached_seconds: f64,
    cached_seconds: f64,
    /// What the plan allows by FLOPs.
    allowed: f64,
    /// Of the worst picture of the batch, in dB.
    psnr: f64,
    ssim: f64,
    side_by_side: PathBuf,
}

/// Draws `request` without the cache, after a short run that warms the engine up.
pub fn uncached(pipeline: &mut Pipeline, request: &Request) -> Result<Generated> {
    let steps = request.steps.min(2);
    let warm_up = Request { cache_policy: CachePolicy::off(), steps, ..request.clone() };
    pipeline.generate(&warm_up.check(pipeline.artifacts())?, &mut |_| {})?;
    let mut progress = Progress::new("uncached");
    let uncached = Request { cache_policy: CachePolicy::off(), ..request.clone() };
    let uncached = uncached.check(pipeline.artifacts())?;
    let made = pipeline.generate(&uncached, &mut |step| progress.step(step))?;
    progress.finish();
    Ok(made)
}

/// Compares two runs of `request`.
pub fn compare(
    manifest: &Manifest,
    request: &Request,
    uncached: &Generated,
    cached: &Generated,
    side_by_side: PathBuf,
) -> Result<Comparison, ImageError> {
    let worst = compare::Comparison::worst(&compare::compare(uncached, cached)?);
    Ok(Comparison {
        uncached_seconds: uncached.timings.denoise.as_secs_f64(),
        cached_seconds: cached.timings.denoise.as_secs_f64(),
        allowed: StepCosts::of(manifest, request).speed_up(&cached.plan),
        psnr: worst.psnr,
        ssim: worst.ssim,
        side_by_side,
    })
}

impl Comparison {
    fn speed_up(&self) -> f64 {
        self.uncached_seconds / self.cached_seconds
    }

    /// Three lines for people.
    pub fn text(&self) -> String {
        format!(
            "denoising {:.1} ms without cache, {:.1} ms with: {:.2}x faster ({:.2}x by FLOPs)\n\
             to the uncached picture: PSNR {:.1} dB, SSIM {:.4}\n\
             side by side, uncached left: {}\n\n",
            1e3 * self.uncached_seconds,
            1e3 * self.cached_seconds,
            self.speed_up(),
            self.allowed,
            self.psnr,
            self.ssim,
            self.side_by_side.display()
        )
    }

    /// The same as data; PSNR is null when the pictures are equal.
    pub fn json(&self) -> Value {
        json!({
            "uncached_denoise_seconds": self.uncached_seconds,
            "speed_up": self.speed_up(),
            "speed_up_allowed": self.allowed,
            "psnr": self.psnr.is_finite().then_some(self.psnr),
            "ssim": self.ssim,
            "side_by_side": self.side_by_side,
        })
    }
}
