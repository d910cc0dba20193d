//! The program `hydit-serve`, as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

use hydit_testing::{emoji, repository};
use tempfile::TempDir;

/// `hydit-serve` in the repository, where `.runtime/` is.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-serve"));
    command.args(arguments).current_dir(repository());
    command
}

/// Runs it.
pub fn serve(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it starts")
}

/// Runs `generate` with the model `model`. Gives its report as JSON, or else what it has
/// written to standard error.
pub fn make(model: &str, out: &str, more: &[&str]) -> Result<String, String> {
    let model = ["generate", "--model", model, "--backend", "ort", "--json", "-o", out];
    let output = serve(&[&model[..], more].concat());
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// What a program has written, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path as an argument.
pub fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The path of the small model's export, and a folder to write into.
pub struct Scratch {
    pub model: String,
    pub folder: TempDir,
}

impl Scratch {
    /// An empty folder.
    pub fn new() -> Scratch {
        let model = plain(&emoji::artifacts()).to_string();
        Scratch { model, folder: tempfile::tempdir().expect("a folder") }
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> String {
        plain(&self.folder.path().join(name)).to_string()
    }
}
