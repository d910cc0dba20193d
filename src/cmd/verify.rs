//! `hydit-serve verify`: is this artifact folder what it says, on every engine here?

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::verify::{Tensors, Tolerance, split_against_full};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Args)]
pub struct Verify {
    /// Artifact folder of hydit-export.
    dir: PathBuf,
    /// Engines: both compared with each other (auto), or one alone.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.dir)?;
        check_files(&artifacts)?;
        let engines = self.engines(&artifacts)?;
        let mut failures = graphs(&artifacts, &engines)?;
        failures += split(&artifacts, &engines)?;
        if failures > 0 {
            bail!("{failures} checks failed: export again, and report it if it stays");
        }
        println!("\nall good");
        Ok(())
    }

    fn engines(&self, artifacts: &Artifacts) -> Result<Vec<Backend>> {
        let open = |backend| Backend::open(&RuntimeOptions { backend, ..Default::default() });
        let asked = match self.backend {
            BackendChoice::Auto => vec![open(BackendChoice::Ort)?, open(BackendChoice::Tract)?],
            one => vec![open(one)?],
        };
        let (engines, unfit): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|engine| artifacts.check_engine(engine).is_ok());
        for engine in &unfit {
            let form = artifacts.manifest.form;
            println!("skipped   {}: the graphs are of form {form}", engine.describe());
        }
        if engines.is_empty() {
            artifacts.check_engine(&unfit[0])?;
        }
        engines.iter().for_each(|engine| println!("engine    {}", engine.describe()));
        if engines.len() == 1 {
            println!("skipped   the comparison of two engines: there is one");
        }
        Ok(engines)
    }
}

fn check_files(artifacts: &Artifacts) -> Result<()> {
    let files = &artifacts.manifest.files;
    let total = files.values().map(|file| file.bytes).sum();
    let style = ProgressStyle::with_template("{msg:24} [{bar:40}] {bytes}/{total_bytes}")?;
    let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
    artifacts.check_all(|name, bytes| {
        bar.set_message(name.to_string());
        bar.inc(bytes);
    })?;
    bar.finish_and_clear();
    println!("files     {} as the manifest says, {total} bytes", files.len());
    Ok(())
}

/// Runs every graph on random inputs on each engine; gives the number of failures.
fn graphs(artifacts: &Artifacts, engines: &[Backend]) -> Result<usize> {
    println!(
        "\n{:16} {:>12} {:>12}  relative L2 error between the engines",
        "graph", "load", "run"
    );
    let mut failures = 0;
    for graph in &artifacts.manifest.graphs {
        let mut results = Vec::new();
        for engine in engines {
            let start = Instant::now();
            let mut session = engine.load(&artifacts.graph(&graph.name)?)?;
            let loaded = start.elapsed();
            let mut tensors = Tensors::random(&artifacts.manifest, graph, engine)?;
            let start = Instant::now();
            let outputs = tensors.run(&mut session)?;
            results.push((loaded, start.elapsed(), outputs));
        }
        let times: Vec<String> = results
            .iter()
            .map(|(load, run, _)| format!("{:>9} {:>9}", millis(*load), millis(*run)))
            .collect();
        // One engine alone is compared with itself: not finite is not good.
        let (first, last) = (&results[0].2, &results[results.len() - 1].2);
        let error = first.error(last);
        let good = error <= Tolerance::of(artifacts.manifest.precision).engines;
        failures += usize::from(!good);
        let verdict = if good { "ok" } else { "TOO LARGE" };
        println!("{:16} {}  {error:.1e} {verdict}", graph.name, times.join("  "));
    }
    Ok(failures)
}

/// Compares encoder, core and decoder in a row with the whole; gives the number of failures.
fn split(artifacts: &Artifacts, engines: &[Backend]) -> Result<usize> {
    if artifacts.manifest.graph("full").is_err() {
        println!("\nskipped   split against whole: export with --full to have the whole");
        return Ok(0);
    }
    println!();
    let mut failures = 0;
    for engine in engines {
        let error = split_against_full(artifacts, engine)?;
        let good = error <= Tolerance::of(artifacts.manifest.precision).split;
        failures += usize::from(!good);
        let name = if matches!(engine, Backend::Ort(_)) { "ONNX Runtime" } else { "tract" };
        println!(
            "split against whole on {name}: relative L2 error {error:.1e} {}",
            if good { "ok" } else { "TOO LARGE" }
        );
    }
    Ok(failures)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", 1e3 * time.as_secs_f64())
}
