//! Hostile files that flags name: each refused in one line, whatever they are, and none waited for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use hydit::image::{read_png, write_png};
use hydit::request::Parameters;
use hydit_testing::hostile::{check_message, not_the_file};

use crate::program::{Scratch, plain, serve, text};

/// Runs the program, which must refuse in one line; gives the line.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = serve(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    let line = said.lines().last().unwrap_or_default().to_string();
    assert!(line.starts_with("error: "), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    line
}

/// A named pipe, a folder and a device in `folder`, each with its word.
fn not_files(folder: &Path) -> [(String, &'static str); 3] {
    let [pipe, device] = ["pipe", "device"].map(|name| plain(&folder.join(name)).to_string());
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    symlink("/dev/zero", &device).expect("a link");
    let words = ["a named pipe", "a folder", "a device"];
    let paths = [pipe, plain(folder).to_string(), device];
    let mut both = paths.into_iter().zip(words);
    [(); 3].map(|()| both.next().expect("three"))
}

#[test]
fn only_regular_files_are_read_where_flags_name_files() {
    let scratch = Scratch::new();
    let model = &scratch.model;
    for (path, what) in not_files(scratch.folder.path()) {
        let expected = format!("{what}; expected a regular file");
        let schedule = format!("schedule:{path}");
        let prompted = ["--prompt", "a cat", "--cache-policy", &schedule];
        for arguments in [
            vec!["info", &path],
            vec!["generate", "--model", model, "--from", &path],
            [&["generate", "--model", model][..], &prompted].concat(),
            vec!["plan", "--model", model, "--cache-policy", &schedule],
            vec!["calibrate", "--model", model, "--prompts", &path],
            vec!["sheet", "--model", model, "--prompts", &path, "--policy", "off"],
            vec!["serve", "--model", model, "--config", &path],
            vec!["serve", "--model", model, "--api-keys-file", &path],
        ] {
            let line = refused(&arguments);
            check_message(&format!("{arguments:?}"), &line, &[&expected]);
        }
    }
}

#[test]
fn what_is_no_file_of_prompts_or_settings_is_refused_in_a_line() {
    let scratch = Scratch::new();
    let (model, path) = (&scratch.model, scratch.file("file"));
    for (case, bytes) in not_the_file(b"model: none\nlisten: 127.0.0.1:0\n# the end is here") {
        fs::write(&path, &bytes).expect("written");
        let line =
            refused(&["serve", "--config", &path, "--model", "/none", "--listen", "[::1]:0"]);
        check_message(case, &line, &[]);
    }
    let huge = vec![b'x'; (16 << 20) + 1];
    for (bytes, expected) in [
        (&b""[..], "no prompt in it"),
        (b"# a comment\n\n", "no prompt in it"),
        (b"a cat\n\xff\xfe\n", "line 2 is not UTF-8"),
        (b"a cat\n", "2 prompts or more"),
        (&huge, "expected at most 16777216"),
    ] {
        fs::write(&path, bytes).expect("written");
        let line = refused(&["calibrate", "--model", model, "--prompts", &path]);
        check_message(expected, &line, &["file", expected]);
    }
}

#[test]
fn a_png_opens_no_file() {
    let scratch = Scratch::new();
    let (model, drawn) = (&scratch.model, scratch.file("drawn.png"));
    let draw = ["generate", "--model", model, "--prompt", "a cat", "--infer-steps", "1"];
    let output = serve(&[&draw[..], &["-o", &drawn]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));

    let (image, texts) = read_png(Path::new(&drawn)).expect("an image");
    let mut parameters = Parameters::from_texts(&texts).expect("parameters");
    let pipe = scratch.file("pipe\n\u{1b}[2J");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    parameters.request.cache_policy = format!("schedule:{pipe}#3").parse().expect("a policy");
    let theirs = scratch.file("theirs.png");
    write_png(Path::new(&theirs), &image, &parameters.to_texts()).expect("written");

    let again = ["generate", "--model", model, "--from", &theirs, "-o", &drawn];
    let line = refused(&again);
    let parts = ["--from: ", "pipe\\n\\u{1b}[2J", "--cache-policy"];
    check_message("a schedule", &line, &parts);
    let output = serve(&[&again[..], &["--cache-policy", "off"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));

    let told = text(&serve(&["info", &theirs]).stdout);
    assert!(told.contains("schedule:") && !told.contains('\u{1b}'), "{told}");
}
