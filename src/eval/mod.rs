//! What a cache costs in quality and gains in time.
//!
//! A [`Trial`] draws a request uncached and by each of its [`Contender`]s. The control among them
//! is the same request, uncached, in fewer steps: a cache that loses to it gains nothing.

pub mod calibrate;
pub mod compare;
pub mod finite;
pub mod machine;
pub mod matmul;
pub mod statistics;
pub mod verify;

use std::fmt;

use self::compare::{Comparison, compare};
use crate::artifacts::Artifacts;
use crate::cache::{CachePolicy, refreshes};
use crate::error::Result;
use crate::image::Image;
use crate::pipeline::cost::StepCosts;
use crate::pipeline::{Generated, Pipeline};
use crate::request::{CheckedRequest, Request};

/// A way to draw a request with less work.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// With this cache policy.
    Policy(CachePolicy),
    /// Without a cache, in this many steps.
    Steps(usize),
}

/// A request and its contenders, checked.
pub struct Trial {
    uncached: CheckedRequest,
    contenders: Vec<(Contender, CheckedRequest)>,
}

/// The uncached images of a request, and what its contenders made of it.
pub struct Evaluation {
    /// Every step with the deep core.
    pub uncached: Generated,
    /// One for each contender, in their order.
    pub outcomes: Vec<Outcome>,
}

/// How a contender drew a request.
pub struct Outcome {
    /// The number of steps that ran the deep core.
    pub refreshes: usize,
    /// The number of all steps.
    pub steps: usize,
    /// How many times less work the denoising loop was, in FLOPs.
    pub speed_up: f64,
    /// Wall time of the denoising loop for all images together.
    pub seconds: f64,
    /// The images; the seed of image i is the request's plus i.
    pub images: Vec<Image>,
    /// Each image beside the uncached one.
    pub comparisons: Vec<Comparison>,
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

impl Trial {
    /// Checks `request` without a cache and by each of `contenders`.
    ///
    /// # Errors
    /// As [`Request::check`].
    pub fn new(
        artifacts: &Artifacts,
        request: &Request,
        contenders: &[Contender],
    ) -> Result<Trial> {
        let uncached = Contender::Policy(CachePolicy::off()).request(request).check(artifacts)?;
        let mut checked = Vec::with_capacity(contenders.len());
        for contender in contenders {
            checked.push((contender.clone(), contender.request(request).check(artifacts)?));
        }
        Ok(Trial { uncached, contenders: checked })
    }

    /// The number of contenders.
    pub fn contenders(&self) -> usize {
        self.contenders.len()
    }

    /// The same trial of another prompt.
    ///
    /// # Errors
    /// As [`CheckedRequest::with_prompt`].
    pub fn with_prompt(&self, prompt: &str) -> Result<Trial> {
        let mut contenders = Vec::with_capacity(self.contenders.len());
        for (contender, request) in &self.contenders {
            contenders.push((contender.clone(), request.with_prompt(prompt)?));
        }
        Ok(Trial { uncached: self.uncached.with_prompt(prompt)?, contenders })
    }

    /// Draws the request without a cache, then by each contender; `on_next` is told what is drawn
    /// next.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn run(
        &self,
        pipeline: &mut Pipeline,
        on_next: &mut dyn FnMut(&str),
    ) -> Result<Evaluation> {
        on_next("uncached");
        let uncached = pipeline.generate(&self.uncached, &mut |_| {})?;
        let costs = StepCosts::of(pipeline.manifest(), &self.uncached);
        let mut outcomes = Vec::with_capacity(self.contenders.len());
        for (contender, request) in &self.contenders {
            on_next(&contender.to_string());
            let made = pipeline.generate(request, &mut |_| {})?;
            let speed_up = match contender {
                Contender::Policy(_) => costs.speed_up(&made.plan),
                Contender::Steps(steps) => self.uncached.steps as f64 / *steps as f64,
            };
            outcomes.push(Outcome {
                refreshes: refreshes(&made.plan),
                steps: made.plan.len(),
                speed_up,
                seconds: made.timings.denoise.as_secs_f64(),
                comparisons: compare(&uncached, &made)?,
                images: made.images,
            });
        }
        Ok(Evaluation { uncached, outcomes })
    }
}
