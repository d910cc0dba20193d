//! `hydit-serve verify`: whether an artifact folder is what its manifest says, on every engine
//! here.

mod finite;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::choice::choice;
use crate::engine::{self, PluginFlags, provider};
use anyhow::{Result, bail};
use clap::Args;
use finite::CheckFinite;
use hydit::artifacts::{Artifacts, unfit};
use hydit::eval::verify::{Tensors, Tolerance, split_against_full};
use hydit::pipeline::text::tokenizers;
use hydit::runtime::{Backend, BackendChoice, Provider, RuntimeOptions};
use hydit_terminal::{plain, say};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Args)]
pub struct Verify {
    /// Artifact folder of hydit-export.
    dir: PathBuf,
    /// Engines: two compared with each other (auto), or one alone.
    #[arg(long, value_parser = choice::<BackendChoice>(), default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// Where ONNX Runtime computes, as for generate. With auto the cpu is compared with tract, any
    /// other with the cpu.
    #[arg(long, value_parser = provider, default_value_t = Provider::Cpu)]
    provider: Provider,
    #[command(flatten)]
    plugin: PluginFlags,
    #[command(flatten)]
    finite: CheckFinite,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.dir)?;
        if self.finite.check_finite {
            let backend = match (self.backend, self.provider) {
                (BackendChoice::Auto, Provider::Cpu) => CheckFinite::choice(&artifacts),
                (backend, _) => backend,
            };
            let (provider, plugin) = (self.provider, self.plugin.options());
            let options = RuntimeOptions { backend, provider, plugin, ..Default::default() };
            return self.finite.run(artifacts, engine::open(&options)?);
        }
        check_files(&artifacts)?;
        if !artifacts.manifest.model.draws_classes() {
            tokenizers(&artifacts)?;
            say("tokenizers both take prompts, and the text encoders all that they give")?;
        }
        let engines = self.engines(&artifacts)?;
        let mut failures = graphs(&artifacts, &engines)?;
        failures += split(&artifacts, &engines)?;
        if failures > 0 {
            bail!("{failures} checks failed: export again, and report it if it stays");
        }
        Ok(say("\nall good")?)
    }

    /// Opens the engines to compare, and leaves out those that cannot run the artifacts unless they
    /// were named.
    fn engines(&self, artifacts: &Artifacts) -> Result<Vec<Backend>> {
        let choices = match (self.backend, self.provider) {
            (BackendChoice::Auto, Provider::Cpu) => {
                vec![(BackendChoice::Ort, Provider::Cpu), (BackendChoice::Tract, Provider::Cpu)]
            }
            (BackendChoice::Auto, gpu) => {
                vec![(BackendChoice::Ort, gpu), (BackendChoice::Ort, Provider::Cpu)]
            }
            one => vec![one],
        };
        let asked = choices
            .into_iter()
            .map(|(backend, provider)| {
                let plugin = self.plugin.options_for(provider, &[self.provider]);
                engine::open(&RuntimeOptions { backend, provider, plugin, ..Default::default() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let none_fits = asked.iter().all(|engine| artifacts.check_engine(engine).is_err());
        if self.provider != Provider::Cpu || none_fits {
            artifacts.check_engine(&asked[0])?;
        }
        let mut engines = Vec::new();
        for engine in asked {
            match unfit(artifacts.graph_options(), engine.ort_provider()) {
                None => engines.push(engine),
                Some(reason) => {
                    say(format_args!("skipped   {}: {reason}", engine.describe()))?;
                }
            }
        }
        for engine in &engines {
            say(format_args!("engine    {}", engine.describe()))?;
        }
        if engines.len() == 1 {
            say("skipped   the comparison of two engines: there is one")?;
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
        bar.set_message(plain(name).into_owned());
        bar.inc(bytes);
    })?;
    bar.finish_and_clear();
    Ok(say(format_args!("files     {} as the manifest says, {total} bytes", files.len()))?)
}

/// Runs every graph with random inputs on each engine; gives the number of graphs on which the
/// engines differ too much.
fn graphs(artifacts: &Artifacts, engines: &[Backend]) -> Result<usize> {
    let names = artifacts.manifest.graphs.iter().map(|graph| graph.name.len());
    let width = names.max().unwrap_or(0).max(16);
    say(format_args!(
        "\n{:width$} {:>12} {:>12}  relative L2 error between the engines",
        "graph", "load", "run"
    ))?;
    let mut failures = 0;
    for graph in &artifacts.manifest.graphs {
        let mut results = Vec::new();
        for engine in engines {
            let start = Instant::now();
            let mut session = artifacts.load(&graph.name, engine)?;
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
        say(format_args!("{:width$} {}  {error:.1e} {verdict}", graph.name, times.join("  ")))?;
    }
    Ok(failures)
}

/// Compares encoder, core and decoder in a row with the whole transformer on each engine; gives the
/// number of engines on which they differ too much.
fn split(artifacts: &Artifacts, engines: &[Backend]) -> Result<usize> {
    if artifacts.manifest.graph("full").is_err() {
        say("\nskipped   split against whole: export with --full to have the whole")?;
        return Ok(0);
    }
    say("")?;
    let mut failures = 0;
    for engine in engines {
        let error = split_against_full(artifacts, engine)?;
        let good = error <= Tolerance::of(artifacts.manifest.precision).split;
        failures += usize::from(!good);
        let name = match engine.ort_provider() {
            None => "tract".to_string(),
            Some(Provider::Cpu) => "ONNX Runtime".to_string(),
            Some(gpu) => format!("ONNX Runtime, {gpu}"),
        };
        say(format_args!(
            "split against whole on {name}: relative L2 error {error:.1e} {}",
            if good { "ok" } else { "TOO LARGE" }
        ))?;
    }
    Ok(failures)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", 1e3 * time.as_secs_f64())
}
