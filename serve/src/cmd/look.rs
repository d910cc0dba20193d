//! `hydit-serve look`: opens an engine and ends, so that another process learns what becomes of one
//! that loads a plugin. It is in no help.

use anyhow::Result;
use clap::Args;
use hydit::runtime::{Backend, Provider, RuntimeOptions};

use crate::engine::{PluginFlags, provider};

#[derive(Args)]
pub struct Look {
    #[arg(long, value_parser = provider)]
    provider: Provider,
    #[command(flatten)]
    plugin: PluginFlags,
}

impl Look {
    pub fn run(self) -> Result<()> {
        let (provider, plugin) = (self.provider, self.plugin.options());
        Backend::open(&RuntimeOptions { provider, plugin, ..Default::default() })?;
        Ok(())
    }
}
