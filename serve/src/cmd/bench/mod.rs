//! `hydit-serve bench`: models, engines and cache policies beside each other on this machine.
//!
//! A [`Setup`] is a model on an engine, which is loaded once; a variant is a setup with a cache
//! policy. The variants take turns, so that a slow minute of the machine hits all of them.

mod figures;
mod json;
mod measure;
mod setup;
mod table;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hydit::Request;
use hydit::cache::CachePolicy;
use hydit::eval::machine::{load_average, processor};
use hydit::runtime::{BackendChoice, Provider, RuntimeOptions};

use self::measure::{Variant, measure};
use self::setup::Setup;
use super::control::ControlFlags;
use super::files::{Output, tell};
use super::flags::{ImageFlags, LoraFlags};
use crate::choice::choice;
use crate::engine::{PluginFlags, provider};

#[derive(Args)]
pub struct Bench {
    /// Artifact folder of hydit-export; several are measured beside each other.
    #[arg(long, value_name = "DIR", required = true)]
    model: Vec<PathBuf>,
    /// Cache policy: off, N2 or N2-700-50; several are measured beside each other.
    #[arg(long, value_name = "POLICY", default_values = ["off", "N2-700-50"])]
    policy: Vec<CachePolicy>,
    /// What to draw, Chinese or English [default: a cat, or class 0 of a model that draws classes].
    #[arg(long, allow_hyphen_values = true)]
    prompt: Option<String>,
    /// What not to draw.
    #[arg(long, visible_alias = "negative-prompt", allow_hyphen_values = true)]
    negative: Option<String>,
    #[command(flatten)]
    image: ImageFlags,
    /// The LoRAs of models with slots; others are measured without.
    #[command(flatten)]
    loras: LoraFlags,
    /// The ControlNets of models that have them; others are measured without.
    #[command(flatten)]
    controls: ControlFlags,
    /// Turns of each variant, after one that warms up and is not counted.
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// Write all figures and every sample to this file; - is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Engine, as for generate; several are measured beside each other.
    #[arg(long, value_parser = choice::<BackendChoice>(), default_values_t = [BackendChoice::Auto])]
    backend: Vec<BackendChoice>,
    /// Where ONNX Runtime computes, as for generate; several are measured beside each other.
    #[arg(long, value_parser = provider, default_values_t = [Provider::Cpu])]
    provider: Vec<Provider>,
    #[command(flatten)]
    plugin: PluginFlags,
    /// Threads of ONNX Runtime, all physical cores if not given; several are measured beside each
    /// other.
    #[arg(long, value_name = "N")]
    threads: Vec<usize>,
}

/// What was measured, and where.
struct Report {
    /// The name of the processor, where the system tells it.
    processor: Option<String>,
    /// The load average over one minute at the start.
    load: Option<f64>,
    /// Turns of each variant that count.
    rounds: usize,
    setups: Vec<Setup>,
    /// Every setup with every policy; the variants of a setup follow each other.
    variants: Vec<Variant>,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let json = self.json.as_ref().map(|path| Output::new("--json", path)).transpose()?;
        let load = load_average();
        let setups = self.setups()?;
        let rounds = self.rounds.get();
        let variants = measure(&setups, rounds)?;
        let report = Report { processor: processor(), load, rounds, setups, variants };
        let table = table::text(&report)?;
        tell(&json, table)?;
        if let Some(file) = &json {
            file.write(format!("{:#}\n", json::json(&report)?).as_bytes())?;
            tell(&json, format_args!("\nwrote {file}"))?;
        }
        Ok(())
    }

    /// Opens every model on every engine, and fails before any measurement if one is not possible.
    fn setups(&self) -> Result<Vec<Setup>> {
        let mut setups = Vec::new();
        let engines = self.engines();
        let controls = self.controls.read(None)?;
        setup::check_engines(&engines)?;
        for model in &self.model {
            for options in &engines {
                let (loras, choices) = (&self.loras, self.controls.choices());
                let setup = Setup::new(model, options, &self.policy, loras, choices, |manifest| {
                    let prompt = self.prompt.as_deref();
                    let prompt = prompt.unwrap_or(manifest.model.prompt_or_class("a cat"));
                    let mut request = Request::new(manifest, prompt)?;
                    self.image.set(&mut request, manifest, self.negative.as_deref())?;
                    if manifest.lora_slots.is_some() {
                        self.loras.set(&mut request);
                    }
                    if !manifest.controls.is_empty() {
                        request.check_size(manifest)?;
                        controls.set(&mut request);
                    }
                    Ok(request)
                })?;
                setups.push(setup);
            }
        }
        Ok(setups)
    }

    fn engines(&self) -> Vec<RuntimeOptions> {
        let threads: Vec<Option<usize>> = if self.threads.is_empty() {
            vec![None]
        } else {
            self.threads.iter().copied().map(Some).collect()
        };
        let mut engines = Vec::new();
        for &backend in &self.backend {
            for &provider in &self.provider {
                for &threads in &threads {
                    engines.push(RuntimeOptions {
                        backend,
                        provider,
                        plugin: self.plugin.options_for(provider, &self.provider),
                        threads,
                        ..RuntimeOptions::default()
                    });
                }
            }
        }
        engines
    }
}
