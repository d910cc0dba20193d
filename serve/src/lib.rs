//! The program `hydit-serve`: artifacts of `hydit-export` to images, by command line and HTTP.
//!
//! `cmd` has a file for each subcommand, [`server`] is what `hydit-serve serve` runs. Both stand on
//! the library `hydit`, which draws.
#![warn(missing_docs)]

mod choice;
mod cmd;
pub mod server;

pub use cmd::run;
