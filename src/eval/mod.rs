//! Cache policies judged against the uncached picture of the same request.
//!
//! The control beside them is the same request, uncached, in fewer steps: a cache that loses to it gains nothing.

pub mod calibrate;
pub mod compare;
pub mod machine;
pub mod matmul;
pub mod statistics;
pub mod verify;

use std::fmt;

use crate::cache::{CachePolicy, refreshes, speed_up};
use crate::error::Result;
use crate::eval::compare::{psnr, ssim};
use crate::eval::verify::relative_error;
use crate::image::Image;
use crate::pipeline::transformer::step_costs;
use crate::pipeline::{Generated, Pipeline};
use crate::request::Request;

/// A way to draw a request with less work.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// With this cache policy.
    Policy(CachePolicy),
    /// Without a cache, in this many steps.
    Steps(usize),
}

/// The uncached pictures of a request, and what its contenders made of it.
pub struct Evaluation {
    /// Every step with the deep core.
    pub uncached: Generated,
    /// One for each contender, in their order.
    pub outcomes: Vec<Outcome>,
}

/// How a contender drew a request.
pub struct Outcome {
    /// Steps that ran the deep core.
    pub core_runs: usize,
    /// All steps.
    pub steps: usize,
    /// Of the denoising loop, by FLOPs.
    pub speed_up: f64,
    /// The denoising loop of the whole batch, measured.
    pub seconds: f64,
    /// The batch.
    pub pictures: Vec<Judged>,
}

/// A picture beside the uncached one of the same seed.
pub struct Judged {
    /// The picture.
    pub image: Image,
    /// In dB; infinite when the pictures are equal.
    pub psnr: f64,
    /// 1 when they are equal.
    pub ssim: f64,
    /// Root mean square of the clean latents' difference over that of the uncached ones.
    pub latent_error: f64,
}

/// Draws `request` without a cache, then once for each of `contenders`; `told` hears what is drawn next.
///
/// # Errors
/// As [`Pipeline::generate`].
pub fn evaluate(
    pipeline: &mut Pipeline,
    request: &Request,
    contenders: &[Contender],
    told: &mut dyn FnMut(&str),
) -> Result<Evaluation> {
    told("uncached");
    let uncached = Request { cache_policy: CachePolicy::off(), ..request.clone() };
    let uncached = pipeline.generate(&uncached, &mut |_| {})?;
    let (full, reused) = step_costs(pipeline.manifest(), request);
    let mut outcomes = Vec::with_capacity(contenders.len());
    for contender in contenders {
        told(&contender.to_string());
        let made = pipeline.generate(&contender.request(request), &mut |_| {})?;
        let speed_up = match contender {
            Contender::Policy(_) => speed_up(full, reused, &made.plan),
            Contender::Steps(steps) => request.steps as f64 / *steps as f64,
        };
        outcomes.push(Outcome {
            core_runs: refreshes(&made.plan),
            steps: made.plan.len(),
            speed_up,
            seconds: made.timings.denoise.as_secs_f64(),
            pictures: judge(&uncached, made)?,
        });
    }
    Ok(Evaluation { uncached, outcomes })
}

impl Contender {
    /// What it makes of `request`.
    pub fn request(&self, request: &Request) -> Request {
        let mut request = Request { cache_policy: CachePolicy::off(), ..request.clone() };
        match self {
            Contender::Policy(policy) => request.cache_policy.clone_from(policy),
            Contender::Steps(steps) => request.steps = *steps,
        }
        request
    }
}

/// The policy's text; `off, 8 steps` for fewer steps.
impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contender::Policy(policy) => policy.fmt(f),
            Contender::Steps(steps) => write!(f, "off, {steps} steps"),
        }
    }
}

/// The pictures of `made` beside those of `uncached`.
///
/// # Errors
/// When they are not of one size.
pub fn judge(uncached: &Generated, made: Generated) -> Result<Vec<Judged>> {
    let one = made.latents.len() / made.images.len();
    let latents = made.latents.chunks(one).zip(uncached.latents.chunks(one));
    let mut judged = Vec::with_capacity(made.images.len());
    for ((image, reference), (own, clean)) in
        made.images.into_iter().zip(&uncached.images).zip(latents)
    {
        judged.push(Judged {
            psnr: psnr(reference, &image)?,
            ssim: ssim(reference, &image)?,
            latent_error: relative_error(own, clean),
            image,
        });
    }
    Ok(judged)
}
