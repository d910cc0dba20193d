//! Whatever a stranger may hand over, in forged form: each target gives bytes to the code that reads
//! such a thing in the programs, and comes back unless that code has a fault. An error is an
//! answer; a panic, an abort, a hang or a flood of memory is a fault.
//!
//! `tests/corpus.rs` runs every target over its corpus, and over mutations of it, as a plain test.
//! `scripts/fuzz` runs them under libFuzzer, which looks for inputs that reach new code. After each
//! input it looks at a counter of every branch of the program, so the smaller the program the
//! faster it is: what reads checkpoints is built without the feature `engine`.

#[cfg(feature = "engine")]
mod artifacts;
mod checkpoint;
mod scratch;
#[cfg(feature = "engine")]
mod server;

#[cfg(feature = "engine")]
pub use artifacts::{manifest, png, schedule};
pub use checkpoint::{config, lora, pickle, safetensors, spiece, tokenizer};
#[cfg(feature = "engine")]
pub use server::{http, oip, start as start_server};
