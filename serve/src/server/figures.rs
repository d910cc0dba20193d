//! How images were made, in numbers.

use hydit::Request;
use hydit::cache::refreshes;
use hydit::sampler::SamplerKind;
use serde::{Deserialize, Serialize};

use super::scheduler::TaskOutput;

/// How images were made: part of every answer with images, and of a stored job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the model.
    pub model: String,
    /// Seed of each image.
    pub seeds: Vec<u64>,
    /// `WIDTHxHEIGHT` in pixels.
    pub size: String,
    /// Denoising steps.
    pub steps: usize,
    /// Number of steps that refreshed, that is, ran the deep core.
    pub core_runs: usize,
    /// Sampler.
    pub sampler: SamplerKind,
    /// Guidance scale.
    pub guidance: f32,
    /// Text of the cache policy.
    pub cache: String,
    /// Which of `prompt` and `negative_prompt` were longer than the text encoders read.
    pub truncated: Vec<String>,
    /// Time from submission to the first step.
    pub queued_seconds: f64,
    /// Time from then to the decoded images.
    pub drawing_seconds: f64,
}

impl Figures {
    /// The figures of `output`, drawn for `request` by the model of this name.
    pub fn new(model: &str, request: &Request, output: &TaskOutput) -> Figures {
        Figures {
            model: model.to_string(),
            seeds: (request.seed..).take(output.images.len()).collect(),
            size: format!("{}x{}", request.width, request.height),
            steps: request.steps_taken(),
            core_runs: refreshes(&output.plan),
            sampler: request.sampler,
            guidance: request.guidance_scale,
            cache: request.cache_policy.without_folder().to_string(),
            truncated: output.truncated.iter().map(ToString::to_string).collect(),
            queued_seconds: output.queued.as_secs_f64(),
            drawing_seconds: output.drawing.as_secs_f64(),
        }
    }
}
