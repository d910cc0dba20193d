//! The means, for people and as data.

use serde_json::{Value, json};

use super::Report;
use super::figures::{Means, count};
use crate::cmd::markdown::markdown;

/// The names of the columns of [`rows`].
pub const HEADER: [&str; 7] =
    ["policy", "core runs", "speed-up", "PSNR, dB", "p10, dB", "SSIM", "latent error"];

/// A table of the means, below a line that says what they are of.
pub fn text(report: &Report) -> String {
    let rows: Vec<Vec<String>> = rows(report).into_iter().map(Vec::from).collect();
    let about = format!(
        "{}, {}, {} steps, {}: means over {} pictures a line, beside the uncached ones\n\n",
        report.model,
        report.request.sampler,
        report.request.steps,
        report.extent(),
        report.images()
    );
    about + &markdown(&HEADER, 1, &rows)
}

/// Gives the figures of each contender as they are printed.
pub fn rows(report: &Report) -> Vec<[String; 7]> {
    report.means().into_iter().map(row).collect()
}

fn row(means: Means) -> [String; 7] {
    [
        means.label,
        format!("{} of {}", count(means.refreshes), means.steps),
        format!("{:.2}", means.speed_up),
        psnr(means.psnr),
        psnr(means.p10),
        format!("{:.4}", means.ssim),
        format!("{:.4}", means.latent_error),
    ]
}

fn psnr(psnr: f64) -> String {
    if psnr.is_finite() { format!("{psnr:.1}") } else { "equal".to_string() }
}

/// The means as data. PSNR is null when the images are equal.
pub fn json(report: &Report) -> Value {
    let policy = |means: &Means| {
        json!({
            "policy": means.label,
            "family": means.family,
            "core_runs": means.refreshes,
            "steps": means.steps,
            "speed_up": means.speed_up,
            "seconds": means.seconds,
            "psnr": means.psnr.is_finite().then_some(means.psnr),
            "psnr_p10": means.p10.is_finite().then_some(means.p10),
            "ssim": means.ssim,
            "latent_error": means.latent_error,
        })
    };
    json!({
        "model": report.model,
        "sampler": report.request.sampler,
        "steps": report.request.steps,
        "height": report.request.height,
        "width": report.request.width,
        "seed": report.request.seed,
        "prompts": report.prompts,
        "pictures": report.images(),
        "policies": report.means().iter().map(policy).collect::<Vec<_>>(),
    })
}
