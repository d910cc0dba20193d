//! Odd values of flags: seeds at random, prompts with dashes, negative numbers, names of files that
//! are not UTF-8, and texts that a terminal would obey.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hydit::image::{Image, read_png, write_png};
use hydit_testing::emoji;
use serde_json::Value;

use crate::program::{Scratch, command, serve, text};

/// Sets the colour, the title of the window, and clears the screen.
const OBEYED: &str = "\u{1b}[31m\u{1b}]0;title\u{7}\u{9b}2J\r";

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn with_paths(arguments: &[&OsStr]) -> Command {
    let mut command = command(&[]);
    command.args(arguments);
    command
}

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// A name that is not UTF-8.
fn odd(folder: &Path, ending: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(&[b"na\xffme", ending].concat()))
}

#[test]
fn a_seed_of_minus_one_is_drawn_told_and_kept() {
    let scratch = Scratch::new();
    let draw = |name: &str, seed: &str, more: &[&str]| {
        let flags = ["generate", "--model", &scratch.model, "--backend", "ort", "--prompt", "a"];
        let file = scratch.file(name);
        let output = serve(
            &[&flags[..], &["--infer-steps", "2", "--seed", seed, "-o", &file], more].concat(),
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let seed = |name: &str| json(&serve(&["info", &scratch.file(name), "--json"]))["seed"].clone();
    let told = json(&draw("first.png", "-1", &["--json"]));
    let drawn = seed("first.png");
    assert_eq!((&told["images"][0]["seed"], &told["parameters"]["seed"]), (&drawn, &drawn));
    let told = text(&draw("other.png", "-1", &["--batch-size", "2"]).stdout);
    let first = seed("other-0.png").as_u64().expect("a number");
    assert!(told.contains(&format!("seed      {first} to {}\n", first + 1)), "{told}");
    assert_ne!(drawn, first, "another is drawn each time");

    draw("again.png", &drawn.to_string(), &[]);
    let read = |name: &str| fs::read(scratch.file(name)).expect("a file");
    assert!(read("first.png") == read("again.png"));
}

#[test]
fn a_prompt_is_text_whatever_it_begins_with() {
    let scratch = Scratch::new();
    let out = scratch.file("cat.png");
    let flags = ["generate", "--model", &scratch.model, "--infer-steps", "1", "-o", &out];
    for (prompt, negative) in [("-ugly cat", "-x"), ("--json", "--prompt"), ("-1", "-")] {
        let texts = ["--prompt", prompt, "--negative-prompt", negative];
        let output = serve(&[&flags[..], &texts].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let kept = json(&serve(&["info", &out, "--json"]));
        assert_eq!((&kept["prompt"], &kept["negative_prompt"]), (&prompt.into(), &negative.into()));
    }
    // The others fail only later, at what is wrong.
    let model = scratch.model.as_str();
    for arguments in [
        &["sheet", "--model", model, "--prompt", "-a", "--negative", "-b", "--policy", "N0"][..],
        &["bench", "--model", model, "--prompt", "-a", "--negative", "-b", "--policy", "N0"],
    ] {
        let told = text(&serve(arguments).stderr);
        assert!(told.contains("invalid value 'N0' for '--policy <POLICY>'"), "{told}");
    }
}

#[test]
fn a_negative_number_is_told_what_it_may_be() {
    let scratch = Scratch::new();
    let generate = ["generate", "--model", &scratch.model, "--prompt", "a", "-o", "/dev/null"];
    let model = scratch.model.as_str();
    let whole = "expected a whole number of 0 or more";
    let one = "expected a whole number of 1 or more";
    let draws: &[(&[&str], &str)] = &[
        (&["--infer-steps", "-5"], whole),
        (&["--batch-size", "-1"], whole),
        (&["--seeds", "-1"], whole),
        (&["--image-size", "-128", "128"], whole),
        (&["--threads", "-2"], whole),
        (&["--use-cache", "--cache-step", "-3"], one),
        (&["--use-cache", "--cache-step", "0"], one),
        (&["--use-cache", "--cache-start", "-700"], whole),
        (&["--infer-steps", "2.5"], whole),
        (&["--infer-steps", "99999999999999999999"], "too large"),
        (&["--cfg-scale", "-1"], "guidance_scale: -1; expected 0 to 100"),
        (&["--guidance-rescale", "-0.5"], "guidance_rescale: -0.5; expected 0 to 1"),
        (&["--seed", "-one"], "or -1 for one at random"),
        (&["--seed", "-2"], "from 0 to 18446744073709551615, or -1 for one at random"),
    ];
    let others: &[(&[&str], &str)] = &[
        (&["bench", "--model", model, "--rounds", "-1"], one),
        (&["bench", "--model", model, "--threads", "-1"], whole),
        (&["sheet", "--model", model, "--prompt", "a", "--fewer-steps", "-4"], whole),
        (&["sheet", "--model", model, "--prompt", "a", "--policy", "off", "--show", "-1"], one),
        (&["calibrate", "--model", model, "--prompts", "p", "--runs", "-4"], whole),
        (&["plan", "--model", model, "--infer-steps", "-4"], whole),
        (&["serve", "--model", model, "--threads", "-4"], whole),
        (&["serve", "--model", model, "--max-n", "-4"], whole),
        (&["serve", "--model", model, "--deadline", "-4s"], "expected a number and ms, s, m"),
        (&["serve", "--model", model, "--max-body", "-4"], "expected a number and B, KiB"),
    ];
    let draws = draws.iter().map(|(more, expected)| ([&generate[..], more].concat(), expected));
    let others = others.iter().map(|(arguments, expected)| (arguments.to_vec(), expected));
    for (arguments, expected) in draws.chain(others) {
        let told = text(&serve(&arguments).stderr);
        assert!(told.starts_with("error: ") && told.contains(expected), "{arguments:?}: {told}");
    }
}

#[test]
fn a_file_may_have_a_name_that_is_not_utf8() {
    let scratch = Scratch::new();
    let folder = scratch.folder.path();
    let (model, out) = (odd(folder, b""), odd(folder, b".png"));
    fs::create_dir(&model).expect("a folder");
    for file in emoji::artifacts().read_dir().expect("the shared export") {
        let file = file.expect("an entry");
        fs::copy(file.path(), model.join(file.file_name())).expect("it is copied");
    }
    let small = [os("--infer-steps"), os("2"), os("--backend"), os("ort")];
    let named = |command: &'static str| [os(command), os("--model"), model.as_os_str()];
    let draw = [os("--prompt"), os("a"), os("-o"), out.as_os_str(), os("--json")];
    let more = [os("--batch-size"), os("2"), os("--compare"), os("--use-cache")];
    let told = json(&run(&[&named("generate")[..], &draw, &more, &small].concat()));
    assert!(told["images"][0]["path"].as_str().is_some_and(|path| path.ends_with("me-0.png")));
    for name in [&b"-0.png"[..], b"-1.png", b"-compare.png"] {
        read_png(&odd(folder, name)).expect("a picture under its own name");
    }
    let first = odd(folder, b"-0.png");
    assert_eq!(json(&run(&[os("info"), first.as_os_str(), os("--json")]))["prompt"], "a");
    let from = [os("--from"), first.as_os_str(), os("-o"), out.as_os_str()];
    assert!(run(&[&named("generate")[..], &from, &small[2..]].concat()).status.success());

    let figures = odd(folder, b".json");
    let bench = [os("--json"), figures.as_os_str(), os("--policy"), os("off"), os("--rounds")];
    let output = run(&[&named("bench")[..], &bench, &[os("1")], &small].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written: Value = serde_json::from_slice(&fs::read(figures).expect("a file")).expect("JSON");
    assert!(written["setups"][0]["model"].as_str().is_some_and(|path| path.ends_with("me")));
    assert!(run(&named("plan")).status.success());
    let verified = run(&[os("verify"), model.as_os_str(), os("--backend"), os("ort")]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));

    let prompts = odd(folder, b".txt");
    fs::write(&prompts, "a cat\n").expect("a file");
    let sheet = [os("--prompts"), prompts.as_os_str(), os("--policy"), os("N2-1000-0")];
    let files = [os("-o"), out.as_os_str()];
    let output = run(&[&named("sheet")[..], &sheet, &files, &small].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));

    let tract = [os("--prompt"), os("a"), os("--backend"), os("tract")];
    let refused = text(&run(&[&named("generate")[..], &tract, &files].concat()).stderr);
    assert!(refused.contains("path is not UTF-8: rename the folder, or use --backend ort"));

    for flag in ["--data-dir", "--api-keys-file", "--model", "--config"] {
        let serve = [os("serve"), os("--listen"), os("127.0.0.1:0"), os(flag), out.as_os_str()];
        let refused = run(&serve);
        let told = text(&refused.stderr);
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{refused:?}");
        assert!(!told.contains("panic") && told.contains("UTF-8"), "{flag}: {told}");
    }
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
