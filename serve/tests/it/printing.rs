//! Standard output and standard error that nobody reads, or that are full.

use std::fs::{self, File, OpenOptions};
use std::process::{Command, Stdio};

use hydit::image::{Image, write_png};

use crate::program::{Scratch, command, plain, text};

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A disk without room.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
}

impl Scratch {
    /// Every command that prints, but for those that draw first.
    fn printing(&self) -> Vec<Command> {
        let drawn = self.file("drawn.png");
        let picture = Image { width: 16, height: 16, rgb: vec![0; 3 * 256] };
        let json = r#"{"prompt":"a","width":16,"height":16,"steps":1,"guidance_scale":1.0,
            "guidance_rescale":0.0,"sampler":"ddim","spacing":"leading","seed":1,
            "cache_policy":"off","model":"m","manifest_sha256":"0","version":"1"}"#;
        write_png(drawn.as_ref(), &picture, &[("hydit".into(), json.into())]).expect("a file");
        let model = self.model.as_str();
        [
            &["--help"][..],
            &["--version"],
            &["serve", "--help"],
            &["doctor"],
            &["completions", "bash"],
            &["man", "serve"],
            &["plan", "--model", model],
            &["plan", "--model", model, "--json"],
            &["info", &drawn],
            &["info", &drawn, "--json"],
            &["verify", model, "--backend", "ort"],
        ]
        .map(command)
        .into()
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    for mut command in Scratch::new().printing() {
        let output = command.stdout(closed()).output().expect("it starts");
        assert_eq!(text(&output.stderr), "", "{command:?}");
        assert_eq!(output.status.code(), Some(141), "{command:?}");
    }
}

#[test]
fn a_full_disk_is_told_in_one_line() {
    for mut command in Scratch::new().printing() {
        let output = command.stdout(full()).output().expect("it starts");
        let told = text(&output.stderr);
        assert!(told.starts_with("error: cannot write to standard output: No space"), "{told}");
        assert_eq!((told.lines().count(), output.status.code()), (1, Some(1)), "{command:?}");
    }
}

#[test]
fn remarks_that_nobody_reads_change_nothing() {
    let scratch = Scratch::new();
    let draw = |out: &str, stderr: Stdio| {
        let flags = ["generate", "--model", &scratch.model, "--infer-steps", "2", "--prompt", "a"];
        let mut command = command(&[&flags[..], &["-o", out]].concat());
        command.stderr(stderr).output().expect("it starts")
    };
    for (name, stderr) in [("a.png", closed()), ("b.png", full().into())] {
        let out = scratch.file(name);
        let output = draw(&out, stderr);
        assert!(output.status.success() && text(&output.stdout).contains("wrote "), "{output:?}");
        assert!(fs::metadata(&out).is_ok());
    }
    let folder = plain(scratch.folder.path());
    for stderr in [closed(), full().into()] {
        assert_eq!(draw(folder, stderr).status.code(), Some(1));
    }
    for arguments in [&["plan"][..], &["plan", "--nonsense"], &[]] {
        let output = command(arguments).stderr(closed()).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_picture_is_written_before_its_report_is_lost() {
    let scratch = Scratch::new();
    let out = scratch.file("cat.png");
    let flags = ["generate", "--model", &scratch.model, "--infer-steps", "2", "--prompt", "a"];
    let mut command = command(&[&flags[..], &["-o", &out]].concat());
    let output = command.stdout(full()).output().expect("it starts");
    assert!(text(&output.stderr).contains("cannot write to standard output"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(fs::metadata(&out).is_ok());
}
