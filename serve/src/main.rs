//! `hydit-serve`: pictures from the artifacts of `hydit-export`.
#![warn(missing_docs)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use hydit_serve::cmd;

/// Hunyuan-DiT text-to-image with Skip-Cache, on ONNX Runtime or tract.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: cmd::Command,
}

/// Unless it is in the environment, ONNX Runtime 1.31 keeps a telemetry database in the home folder,
/// even where its interface has switched telemetry off.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Becomes the same program with the variable set: only a new one can be given it safely. Where that
/// cannot be done, says so and goes on.
fn without_telemetry() {
    if std::env::var_os(NO_TELEMETRY).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let failure = match std::env::current_exe() {
        Ok(program) => {
            Command::new(program).arg0(name).args(arguments).env(NO_TELEMETRY, "1").exec()
        }
        Err(failure) => failure,
    };
    eprintln!("note: set {NO_TELEMETRY}=1 to keep ONNX Runtime from its telemetry ({failure})");
}

fn main() -> ExitCode {
    without_telemetry();
    let started = Instant::now();
    match Cli::parse().command.run(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
