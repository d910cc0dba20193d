//! `hydit-serve doctor`: which engines this machine has, and why not the others.

use anyhow::Result;
use clap::Args;
use hydit::runtime::library::{Places, Verdict};
use hydit::runtime::{Backend, BackendChoice, Plugin, Provider, RuntimeOptions};
use hydit_terminal::{VERSION, say};

use crate::engine::{self, PluginFlags};

/// A plugin that is neither beside the program nor where pip puts it is shown too, with --ep-library.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    plugin: PluginFlags,
    /// The plugin whose library --ep-library names.
    #[arg(long, value_parser = engine::provider)]
    provider: Option<Provider>,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        say(format_args!("hydit-serve {VERSION}"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        say(format_args!(
            "\nmachine   {} {}, {cores} logical cores",
            std::env::consts::ARCH,
            std::env::consts::OS
        ))?;

        let places = Places::of_process();
        let report = places.search(Provider::Cpu, true);
        say("\nONNX Runtime libraries, in the order they are tried")?;
        for candidate in &report.candidates {
            let mark = if candidate.verdict == Verdict::Usable { "+" } else { "-" };
            say(format_args!("  {mark} {candidate}"))?;
        }
        if report.candidates.is_empty() {
            say(format_args!("  none; this brings one:\n    {}", engine::bring_runtime()))?;
        }

        say("\nengines")?;
        let built_in = [Provider::Cpu, Provider::Cuda, Provider::TensorRt].into_iter();
        let mut providers: Vec<Provider> =
            built_in.chain(Plugin::known().map(Provider::Plugin)).collect();
        providers.extend(self.provider.filter(|provider| !providers.contains(provider)));
        for provider in providers {
            let plugin = match self.provider {
                Some(asked) if asked == provider => self.plugin.options(),
                _ => Default::default(),
            };
            let backend = BackendChoice::Ort;
            let options = RuntimeOptions { backend, provider, plugin, ..Default::default() };
            show(&format!("ort, {provider}"), &options)?;
        }
        let backend = BackendChoice::Tract;
        show("tract", &RuntimeOptions { backend, ..Default::default() })?;
        let auto = Backend::open(&RuntimeOptions::default())?;
        Ok(say(format_args!("\n--backend auto takes {}", auto.describe()))?)
    }
}

/// Prints whether the engine of `options` opens, and why not.
fn show(name: &str, options: &RuntimeOptions) -> Result<()> {
    match engine::open(options) {
        Ok(backend) => say(format_args!("  + {name:17} {}", backend.describe()))?,
        Err(error) => {
            let reason = error.to_string().replace('\n', "\n    ");
            say(format_args!("  - {name:17} {reason}"))?;
        }
    }
    Ok(())
}
