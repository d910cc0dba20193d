//! `hydit-serve`: pictures from the artifacts of `hydit-export`.
#![warn(missing_docs)]

mod cmd;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

/// Hunyuan-DiT text-to-image with Skip-Cache, on ONNX Runtime or tract.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    let started = Instant::now();
    match Cli::parse().command.run(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
