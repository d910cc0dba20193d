//! The command line: a file or a folder for each subcommand, beside what several of them share.
//!
//! Shared are `flags` (what to draw, and on what), `init_image`, `control`, `image_prompt`, `calibrated`,
//! `files`, `prompts`, `progress`, `timesteps` and `markdown`.
//! No subcommand uses another.

mod bench;
mod calibrate;
mod calibrated;
mod compile;
mod control;
mod doctor;
mod files;
mod flags;
mod generate;
mod image_prompt;
mod info;
mod init_image;
mod look;
mod markdown;
mod nets;
mod plan;
mod progress;
mod prompts;
mod quickstart;
mod serve;
mod sheet;
mod timesteps;
mod verify;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Error, Result};
use clap::{Parser, Subcommand};
use hydit::runtime::library::OLDEST_MINOR;
use hydit::runtime::{RuntimeError, TRACT};
use hydit_terminal::{About, VERSION, WrongArguments};

/// Hunyuan-DiT text-to-image with Skip-Cache, on ONNX Runtime or tract.
#[derive(Parser)]
#[command(name = "hydit-serve", version = VERSION, long_version = LONG_VERSION.as_str())]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The version, the features that this build has, and its engines.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("tensorrt", cfg!(feature = "tensorrt")),
        ("failpoints", cfg!(feature = "failpoints")),
    ];
    let features: Vec<&str> =
        features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_string() } else { features.join(", ") };
    let (machine, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!(
        "{VERSION}\nfor       {machine} {system}\nfeatures  {features}\n\
         engines   tract {TRACT}, ONNX Runtime 1.{OLDEST_MINOR} or newer where it is found"
    )
});

#[derive(Subcommand)]
enum Command {
    /// Draw a first picture with the small model that packages bring.
    Quickstart(quickstart::Quickstart),
    /// Draw images of a prompt.
    Generate(generate::Generate),
    /// Serve images over HTTP and gRPC.
    Serve(Box<serve::Serve>),
    /// Measure models, engines and cache policies beside each other on this machine.
    Bench(bench::Bench),
    /// Find the cache schedules that keep most quality for the fewest core runs.
    Calibrate(calibrate::Calibrate),
    /// Judge cache policies over prompts and seeds: a sheet of images, a plot, a table.
    Sheet(sheet::Sheet),
    /// Compile a model ahead for a plugin provider or TensorRT, to start faster with --engines.
    Compile(compile::Compile),
    /// Print the timesteps of a request and which of them run the deep core, without running.
    Plan(plan::Plan),
    /// Print the parameters kept in a PNG.
    Info(info::Info),
    /// Check an artifact folder: hashes, both engines, split against whole.
    Verify(verify::Verify),
    /// Show which engines this machine has.
    Doctor(doctor::Doctor),
    #[command(flatten)]
    About(About),
    #[command(name = crate::engine::LOOK, hide = true)]
    Look(look::Look),
}

/// Runs the program on the arguments of the process: what `main` does.
pub fn run() -> ExitCode {
    let started = Instant::now();
    hydit_terminal::run(|cli: Cli| cli.command.run(started).map_err(refused))
}

/// The same error, as one of the arguments where they name a provider that this machine has not or
/// that cannot run the model.
fn refused(error: Error) -> Error {
    let of_provider = error.chain().any(|cause| {
        let runtime = match cause.downcast_ref::<hydit::Error>() {
            Some(hydit::Error::Runtime(runtime)) => Some(runtime),
            _ => cause.downcast_ref(),
        };
        matches!(runtime, Some(RuntimeError::Provider { .. } | RuntimeError::Nodes { .. }))
    });
    if of_provider { WrongArguments(format!("{error:#}")).into() } else { error }
}

impl Command {
    fn run(self, started: Instant) -> Result<()> {
        match self {
            Command::Quickstart(command) => command.run(),
            Command::Generate(command) => command.run(started),
            Command::Serve(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Calibrate(command) => command.run(),
            Command::Sheet(command) => command.run(),
            Command::Compile(command) => command.run(),
            Command::Plan(command) => command.run(),
            Command::Info(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::About(about) => about.run::<Cli>(),
            Command::Look(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hydit::runtime::Provider;

    use super::*;

    #[test]
    fn a_provider_that_cannot_be_used_is_a_wrong_argument() {
        let provider = Provider::Cuda;
        let nodes =
            || RuntimeError::Nodes { graph: "a.onnx".into(), provider, nodes: "Det `a`".into() };
        let within = Error::new(hydit::Error::Runtime(nodes())).context("the model x");
        for error in [Error::new(nodes()), within] {
            let said = format!("{error:#}");
            let refused = refused(error);
            assert!(refused.is::<WrongArguments>(), "{said}");
            assert_eq!(refused.to_string(), said);
        }
        assert!(!refused(Error::new(RuntimeError::Stopped)).is::<WrongArguments>());
    }
}
