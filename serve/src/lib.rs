//! The program `hydit-serve`: artifacts of `hydit-export` to images, by command line and HTTP.
//!
//! `cmd` has a file for each subcommand, [`server`] is what `hydit-serve serve` runs. Both stand on
//! the library `hydit`, which draws.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod backend;
mod choice;
mod cmd;
mod engine;
mod inference;
mod seed;
pub mod server;
mod triton;

pub use cmd::run;
