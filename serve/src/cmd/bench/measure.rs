//! The measurement: every variant alone once, for its memory and start; then all in turns.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hydit::cache::CachePolicy;
use hydit::eval::matmul::Probe;
use hydit::timing::Timings;
use hydit::{CheckedRequest, Generated, Pipeline};
use serde_json::Value;

use super::setup::Setup;
use crate::cmd::progress::Turns;

/// Runs of the large product after each turn: enough for a median, few enough to cost little.
const PRODUCTS: usize = 3;

/// A setup with a cache policy, and what was measured of it.
pub struct Variant {
    /// Index of the setup.
    pub setup: usize,
    pub policy: CachePolicy,
    pub alone: Alone,
    /// What the warm-up drew.
    pub made: Generated,
    /// Whether every round drew them again, bit for bit.
    pub repeats: bool,
    pub rounds: Vec<Round>,
}

/// A process of its own that draws the picture once.
pub struct Alone {
    pub peak_memory: Option<u64>,
    /// From the start of the process to the first denoising step.
    pub start: f64,
}

/// One turn of a variant.
pub struct Round {
    /// From the request to the pictures.
    pub total: Duration,
    pub timings: Timings,
    /// The large product, run right after.
    pub products: Vec<Duration>,
}

struct Loaded {
    pipeline: Pipeline,
    probe: Probe,
}

/// Measures every setup with each of its policies, `rounds` times.
pub fn measure(setups: &[Setup], rounds: usize) -> Result<Vec<Variant>> {
    let pairs = || {
        let all = setups.iter().enumerate();
        all.flat_map(|(i, setup)| setup.variants.iter().map(move |one| (i, &one.cache_policy)))
    };
    let count = pairs().count();
    let mut bar = Turns::new(count * (rounds + 2));

    // Before the setups are loaded, since all of them stay in memory then.
    let mut alone = Vec::with_capacity(count);
    for (i, policy) in pairs() {
        bar.next(&format!("memory of {}", name(&setups[i], policy)));
        alone.push(alone_in_process(&setups[i], policy)?);
    }
    let mut loaded = setups.iter().map(Loaded::new).collect::<Result<Vec<_>>>()?;
    let mut variants = Vec::with_capacity(count);
    for ((setup, policy), alone) in pairs().zip(alone) {
        bar.next(&format!("warming up {}", name(&setups[setup], policy)));
        variants.push(loaded[setup].warm_up(setup, &setups[setup], policy, alone)?);
    }
    for round in 0..rounds {
        for turn in 0..count {
            // Each round begins one variant later, so that none always follows the same work.
            let variant = &mut variants[(round + turn) % count];
            let setup = &setups[variant.setup];
            let name = name(setup, &variant.policy);
            bar.next(&format!("round {} of {rounds}: {name}", round + 1));
            loaded[variant.setup].turn(setup, variant)?;
        }
    }
    bar.finish();
    Ok(variants)
}

/// "artifacts/emoji, N3-700-50"
fn name(setup: &Setup, policy: &CachePolicy) -> String {
    format!("{}, {policy}", setup.artifacts.path.display())
}

fn alone_in_process(setup: &Setup, policy: &CachePolicy) -> Result<Alone> {
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let output = Command::new(&program)
        .args(setup.flags(policy, &folder.path().join("picture.png")))
        .output()
        .with_context(|| program.display().to_string())?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let error = error.rsplit_once("error: ").map_or(error.trim(), |(_, last)| last.trim());
        bail!("{}: {} ({error})", name(setup, policy), output.status);
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Alone {
        peak_memory: told["peak_memory_bytes"].as_u64(),
        start: told["start_seconds"].as_f64().context("generate tells when it started")?,
    })
}

impl Loaded {
    fn new(setup: &Setup) -> Result<Loaded> {
        let pipeline = setup.load()?;
        let precision = setup.manifest().precision;
        let probe = Probe::load(pipeline.backend(), precision, &setup.sizes())?;
        Ok(Loaded { pipeline, probe })
    }

    fn warm_up(
        &mut self,
        index: usize,
        setup: &Setup,
        policy: &CachePolicy,
        alone: Alone,
    ) -> Result<Variant> {
        let made = self.pipeline.generate(request(setup, policy), &mut |_| {})?;
        self.probe.run()?;
        Ok(Variant {
            setup: index,
            policy: policy.clone(),
            alone,
            made,
            repeats: true,
            rounds: Vec::new(),
        })
    }

    fn turn(&mut self, setup: &Setup, variant: &mut Variant) -> Result<()> {
        let request = request(setup, &variant.policy);
        let start = Instant::now();
        let made = self.pipeline.generate(request, &mut |_| {})?;
        let total = start.elapsed();
        let products = (0..PRODUCTS).map(|_| self.probe.run()).collect::<Result<_, _>>()?;
        variant.repeats &= made.images == variant.made.images;
        variant.rounds.push(Round { total, timings: made.timings, products });
        Ok(())
    }
}

fn request<'a>(setup: &'a Setup, policy: &CachePolicy) -> &'a CheckedRequest {
    let found = setup.variants.iter().find(|request| request.cache_policy == *policy);
    found.expect("every policy was checked with its setup")
}
