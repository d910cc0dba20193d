//! The measurement of a sheet: all prompts, seeds and contenders, one after the other.

use anyhow::Result;
use hydit::eval::compare::Comparison;
use hydit::eval::{Evaluation, Trial};
use hydit::image::Image;
use hydit::{Pipeline, Request};

use crate::cmd::progress::Turns;

/// What one image of a contender cost, and how near it is to the uncached one.
#[derive(Clone)]
pub struct Sample {
    /// Index of the prompt.
    pub prompt: usize,
    pub seed: u64,
    /// Index of the contender.
    pub contender: usize,
    /// Number of steps that ran the deep core.
    pub refreshes: usize,
    pub steps: usize,
    /// Speed-up of the denoising loop by FLOPs.
    pub speed_up: f64,
    /// The image's share of its batch's denoising loop, in seconds.
    pub seconds: f64,
    pub to_uncached: Comparison,
}

/// A row of the sheet.
pub struct Shown {
    /// Index of the prompt.
    pub prompt: usize,
    pub uncached: Image,
    /// One for each contender.
    pub drawn: Vec<(Sample, Image)>,
}

/// Runs `trial` with each of `prompts`; keeps the images of the first `show` of them, of the first
/// seed of `base`.
///
/// # Errors
/// When a prompt cannot be drawn.
pub fn judge(
    pipeline: &mut Pipeline,
    base: &Request,
    prompts: &[String],
    trial: &Trial,
    show: usize,
) -> Result<(Vec<Sample>, Vec<Shown>)> {
    let mut bar = Turns::new(prompts.len() * (1 + trial.contenders()));
    let (mut samples, mut shown) = (Vec::new(), Vec::new());
    for (i, prompt) in prompts.iter().enumerate() {
        let on_next = &mut |what: &str| bar.next(&format!("{what}: {prompt}"));
        let mut evaluation = trial.with_prompt(prompt)?.run(pipeline, on_next)?;
        let measured = samples_of(&evaluation, i, base);
        if i < show {
            let uncached = evaluation.uncached.images.swap_remove(0);
            let firsts = measured.iter().filter(|sample| sample.seed == base.seed).cloned();
            let images =
                evaluation.outcomes.iter_mut().map(|outcome| outcome.images.swap_remove(0));
            shown.push(Shown { prompt: i, uncached, drawn: firsts.zip(images).collect() });
        }
        samples.extend(measured);
    }
    bar.finish();
    Ok((samples, shown))
}

fn samples_of(evaluation: &Evaluation, prompt: usize, request: &Request) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (contender, outcome) in evaluation.outcomes.iter().enumerate() {
        for (i, &to_uncached) in outcome.comparisons.iter().enumerate() {
            samples.push(Sample {
                prompt,
                seed: request.seed + i as u64,
                contender,
                refreshes: outcome.refreshes,
                steps: outcome.steps,
                speed_up: outcome.speed_up,
                seconds: outcome.seconds / request.num_images as f64,
                to_uncached,
            });
        }
    }
    samples
}
