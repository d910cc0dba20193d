//! All prompts, seeds and contenders, one after the other.

use anyhow::Result;
use hydit::eval::{Evaluation, Trial};
use hydit::image::Image;
use hydit::{Pipeline, Request};

use crate::cmd::progress::Turns;

/// A picture of a contender beside the uncached one, as figures.
#[derive(Clone)]
pub struct Sample {
    /// Index of the prompt.
    pub prompt: usize,
    pub seed: u64,
    /// Index of the contender.
    pub contender: usize,
    pub core_runs: usize,
    pub steps: usize,
    /// By FLOPs.
    pub speed_up: f64,
    /// Its share of the batch's denoising loop.
    pub seconds: f64,
    /// In dB, infinite for equal pictures.
    pub psnr: f64,
    pub ssim: f64,
    pub latent_error: f64,
}

/// A row of the sheet.
pub struct Shown {
    /// Index of the prompt.
    pub prompt: usize,
    pub uncached: Image,
    /// One for each contender.
    pub drawn: Vec<(Sample, Image)>,
}

/// Judges `contenders` over `prompts`; keeps the pictures of the first `show` of them.
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
        let told = &mut |what: &str| bar.next(&format!("{what}: {prompt}"));
        let mut evaluation = trial.with_prompt(prompt)?.run(pipeline, told)?;
        let own = samples_of(&evaluation, i, base);
        if i < show {
            let uncached = evaluation.uncached.images.swap_remove(0);
            let firsts = own.iter().filter(|sample| sample.seed == base.seed).cloned();
            let images =
                evaluation.outcomes.iter_mut().map(|outcome| outcome.images.swap_remove(0));
            shown.push(Shown { prompt: i, uncached, drawn: firsts.zip(images).collect() });
        }
        samples.extend(own);
    }
    bar.finish();
    Ok((samples, shown))
}

fn samples_of(evaluation: &Evaluation, prompt: usize, request: &Request) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (contender, outcome) in evaluation.outcomes.iter().enumerate() {
        for (i, picture) in outcome.comparisons.iter().enumerate() {
            samples.push(Sample {
                prompt,
                seed: request.seed + i as u64,
                contender,
                core_runs: outcome.refreshes,
                steps: outcome.steps,
                speed_up: outcome.speed_up,
                seconds: outcome.seconds / request.num_images as f64,
                psnr: picture.psnr,
                ssim: picture.ssim,
                latent_error: picture.latent_error,
            });
        }
    }
    samples
}
