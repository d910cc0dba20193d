//! What was measured, as data: the figures, and every sample they were made of.

use anyhow::Result;
use hydit::Request;
use hydit::cache::{refreshed, refreshes};
use hydit::eval::matmul::Probe;
use hydit::timing::Stage;
use serde_json::{Map, Value, json};

use super::Report;
use super::figures::{Cache, Calls, Spread, limited};
use super::measure::{Round, Variant};
use super::setup::Setup;

/// All of it. Times are in seconds.
pub fn json(report: &Report) -> Result<Value> {
    let setups = report.setups.iter().enumerate();
    let setups: Vec<Value> = setups.map(|(i, setup)| of_setup(report, i, setup)).collect();
    let variants = report.variants.iter().enumerate();
    let variants = variants.map(|(i, variant)| of_variant(report, i, variant));
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "processor": report.processor,
        "load_average": report.load,
        "rounds": report.rounds,
        "setups": setups,
        "variants": variants.collect::<Result<Vec<_>>>()?,
    }))
}

fn of_setup(report: &Report, index: usize, setup: &Setup) -> Value {
    let product = report.products(index);
    let limit = product.as_ref().map(Calls::rate);
    let graph = |&(stage, _): &(Stage, &str)| {
        let calls = report.calls(index, stage)?;
        let share = limit.filter(|_| limited(stage)).map(|limit| calls.rate() / limit);
        Some(json!({
            "stage": stage,
            "calls": calls.seconds.len(),
            "median_seconds": calls.median,
            "p95_seconds": calls.p95,
            "gflop": calls.flops / 1e9,
            "gflops": calls.rate() / 1e9,
            "of_matmul": share,
        }))
    };
    let (manifest, request) = (setup.manifest(), &setup.request);
    json!({
        "model": setup.artifacts.path.display().to_string(),
        "manifest_sha256": setup.artifacts.hash,
        "variant": manifest.variant.name,
        "precision": manifest.precision,
        "form": manifest.target,
        "weights_bytes": setup.weights(),
        "engine": setup.engine,
        "provider": setup.options.provider.to_string(),
        "threads": setup.threads,
        "request": request_json(request),
        "graphs": Stage::ALL.iter().filter_map(graph).collect::<Vec<_>>(),
        "matmul": product.map(|calls| json!({
            "shape": Probe::shape(&setup.sizes()),
            "median_seconds": calls.median,
            "p95_seconds": calls.p95,
            "gflops": calls.rate() / 1e9,
            "seconds": calls.seconds,
        })),
    })
}

fn of_variant(report: &Report, index: usize, variant: &Variant) -> Result<Value> {
    let figures = report.figures(index)?;
    let weights = report.setups[variant.setup].weights();
    let plan = &variant.made.plan;
    let peak = variant.alone.peak_memory;
    Ok(json!({
        "setup": variant.setup,
        "policy": variant.policy.to_string(),
        "steps": plan.len(),
        "core_runs": refreshes(plan),
        "refresh": refreshed(plan),
        "denoise_seconds": spread(figures.denoise),
        "total_seconds": spread(figures.total),
        "steps_per_second": figures.steps_per_second,
        "images_per_second": figures.images_per_second,
        "overhead": figures.overhead,
        "speed_up": spread(figures.speed_up),
        "cache": figures.cache.as_ref().map(cache),
        "start_seconds": variant.alone.start,
        "peak_memory_bytes": peak,
        "peak_over_weights": peak.map(|peak| peak as f64 / weights as f64),
        "pictures_repeat": variant.repeats,
        "samples": variant.rounds.iter().map(sample).collect::<Vec<_>>(),
    }))
}

/// PSNR is null when the pictures are equal.
fn cache(cache: &Cache) -> Value {
    let off = cache.off.as_ref().map(|off| {
        json!({
            "speed_up": spread(off.speed_up),
            "reached": off.reached,
            "psnr": off.psnr.is_finite().then_some(off.psnr),
            "ssim": off.ssim,
        })
    });
    json!({ "speed_up_allowed": cache.allowed, "against_off": off })
}

fn sample(round: &Round) -> Value {
    let stage = |(stage, _): (Stage, &str)| {
        let name = json!(stage).as_str().unwrap_or_default().to_string();
        let each: Vec<f64> = round.timings.each(stage).iter().map(|t| t.as_secs_f64()).collect();
        (name, json!(each))
    };
    let products: Vec<f64> = round.products.iter().map(|time| time.as_secs_f64()).collect();
    json!({
        "total_seconds": round.total.as_secs_f64(),
        "denoise_seconds": round.timings.denoise.as_secs_f64(),
        "overhead": round.timings.overhead(),
        "stages": Stage::ALL.into_iter().map(stage).collect::<Map<_, _>>(),
        "matmul": products,
    })
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "low": spread.low, "high": spread.high })
}

/// A request without its cache policy, which is the variant's.
fn request_json(request: &Request) -> Value {
    let mut fields = json!(request);
    let object = fields.as_object_mut().expect("a struct is an object");
    object.remove("cache_policy");
    object.remove("num_images");
    object.insert("batch_size".to_string(), json!(request.num_images));
    fields
}
