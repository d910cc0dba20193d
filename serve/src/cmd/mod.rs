//! The command line: a file or a folder for each subcommand, beside what several of them share.
//!
//! Shared are `flags` (what to draw, and on what), `init_image`, `control`, `image_prompt`, `calibrated`,
//! `files`, `prompts`, `progress`, `timesteps` and `markdown`.
//! No subcommand uses another.

mod bench;
mod calibrate;
mod calibrated;
mod control;
mod doctor;
mod files;
mod flags;
mod generate;
mod image_prompt;
mod info;
mod init_image;
mod markdown;
mod plan;
mod progress;
mod prompts;
mod serve;
mod sheet;
mod timesteps;
mod verify;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Hunyuan-DiT text-to-image with Skip-Cache, on ONNX Runtime or tract.
#[derive(Parser)]
#[command(name = "hydit-serve", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    /// Print the timesteps of a request and which of them run the deep core, without running.
    Plan(plan::Plan),
    /// Print the parameters kept in a PNG.
    Info(info::Info),
    /// Check an artifact folder: hashes, both engines, split against whole.
    Verify(verify::Verify),
    /// Show which engines this machine has.
    Doctor(doctor::Doctor),
}

/// Runs the program on the arguments of the process: what `main` does.
pub fn run() -> ExitCode {
    let started = Instant::now();
    hydit_terminal::run(|cli: Cli| cli.command.run(started))
}

impl Command {
    fn run(self, started: Instant) -> Result<()> {
        match self {
            Command::Generate(command) => command.run(started),
            Command::Serve(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Calibrate(command) => command.run(),
            Command::Sheet(command) => command.run(),
            Command::Plan(command) => command.run(),
            Command::Info(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Doctor(command) => command.run(),
        }
    }
}
