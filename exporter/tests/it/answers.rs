//! What `hydit-export` answers to what it cannot take: things of every kind under every flag that names
//! a file or a folder.

use std::process::Command;

use hydit_testing::answers::{Answers, HERE, Things, noted};
use hydit_testing::repository;
use tempfile::TempDir;

/// `hydit-export` in the repository, where `models/` is.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
    command.current_dir(repository());
    command
}

#[test]
fn whatever_is_read_or_written_is_taken_or_refused_in_a_line() {
    let (things, scratch) = (Things::new(), tempfile::tempdir().expect("a folder"));
    let path = |folder: &TempDir, name| folder.path().join(name).display().to_string();
    let (model, out) = (path(&scratch, "model"), path(&scratch, "out"));
    let (model, out) = (model.as_str(), out.as_str());
    let export = ["--checkpoint", "models/emoji", "--out", model, "--single"];
    assert!(program().args(export).output().expect("it runs").status.success());
    let mut answers = Answers::default();
    answers.know(things.path(), "DIR");
    answers.know(model.as_ref(), "MODEL");
    answers.know(out.as_ref(), "OUT");
    let emoji = ["--checkpoint", "models/emoji", "--out", out];
    for words in [
        vec!["--checkpoint", HERE, "--out", out],
        vec!["--checkpoint", "models/emoji", "--base", HERE, "--out", out],
        [&emoji[..], &["--lora", HERE]].concat(),
        [&emoji[..], &["--control", "edges={}"]].concat(),
        [&emoji[..], &["--ip-adapter", HERE]].concat(),
        vec!["check", HERE],
        vec!["inspect", HERE],
        vec!["triton", "--model", HERE, "--plan", "none", "--out", out],
        vec!["triton", "--model", model, "--plan", HERE, "--out", out],
    ] {
        answers.each(program, &words, &things.to_read());
    }
    for words in [
        vec!["--checkpoint", "models/emoji", "--out", HERE],
        vec!["synth", "--out", HERE, "--depth", "4", "--small-text"],
        vec!["triton", "--model", model, "--plan", "none", "--out", HERE],
    ] {
        answers.each(program, &words, &things.to_write());
    }
    answers.compare(&noted(env!("CARGO_MANIFEST_DIR"), "paths.txt"));
}
