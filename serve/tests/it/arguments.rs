//! Odd values of flags: texts that a terminal would obey.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Output};

use hydit::image::{Image, write_png};
use serde_json::Value;

use crate::program::{Scratch, command, text};

/// Sets the colour, the title of the window, and clears the screen.
const OBEYED: &str = "\u{1b}[31m\u{1b}]0;title\u{7}\u{9b}2J\r";

fn with_paths(arguments: &[&OsStr]) -> Command {
    let mut command = command(&[]);
    command.args(arguments);
    command
}

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn run(arguments: &[&OsStr]) -> Output {
    with_paths(arguments).output().expect("it starts")
}

#[test]
fn a_terminal_obeys_nothing_of_what_strangers_wrote() {
    let scratch = Scratch::new();
    let picture = Image { width: 16, height: 16, rgb: vec![0; 3 * 256] };
    let prompt = format!("{OBEYED}\nof two lines{}", "x".repeat(6000));
    let json = serde_json::json!({
        "prompt": prompt, "negative_prompt": "\u{202e}txt.exe", "width": 16, "height": 16,
        "steps": 1, "guidance_scale": 1.0, "guidance_rescale": 0.0, "sampler": "ddim",
        "spacing": "leading", "seed": 1, "cache_policy": "off", "model": OBEYED,
        "manifest_sha256": "0", "version": OBEYED,
    });
    let file = scratch.folder.path().join(format!("{OBEYED}.png"));
    let texts = [("hydit".to_string(), json.to_string())];
    write_png(&file, &picture, &texts).expect("a file");
    let missing = scratch.folder.path().join(format!("{OBEYED}-missing.png"));
    let unknown = format!("--{OBEYED}");
    let model = os(&scratch.model);
    let named: Vec<OsString> = vec![file.clone().into(), missing.into(), unknown.into()];
    for arguments in [
        &[os("info"), &named[0]][..],
        &[os("info"), &named[0], os("--json")],
        &[os("info"), &named[1]],
        &[os("info"), &named[2]],
        &[os("verify"), &named[1]],
        &[os("plan"), os("--model"), model, os("--sampler"), &named[2]],
        &[os("generate"), os("--model"), model, os("--from"), &named[0], os("-o"), &named[1]],
        &[os("serve"), os("--config"), &named[1]],
    ] {
        let output = run(arguments);
        let told = text(&[output.stdout, output.stderr].concat());
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!told.contains(obeyed), "{arguments:?}: {told:?}");
        assert!(told.contains("\\u009b2J"), "{told:?}"); // clap itself drops what begins with ESC
    }
    let shown = text(&run(&[os("info"), &named[0]]).stdout);
    assert!(shown.contains("\\nof two lines"), "{shown}");
    assert!(shown.lines().all(|line| line.len() < 5200) && shown.contains("more)"), "{shown}");
    let read: Value = serde_json::from_slice(&run(&[os("info"), &named[0], os("--json")]).stdout)
        .expect("JSON still");
    assert_eq!(read["prompt"], prompt.as_str());
}
