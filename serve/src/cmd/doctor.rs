//! `hydit-serve doctor`: which engines this machine has, and why not the others.

use anyhow::Result;
use clap::Args;
use hydit::runtime::library::{Places, Verdict};
use hydit::runtime::{Backend, BackendChoice, Provider, RuntimeOptions};
use hydit_terminal::say;

#[derive(Args)]
pub struct Doctor {}

impl Doctor {
    pub fn run(self) -> Result<()> {
        say(format_args!("hydit-serve {}", env!("CARGO_PKG_VERSION")))?;
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
            say("  none; get one with scripts/setup-ort, or with pip install onnxruntime")?;
        }

        say("\nengines")?;
        for (name, backend, provider) in [
            ("ort, cpu", BackendChoice::Ort, Provider::Cpu),
            ("ort, cuda", BackendChoice::Ort, Provider::Cuda),
            ("ort, tensorrt", BackendChoice::Ort, Provider::TensorRt),
            ("tract", BackendChoice::Tract, Provider::Cpu),
        ] {
            let options = RuntimeOptions { backend, provider, ..Default::default() };
            match Backend::open(&options) {
                Ok(backend) => say(format_args!("  + {name:14} {}", backend.describe()))?,
                Err(error) => {
                    let reason = error.to_string().replace('\n', "\n    ");
                    say(format_args!("  - {name:14} {reason}"))?;
                }
            }
        }
        let auto = Backend::open(&RuntimeOptions::default())?;
        Ok(say(format_args!("\n--backend auto takes {}", auto.describe()))?)
    }
}
