//! `hydit-serve serve`: images over HTTP.

use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::runtime::Provider;
use hydit_input::file;
use hydit_terminal::note;
use tracing::info;

use crate::engine;
use crate::server::settings::Flags;
use crate::server::{leave, log, run};

/// The largest file of settings that is read.
const MAX_CONFIG: u64 = 1 << 20;

/// Serves OpenAI's images API, jobs and the Open Inference Protocol. Every flag has an environment
/// variable and a key in the file of --config; the flag wins, then the variable, then the file.
#[derive(Args)]
pub struct Serve {
    /// YAML file of settings, named as the flags, with _ for -.
    #[arg(long, env = "HYDIT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub fn run(self) -> Result<()> {
        let text = match &self.config {
            Some(path) => file::read_text(path, MAX_CONFIG)
                .with_context(|| format!("--config {}", path.display()))?,
            None => String::new(),
        };
        let file = self.config.as_deref().map(|path| (path, text.as_str()));
        let (settings, told) = self.flags.resolve(file)?;
        log::start(settings.log, &settings.log_level).map_err(Error::msg)?;
        for setting in told {
            info!(source = %setting.source, "setting {} = {}", setting.name, setting.value);
        }
        let is_plugin = matches!(settings.runtime.provider, Provider::Plugin(_));
        if is_plugin || !settings.engines.is_empty() {
            // What does not run is refused before anything listens.
            let backend = engine::open(&settings.runtime)?;
            for (model, folder) in settings.models.iter() {
                let engines = settings.engines.get(model).map(PathBuf::as_path);
                let artifacts = Artifacts::open(folder)?.with_engines(engines)?;
                engine::renewed(artifacts, &backend, |line| info!("{line}"))?;
            }
        }
        let code = match run(settings) {
            Ok(()) => 0,
            Err(error) => {
                note(format_args!("error: {:#}", Error::new(error)));
                1
            }
        };
        leave(code)
    }
}
