//! Whatever a stranger may hand over, in forged form: each target gives bytes to the code that reads
//! such a thing in the programs, and comes back unless that code has a fault. An error is an
//! answer; a panic, an abort, a hang or a flood of memory is a fault.
//!
//! `tests/corpus.rs` runs every target over its corpus, and over mutations of it, as a plain test.
//! `scripts/fuzz` runs them under libFuzzer, which looks for inputs that reach new code.

mod artifacts;
mod checkpoint;
mod scratch;
mod server;

pub use server::start as start_server;

/// A target, and what it reads. Its corpus is `corpus/NAME`.
pub struct Target {
    /// Name of the target.
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "safetensors", run: checkpoint::safetensors },
    Target { name: "lora", run: checkpoint::lora },
    Target { name: "pickle", run: checkpoint::pickle },
    Target { name: "config", run: checkpoint::config },
    Target { name: "tokenizer", run: checkpoint::tokenizer },
    Target { name: "spiece", run: checkpoint::spiece },
    Target { name: "manifest", run: artifacts::manifest },
    Target { name: "schedule", run: artifacts::schedule },
    Target { name: "png", run: artifacts::png },
    Target { name: "http", run: server::http },
    Target { name: "oip", run: server::oip },
];

/// The target called `name`.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("the name of a target")
}
