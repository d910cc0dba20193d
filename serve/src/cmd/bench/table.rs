//! What was measured, for people: Markdown that can be read where it is printed.

use std::collections::BTreeSet;

use anyhow::Result;
use hydit::Request;
use hydit::cache::refreshes;
use hydit::eval::matmul::Probe;
use hydit::timing::Stage;

use super::Report;
use super::figures::{Calls, limited};
use super::setup::Setup;
use crate::cmd::markdown::markdown;

const SPEED: [&str; 13] = [
    "model",
    "engine",
    "threads",
    "policy",
    "core runs",
    "loop, s",
    "steps/s",
    "images/s",
    "overhead",
    "speed-up",
    "low to high",
    "allowed",
    "reached",
];
const MEMORY: [&str; 10] = [
    "model",
    "engine",
    "threads",
    "policy",
    "PSNR, dB",
    "SSIM",
    "start, s",
    "peak, MiB",
    "weights, MiB",
    "peak / weights",
];
const GRAPHS: [&str; 10] = [
    "model",
    "engine",
    "threads",
    "graph",
    "calls",
    "median, ms",
    "p95, ms",
    "GFLOP",
    "GFLOP/s",
    "of MatMul",
];
/// The number of columns at the start that name something; the others are figures.
const NAMES: usize = 4;

/// Writes where and what was measured, the three tables, and what their columns mean.
pub fn text(report: &Report) -> Result<String> {
    let mut speed = Vec::new();
    let mut memory = Vec::new();
    for (i, variant) in report.variants.iter().enumerate() {
        let setup = &report.setups[variant.setup];
        let figures = report.figures(i)?;
        let cache = figures.cache.as_ref();
        let off = cache.and_then(|cache| cache.off.as_ref());
        let named = || [&names(report, setup)[..], &[variant.policy.to_string()]].concat();
        let spread = figures.speed_up;
        let range =
            if i == 0 { String::new() } else { format!("{:.2} to {:.2}", spread.low, spread.high) };
        let cells = [
            format!("{} of {}", refreshes(&variant.made.plan), variant.made.plan.len()),
            format!("{:.3}", figures.denoise.median),
            digits(figures.steps_per_second),
            digits(figures.images_per_second),
            format!("{:.2} %", 100.0 * figures.overhead),
            format!("{:.2}", spread.median),
            range,
            cache.map_or(String::new(), |cache| format!("{:.2}", cache.allowed)),
            off.map_or(String::new(), |off| format!("{:.2}", off.reached)),
        ];
        speed.push([named(), cells.into()].concat());

        let (peak, weights) = (variant.alone.peak_memory, setup.weights());
        let cells = [
            off.map_or(String::new(), |off| decibels(off.psnr)),
            off.map_or(String::new(), |off| format!("{:.4}", off.ssim)),
            format!("{:.2}", variant.alone.start),
            peak.map_or(String::new(), mebibytes),
            mebibytes(weights),
            peak.map_or(String::new(), |peak| format!("{:.2}", peak as f64 / weights as f64)),
        ];
        memory.push([named(), cells.into()].concat());
    }

    let mut graphs = Vec::new();
    for (i, setup) in report.setups.iter().enumerate() {
        let product = report.products(i);
        let limit = product.as_ref().map(Calls::rate);
        let calls = Stage::ALL.map(|(stage, name)| {
            Some((name, report.calls(i, stage)?, limit.filter(|_| limited(stage))))
        });
        let product = product.map(|calls| ("MatMul", calls, limit));
        for (name, calls, limit) in calls.into_iter().flatten().chain(product) {
            let rate = calls.rate();
            let cells = [
                name.to_string(),
                calls.seconds.len().to_string(),
                format!("{:.2}", 1e3 * calls.median),
                format!("{:.2}", 1e3 * calls.p95),
                digits(calls.flops / 1e9),
                digits(rate / 1e9),
                limit.map_or(String::new(), |limit| format!("{:.2}", rate / limit)),
            ];
            graphs.push([&names(report, setup)[..], &cells].concat());
        }
    }
    Ok([
        circumstances(report),
        markdown(&SPEED, NAMES, &speed),
        markdown(&MEMORY, NAMES, &memory),
        markdown(&GRAPHS, NAMES, &graphs),
        legend(report),
    ]
    .join("\n"))
}

