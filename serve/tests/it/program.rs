//! The program `hydit-serve`, as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

use hydit_testing::{emoji, repository};
use serde_json::Value;
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

/// The path of an export, and a calibration of it for ddim, 6 steps and small pictures.
pub struct Calibrated(Scratch);

impl Calibrated {
    /// Calibrates with the flags `more`.
    pub fn new(model: &str, more: &[String]) -> Calibrated {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Calibrated(Scratch { model: model.to_string(), folder });
        let prompts = made.0.file("prompts.txt");
        std::fs::write(&prompts, "a cat\na dog\n").expect("it is written");
        let yaml = made.0.file("made.yaml");
        let calibrate = ["calibrate", "--prompts", &prompts, "--runs", "3", "-o", &yaml];
        made.run(&[&calibrate[..], &["--backend", "ort"]].concat(), more);
        made
    }

    /// The text of the calibration's file.
    pub fn yaml(&self) -> String {
        std::fs::read_to_string(self.0.file("made.yaml")).expect("a calibration")
    }

    /// Runs `command` for such pictures with the flags `more`.
    pub fn run(&self, command: &[&str], more: &[String]) -> Output {
        let flags = ["--model", &self.0.model, "--sampler", "ddim", "--infer-steps", "6"];
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let output = serve(&[command, &flags, &["--image-size", "64", "64"], &more].concat());
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        output
    }

    /// What `plan` notes where a picture with the flags `more` follows the calibration.
    pub fn told(&self, more: &[String]) -> String {
        let policy = format!("schedule:{}", self.0.file("made.yaml"));
        text(&self.run(&["plan", "--cache-policy", &policy], more).stderr)
    }

    /// What `sheet` prints of a policy with the flags `more`.
    pub fn judged(&self, more: &[String]) -> Value {
        let sheet = self.0.file("sheet.svg");
        let sheet = ["sheet", "--prompt", "a cat", "--policy", "N2", "--json", "-o", &sheet];
        let judged = self.run(&[&sheet[..], &["--backend", "ort"]].concat(), more);
        serde_json::from_slice(&judged.stdout).expect("JSON")
    }
}
