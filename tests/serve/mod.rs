//! The program `hydit-serve`, as a person runs it.
#![allow(dead_code)] // each test file uses a part

use std::process::{Command, Output};

/// `hydit-serve` in the repository, where `.runtime/` is.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-serve"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Runs it.
pub fn serve(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
