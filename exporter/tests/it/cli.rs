//! The program: exit codes, and messages of one line.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::checkpoint::Place;

fn hydit_export(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hydit-export")).args(arguments).output().expect("runs")
}

/// Fails with code 1 and one line that starts with `error: `; returns the line.
fn refused(arguments: &[&str]) -> String {
    let output = hydit_export(arguments);
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty() && text.starts_with("error: "), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

#[test]
fn failures_exit_with_1_and_say_why_in_a_line() {
    let place = Place::new();
    let (checkpoint, out) = (place.checkpoint(), place.out());
    let [checkpoint, out] = [&checkpoint, &out].map(|path| path.to_str().expect("a path"));
    let export = ["--checkpoint", checkpoint, "--out", out];
    for (more, expected) in [
        (["--cache-at-branch", "9"], "--cache-at-branch: 9 is out of range"),
        (["--variant", "sdxl"], "--variant: `sdxl` is not one of"),
    ] {
        let text = refused(&[&export[..], &more].concat());
        assert!(text.contains(expected), "{text}");
    }
    for (dtype, form) in
        [("fp16", "ort-cpu"), ("bf16", "ort-cpu"), ("int8", "ort-cuda"), ("int8", "tensorrt")]
    {
        let text = refused(&[&export[..], &["--dtype", dtype, "--optimize-for", form]].concat());
        let expected = [format!("--dtype: {dtype} "), format!("--optimize-for {form}")];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
    assert!(refused(&["--checkpoint", "/none", "--out", out]).contains("/none: not found"));
    assert!(refused(&["inspect", out]).contains("manifest.yaml: not found"));
    assert!(refused(&["synth", "--out", checkpoint]).contains("is not empty"));
    assert!(refused(&["synth", "--out", out, "--depth", "7"]).contains("must be even"));
    assert!(refused(&["synth", "--out", out, "--variant", "sdxl"]).contains("`sdxl`"));
    assert!(!place.out().exists());
}

#[test]
fn an_automatic_precision_is_that_of_the_target_and_says_why() {
    let place = Place::new();
    let checkpoint = place.checkpoint();
    let checkpoint = checkpoint.to_str().expect("a path");
    for (form, dtype) in
        [("portable", "fp32"), ("ort-cpu", "int8"), ("ort-cuda", "fp16"), ("tensorrt", "fp16")]
    {
        let out = place.path().join(form);
        let to = out.to_str().expect("a path");
        let export = ["--checkpoint", checkpoint, "--out", to, "--optimize-for", form];
        let done = hydit_export(&[&export[..], &["--dtype", "auto"]].concat());
        let told = String::from_utf8(done.stdout).expect("text");
        let first = told.lines().next().expect("a line");
        let expected = format!("--dtype auto: {dtype} for {form}, which ");
        assert!(done.status.success() && first.starts_with(&expected), "{told}");
        let manifest = std::fs::read_to_string(out.join("manifest.yaml")).expect("a manifest");
        assert!(manifest.contains(&format!("\nprecision: {dtype}\n")), "{manifest}");
    }
    let text = hydit_export(&["--checkpoint", checkpoint, "--out", "x", "--dtype", "fp4"]);
    let text = String::from_utf8(text.stderr).expect("text");
    assert!(text.contains("`fp4` is not one of fp32, fp16, bf16, int8, fp8, auto"), "{text}");
}

#[test]
fn a_misuse_exits_with_2() {
    for arguments in [&[] as &[&str], &["--checkpoint", "x"], &["--dtype", "int8"]] {
        assert_eq!(hydit_export(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [
        ["--checkpoint", "x", "--out", "y", "--cache-at-branch", "-1"],
        ["synth", "--out", "y", "--small-text", "--depth", "-2"],
        ["synth", "--out", "y", "--small-text", "--seed", "-1"],
    ] {
        let told = String::from_utf8(hydit_export(&arguments).stderr).expect("text");
        assert!(told.contains("expected a whole number of 0 or more"), "{told}");
    }
}

#[test]
fn a_made_up_model_goes_all_the_way() {
    let place = Place::new();
    let made = place.path().join("made");
    let (made, out) = (made.to_str().expect("a path").to_string(), place.out());
    let out = out.to_str().expect("a path");
    let shape = ["--depth", "4", "--heads", "2", "--head-dim", "12", "--image-size", "64"];
    for arguments in [
        [&["synth", "--variant", "hunyuan-dit-v1.1", "--out", &made, "--small-text"], &shape[..]]
            .concat(),
        vec!["--checkpoint", &made, "--out", out, "--dtype", "fp16"],
        vec!["inspect", out],
    ] {
        let output = hydit_export(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        if arguments[0] != "synth" {
            assert!(text.contains("generic: 4 blocks of width 24, cut at 1, fp16"), "{text}");
            assert!(text.contains("guided picture of 64x64"), "{text}");
        }
    }
}

#[test]
fn needless_tensors_are_told_and_do_not_fail() {
    let place = Place::new();
    place.edit_tensors("text_encoder/model.safetensors", |tensors| {
        let spare = tensors["embeddings.LayerNorm.bias"].clone();
        tensors.insert("spare.bias".to_string(), spare.clone());
        tensors.insert("\u{1b}[2J\u{9b}31m".to_string(), spare); // what a terminal would obey
    });
    let (checkpoint, out) = (place.checkpoint(), place.out());
    let [checkpoint, out] = [&checkpoint, &out].map(|path| path.to_str().expect("a path"));
    let output = hydit_export(&["--checkpoint", checkpoint, "--out", out]);
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && text.contains("text_encoder: spare.bias"), "{text}");
    assert!(text.contains("text_encoder: \\u001b[2J\\u009b31m\n"), "{text:?}");
}

#[test]
fn a_disk_without_room_is_named_and_nothing_stays() {
    let place = Place::new();
    // A limit on the size of files, which a write reports as a full disk would.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_hydit-export"))
        .args(["--checkpoint".as_ref(), place.checkpoint().as_os_str()])
        .args(["--out".as_ref(), place.out().as_os_str()])
        .output()
        .expect("runs");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: cannot write ") && text.contains(".onnx.data: "), "{text}");
    assert!(!place.out().exists());
}

#[test]
fn an_export_goes_into_a_folder_and_into_nothing_else() {
    let place = Place::new();
    let checkpoint = place.checkpoint();
    let at = |name: &str| place.path().join(name);
    fs::write(at("file"), "kept").expect("a file");
    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("it starts").success());
    symlink("nowhere", at("astray")).expect("a link");
    let before = place.path().read_dir().expect("readable").count();
    for (out, expected) in [
        (at("file"), "file is no folder"),
        (at("pipe"), "pipe is no folder"),
        (at("astray"), "astray is a link to nothing"),
        (at("file/out"), "Not a directory"),
        (at(&"n".repeat(256)), "name too long"),
        ("/dev/null".into(), "/dev/null is no folder"),
        ("-".into(), "- is standard output"),
    ] {
        let out = out.to_str().expect("a path");
        let checkpoint = checkpoint.to_str().expect("a path");
        for arguments in [&["--checkpoint", checkpoint, "--out", out][..], &["synth", "--out", out]]
        {
            let told = refused(arguments);
            assert!(told.contains(expected), "{told}");
        }
    }
    assert_eq!(place.path().read_dir().expect("readable").count(), before);
    assert_eq!(fs::read(at("file")).expect("a file"), b"kept");

    fs::create_dir(at("real")).expect("a folder");
    symlink("real", at("link")).expect("a link");
    let odd = place.path().join(OsStr::from_bytes(b"od\xffd"));
    fs::rename(&checkpoint, &odd).expect("it gets another name");
    for out in [at("link"), place.path().join(OsStr::from_bytes(b"ou\xfft"))] {
        let export = [OsStr::new("--checkpoint"), odd.as_os_str(), OsStr::new("--out")];
        for arguments in [
            &[&export[..], &[out.as_os_str()]].concat()[..],
            &[OsStr::new("inspect"), out.as_os_str()],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
            let output = command.args(arguments).output().expect("it starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(fs::symlink_metadata(at("link")).expect("a link").is_symlink());
}

#[test]
fn a_closed_pipe_ends_it_quietly_and_a_full_disk_is_told() {
    let place = Place::new();
    place.export().expect("an export");
    let out = place.out();
    let inspect = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
        command.arg("inspect").arg(&out);
        command
    };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let closed = inspect().stdout(writer).output().expect("it starts");
    assert_eq!((closed.status.code(), closed.stderr.len()), (Some(141), 0), "{closed:?}");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let full = inspect().stdout(full).output().expect("it starts");
    let told = String::from_utf8_lossy(&full.stderr);
    assert!(told.starts_with("error: cannot write to standard output: No space"), "{told}");
    assert_eq!(full.status.code(), Some(1));
}