/// Tells where and what was measured, each fact once.
fn circumstances(report: &Report) -> String {
    let mut lines = vec![format!(
        "hydit-serve {}, {} rounds of all variants in turns",
        env!("CARGO_PKG_VERSION"),
        report.rounds
    )];
    let processor = report.processor.as_deref().unwrap_or(std::env::consts::ARCH);
    let load = report.load.map_or(String::new(), |load| format!(", load average {load:.2}"));
    lines.push(format!("{processor}{load} at the start"));
    for Setup { engine, threads, .. } in &report.setups {
        let s = if *threads == 1 { "" } else { "s" };
        lines.push(format!("{engine}, {threads} thread{s}"));
    }
    for setup in &report.setups {
        let manifest = setup.manifest();
        lines.push(format!(
            "{}: {}, {}, {}, {} MiB of weights",
            setup.artifacts.path.display(),
            manifest.variant.name,
            manifest.precision,
            manifest.target,
            mebibytes(setup.weights())
        ));
    }
    let alike = report.setups.iter().all(|setup| setup.request == report.setups[0].request);
    for setup in &report.setups {
        let of = if alike { String::new() } else { format!("{}: ", model(report, setup)) };
        lines.push(format!("{of}{}", described(&setup.request)));
    }
    let mut said = BTreeSet::new();
    lines.retain(|line| said.insert(line.clone()));
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

fn described(request: &Request) -> String {
    let Request { prompt, height, width, sampler, steps, guidance_scale, seed, num_images, .. } =
        request;
    let batch = if *num_images == 1 { String::new() } else { format!("{num_images} times ") };
    format!(
        "{batch}\"{prompt}\", {height}x{width}, {sampler}, {steps} steps, guidance {guidance_scale}, seed {seed}"
    )
}

/// Tells what those columns mean that do not say it themselves.
fn legend(report: &Report) -> String {
    let product = |setup: &Setup| Probe::shape(&setup.sizes()).map(|n| n.to_string()).join(" x ");
    let products: BTreeSet<String> = report.setups.iter().map(product).collect();
    let products: Vec<String> = products.into_iter().collect();
    let mut out = format!(
        "Loop: the denoising loop, median over rounds; overhead: its share outside the engine. Speed-up: over the\n\
         first line, paired by round. Allowed: over `off` by FLOPs; reached: the share of it. PSNR and SSIM: to `off`.\n\
         Start: seconds to the first step; peak: resident memory; both of a process that draws once. Graphs: all calls\n\
         of all policies; MatMul: one product of {}, as the linears of the blocks compute theirs: a limit.\n",
        products.join(" or ")
    );
    let threads: BTreeSet<usize> =
        report.setups.iter().filter_map(|setup| setup.options.threads).collect();
    if threads.len() > 1 {
        out += "Threads of the first line wait by spinning, those of other counts do not: compare with single runs.\n";
    }
    for variant in report.variants.iter().filter(|variant| !variant.repeats) {
        let setup = &report.setups[variant.setup];
        out += &format!(
            "Note: {}, {} did not draw the same picture in every round.\n",
            setup.artifacts.path.display(),
            variant.policy
        );
    }
    out
}

/// The names of model, engine and threads of `setup`, each empty where all setups share it.
fn names(report: &Report, setup: &Setup) -> [String; 3] {
    let differ = |of: fn(&Setup) -> String| {
        report.setups.iter().any(|other| of(other) != of(setup)).then(|| of(setup))
    };
    let path = differ(|setup| setup.artifacts.path.display().to_string());
    let provider = differ(|setup| {
        if setup.engine.starts_with("tract") {
            "tract".to_string()
        } else {
            format!("ort {}", setup.options.provider)
        }
    });
    let threads = differ(|setup| setup.threads.to_string());
    [path.map(|_| model(report, setup)), provider, threads].map(Option::unwrap_or_default)
}

/// The name of the artifact folder, or its path where another folder has the same name.
fn model(report: &Report, setup: &Setup) -> String {
    let path = &setup.artifacts.path;
    let same = |other: &&Setup| other.artifacts.path.file_name() == path.file_name();
    match path.file_name() {
        Some(name) if report.setups.iter().filter(same).all(|s| s.artifacts.path == *path) => {
            name.to_string_lossy().into_owned()
        }
        _ => path.display().to_string(),
    }
}

fn decibels(psnr: f64) -> String {
    if psnr.is_finite() { format!("{psnr:.1}") } else { "equal".to_string() }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

/// Writes a value with three significant digits, or all before the point: 0.0123, 1.23, 123, 12345.
fn digits(value: f64) -> String {
    let before = value.abs().max(1e-9).log10().floor() as i32;
    format!("{value:.0$}", (2 - before).max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let shown = [0.01234, 1.234, 12.34, 123.4, 12345.6, 0.0].map(digits);
        assert_eq!(shown[..5], ["0.0123", "1.23", "12.3", "123", "12346"]);
    }
}
