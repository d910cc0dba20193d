//! What `hydit-export` answers to what it cannot take: things of every kind under every flag that names
//! a file or a folder.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use hydit_testing::answers::{Answers, Things, noted};
use hydit_testing::repository;
use tempfile::TempDir;

/// The place of what is tried.
const HERE: &str = "{}";

fn note(answers: &mut Answers, words: &[&str], things: Vec<(&'static str, OsString)>) {
    answers.section(&words.join(" ").replace(HERE, "..."));
    for (what, thing) in things {
        let place = |word: &&str| match word.strip_suffix(HERE) {
            None => OsString::from(word),
            Some(before) => [OsStr::new(before), &thing].into_iter().collect(),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
        command.args(words.iter().map(place)).current_dir(repository());
        answers.note(what, command);
    }
}

#[test]
fn whatever_is_read_or_written_is_taken_or_refused_in_a_line() {
    let (things, scratch) = (Things::new(), tempfile::tempdir().expect("a folder"));
    let path = |folder: &TempDir, name| folder.path().join(name).display().to_string();
    let (model, out) = (path(&scratch, "model"), path(&scratch, "out"));
    let (model, out) = (model.as_str(), out.as_str());
    let mut export = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
    export.args(["--checkpoint", "models/emoji", "--out", model, "--single"]);
    assert!(export.current_dir(repository()).output().expect("it runs").status.success());
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
        note(&mut answers, &words, things.to_read());
    }
    for words in [
        vec!["--checkpoint", "models/emoji", "--out", HERE],
        vec!["synth", "--out", HERE, "--depth", "4", "--small-text"],
        vec!["triton", "--model", model, "--plan", "none", "--out", HERE],
    ] {
        note(&mut answers, &words, things.to_write());
    }
    answers.compare(&noted(env!("CARGO_MANIFEST_DIR"), "paths.txt"));
}
