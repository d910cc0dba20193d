//! `hydit-serve compile`: the graphs of a model, compiled ahead for a plugin provider, so that whatever
//! draws with them starts faster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::engines::{Compiled, compile};
use hydit::runtime::{BackendChoice, Provider, RuntimeOptions};
use hydit_terminal::{note, say};

use crate::engine::{self, PluginFlags, provider};

#[derive(Args)]
pub struct Compile {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The plugin that compiles: openvino, openvino:bf16, tensorrt-rtx; any other with --ep-library.
    #[arg(long, value_parser = provider)]
    provider: Provider,
    #[command(flatten)]
    plugin: PluginFlags,
    /// Folder for the engines: new, empty, or of older ones, which stay until all new ones are there.
    #[arg(long, value_name = "DIR")]
    engines: PathBuf,
}

impl Compile {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.model)?;
        let (backend, provider) = (BackendChoice::Ort, self.provider);
        let plugin = self.plugin.options();
        let backend =
            engine::open(&RuntimeOptions { backend, provider, plugin, ..Default::default() })?;
        note(format_args!("engine    {}", backend.describe()));
        let mut bytes = 0;
        let made = compile(&artifacts, &backend, &self.engines, |compiled| {
            let Compiled { graph, took, bytes: size } = compiled;
            bytes += size;
            note(format_args!(
                "compiled  {graph:18} {:7.2} s {:9.1} MB",
                took.as_secs_f64(),
                size as f64 / 1e6
            ));
        })?;
        let folder = self.engines.display();
        match made {
            Some(engines) => say(format_args!(
                "wrote {folder}: {:.1} MB for {}",
                bytes as f64 / 1e6,
                engines.compiled_for()
            ))?,
            None => say(format_args!("{folder} has just these engines already"))?,
        }
        Ok(())
    }
}
