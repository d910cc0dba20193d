//! `hydit-serve` as a person runs it: exit codes, one-line errors, files.

use std::path::Path;
use std::process::Output;

use hydit::image::read_png;
use hydit::request::Parameters;
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::{emoji, loud};
use serde_json::Value;

use crate::program::{Scratch, command, plain, serve, text};

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

impl Scratch {
    fn generate(&self, more: &[&str]) -> Output {
        let start = ["generate", "--model", &self.model, "--backend", "ort", "--infer-steps", "4"];
        serve(&[&start, more].concat())
    }
}

#[test]
fn a_prompt_that_is_cut_is_told() {
    let scratch = Scratch::new();
    let long = "猫 ".repeat(300);
    let output = scratch.generate(&["--prompt", &long, "--json", "-o", &scratch.file("long.png")]);
    assert!(text(&output.stderr).contains("the prompt is longer than the text encoders read"));
    assert_eq!(json(&output)["truncated"], serde_json::json!(["prompt"]));
    let (_, texts) = read_png(Path::new(&scratch.file("long.png"))).expect("a PNG");
    assert_eq!(Parameters::from_texts(&texts).expect("its parameters").truncated, ["prompt"]);
    assert!(texts[1].1.ends_with(", Truncated: prompt"), "{}", texts[1].1);
    let output = scratch.generate(&["--prompt", "猫", "--json", "-o", &scratch.file("short.png")]);
    assert!(!text(&output.stderr).contains("longer"));
    assert_eq!(json(&output)["truncated"], serde_json::json!([]));
}

#[test]
fn a_picture_with_loras_is_drawn_again_with_the_same_files() {
    let scratch = Scratch { model: plain(&emoji::slots()).to_string(), ..Scratch::new() };
    let loras = scratch.folder.path().join("loras");
    std::fs::create_dir(&loras).expect("a folder");
    let theirs = hydit_testing::repository().join("tests/reference/lora");
    let style = loras.join("style.safetensors");
    std::fs::copy(theirs.join("emoji-style.safetensors"), &style).expect("a copy");
    let (first, again) = (scratch.file("first.png"), scratch.file("again.png"));
    let folder = ["--lora-dir", plain(&loras)];
    let flags = ["--prompt", "猫", "--lora", "style:0.8", "--image-size", "64", "64", "-o", &first];
    let output = scratch.generate(&[&flags[..], &folder].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = serve(&["info", &first]);
    assert!(text(&shown.stdout).contains(r#"[{"name":"style","weight":0.8"#), "{shown:?}");
    let draw_again =
        || scratch.generate(&[&["--from", &first, "-o", &again][..], &folder].concat());
    let output = draw_again();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let [first_bytes, again_bytes] =
        [&first, &again].map(|file| std::fs::read(file).expect("a PNG"));
    assert!(first_bytes == again_bytes);

    std::fs::copy(theirs.join("emoji-ink.safetensors"), &style).expect("a copy");
    let told = text(&draw_again().stderr);
    assert!(told.contains(r#"loras: "style" is another file than the request means"#), "{told}");
}

#[test]
fn a_size_snaps_when_asked_to_and_says_so() {
    let scratch = Scratch::new();
    let plan = ["plan", "--model", &scratch.model, "--image-size", "208", "96"];
    let shown = serve(&plan);
    let told = text(&shown.stdout);
    assert!(
        told.contains("emoji, 208x96,") && told.contains("trained for 128x128 (others"),
        "{told}"
    );
    let snapped = serve(&[&plan[..], &["--snap-size", "--json"]].concat());
    assert!(text(&snapped.stderr).contains("note: 208x96 becomes 128x128"));
    let plan = json(&snapped);
    assert_eq!((&plan["height"], &plan["width"]), (&128.into(), &128.into()));
    assert_eq!(plan["sizes"], serde_json::json!([[128, 128]]));
}

#[test]
fn a_picture_says_how_it_was_made_and_is_drawn_again_from_that() {
    let scratch = Scratch::new();
    let (first, again) = (scratch.file("猫.png"), scratch.file("again.png"));
    let made = json(&scratch.generate(&[
        "--prompt",
        "蓝色背景上的猫",
        "--negative",
        "红色",
        "--sampler",
        "dpmms",
        "--seed",
        "7",
        "--use-cache",
        "--cache-step",
        "3",
        "--json",
        "-o",
        &first,
    ]));
    assert_eq!(made["steps"], 4);
    assert_eq!(
        made["refresh"].as_array().map(Vec::len),
        made["core_runs"].as_u64().map(|n| n as usize)
    );
    assert!(made["backend"].as_str().is_some_and(|name| name.starts_with("ONNX Runtime 1.")));
    assert_eq!(made["stages"].as_array().map(Vec::len), Some(13));

    let info = json(&serve(&["info", &first, "--json"]));
    assert_eq!(info["prompt"], "蓝色背景上的猫");
    assert_eq!(info["cache_policy"], "N3-700-50");
    assert_eq!(info["seed"], 7);
    let readable = text(&serve(&["info", &first]).stdout);
    assert!(readable.contains("negative prompt   红色"), "{readable}");

    let model = &scratch.model;
    let redrawn =
        serve(&["generate", "--model", model, "--from", &first, "--low-memory", "-o", &again]);
    assert!(redrawn.status.success(), "{}", text(&redrawn.stderr));
    let read = |path: &str| read_png(Path::new(path)).expect("a picture");
    assert_eq!(read(&first), read(&again));
}

#[test]
fn compare_measures_and_shows_both_pictures() {
    let scratch = Scratch::new();
    let out = scratch.file("cat.png");
    let flags =
        ["--prompt", "a cat", "--cache-policy", "N4-1000-0", "--compare", "--json", "-o", &out];
    let compared = json(&scratch.generate(&flags))["compare"].clone();
    let allowed = compared["speed_up_allowed"].as_f64().expect("a number");
    assert!(allowed > 2.0 && allowed < 6.0, "{allowed}");
    assert!(compared["speed_up"].as_f64().expect("a number") > 0.0);
    assert!(compared["psnr"].as_f64().is_some_and(|psnr| psnr < 60.0));
    assert!(compared["ssim"].as_f64().is_some_and(|ssim| ssim < 1.0));
    let (both, _) = read_png(Path::new(&scratch.file("cat-compare.png"))).expect("side by side");
    assert_eq!((both.width, both.height), (256, 128));
}

#[test]
fn a_batch_gets_a_file_each_and_metadata_can_be_left_out() {
    let scratch = Scratch::new();
    let out = scratch.file("cat.png");
    let flags = ["--prompt", "a cat", "--batch-size", "2", "--no-metadata", "-o", &out];
    assert!(scratch.generate(&flags).status.success());
    for name in ["cat-0.png", "cat-1.png"] {
        let (_, texts) = read_png(Path::new(&scratch.file(name))).expect("a picture");
        assert!(texts.is_empty());
        assert!(Parameters::from_texts(&texts).is_err());
    }
    let info = serve(&["info", &scratch.file("cat-0.png")]);
    assert!(!info.status.success());
    assert_eq!(text(&info.stderr).matches("cat-0.png").count(), 1, "{}", text(&info.stderr));
    let missing = serve(&["info", &scratch.file("none.png")]);
    assert!(!missing.status.success());
    assert_eq!(text(&missing.stderr).matches("none.png").count(), 1, "{}", text(&missing.stderr));
}

#[test]
fn a_plan_is_printed_without_running() {
    let scratch = Scratch::new();
    let flags = [
        "plan",
        "--model",
        &scratch.model,
        "--sampler",
        "dpmms",
        "--infer-steps",
        "25",
        "--use-cache",
        "--cache-step",
        "3",
    ];
    let plan = json(&serve(&[&flags[..], &["--json"]].concat()));
    let refresh: Vec<u64> = serde_json::from_value(plan["refresh"].clone()).expect("a list");
    assert_eq!(refresh, [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 18, 21, 24]);
    assert_eq!(plan["core_runs"], 14);
    let shown = text(&serve(&flags).stdout);
    assert!(shown.contains("14 of 25 steps run the deep core"), "{shown}");
}

#[test]
fn a_plan_has_the_tensors_of_the_request() {
    let scratch = Scratch::new();
    let file = scratch.file("cat.safetensors");
    let plan = |more: &[&str]| serve(&[&["plan", "--model", &scratch.model], more].concat());
    let long = "猫 ".repeat(300);
    let tensors =
        ["--prompt", &long, "--tensors", &file, "--sampler", "ddpm", "--infer-steps", "4"];
    let written = plan(&[&tensors[..], &["--batch-size", "2", "--cache-policy", "N2"]].concat());
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(text(&written.stderr).contains("the prompt is longer"), "{}", text(&written.stderr));
    let bytes = std::fs::read(&file).expect("the file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let shape = |name| tensors.tensor(name).expect(name).shape().to_vec();
    assert_eq!(shape("input_ids"), [4, 77]);
    assert_eq!(shape("noise"), [4, 2, 4, 16, 16]);
    assert_eq!(tensors.tensor("refresh").expect("refresh").data(), [1, 0, 1, 0]);
    assert_eq!(tensors.len(), 24);

    for (flags, message) in [
        (&["--tensors", &file][..], "--prompt"),
        (&["--prompt", "a cat"], "--tensors"),
        (&["--prompt", "a cat", "--tensors", &file, "--cache-policy", "probe:0.3"], "probe:0.3"),
        (&["--prompt", "a cat", "--tensors", "/nowhere/cat.safetensors"], "/nowhere"),
    ] {
        let refused = plan(flags);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(message), "{said}");
    }
    assert_eq!(std::fs::read(&file).expect("the file"), bytes, "a refusal writes nothing");
}

#[test]
fn verify_compares_the_engines_and_doctor_names_them() {
    let scratch = Scratch::new();
    let verified = serve(&["verify", &scratch.model]);
    let shown = text(&verified.stdout);
    assert!(verified.status.success(), "{shown}{}", text(&verified.stderr));
    assert_eq!(shown.matches(" ok").count(), 8, "{shown}");
    assert!(shown.contains("skipped   split against whole"), "{shown}");

    // A GPU that was asked for is never replaced by the CPU.
    let refused = serve(&["verify", &scratch.model, "--provider", "cuda"]);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("the cuda provider cannot be used"),
        "{said}"
    );

    let doctor = text(&serve(&["doctor"]).stdout);
    assert!(doctor.contains("+ ort, cpu") && doctor.contains("- ort, cuda"), "{doctor}");
    assert!(doctor.contains("--backend auto takes ONNX Runtime"), "{doctor}");
}

#[test]
fn verify_names_the_engines_it_leaves_out_and_why() {
    let target = |precision, target| GraphOptions::from((precision, target));
    let folder = emoji::artifacts_for(target(Precision::Fp16, Target::OrtCuda));
    let verified = serve(&["verify", plain(&folder)]);
    let shown = text(&verified.stdout);
    assert!(verified.status.success(), "{shown}{}", text(&verified.stderr));
    assert!(shown.contains("skipped   tract") && shown.contains("(form ort-cuda)"), "{shown}");

    let folder = emoji::artifacts_for(target(Precision::Bf16, Target::TensorRt));
    let refused = serve(&["verify", plain(&folder)]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("written in bf16"), "{said}");
}

#[test]
fn verify_tells_how_large_values_become_and_names_the_block_that_is_not_finite() {
    let scratch = Scratch::new();
    let check = ["verify", "--check-finite", "--infer-steps", "2"];
    let checked = serve(&[&check[..], &[&scratch.model]].concat());
    let shown = text(&checked.stdout);
    assert!(checked.status.success(), "{shown}{}", text(&checked.stderr));
    assert!(shown.ends_with("all finite\n") && !shown.contains("note"), "{shown}");
    let rows: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = rows.iter().find(|row| row.contains(&"blocks.10")).expect("a block of the core");
    assert_eq!(row[..5], ["deep-core", "block", "blocks.10", "f32", "2"]);
    let [largest, share] = [5, 6].map(|i| row[i].parse::<f64>().expect("a number"));
    assert!(largest > 1.0 && (share - largest / 655.04).abs() < 0.01, "{row:?}");

    let checkpoint = loud::checkpoint();
    loud::change_transformer(checkpoint.path(), |name| {
        (name == "blocks.2.ff.net.0.proj.weight").then_some((2e5, 0.0))
    });
    let out = tempfile::tempdir().expect("a folder");
    emoji::export(checkpoint.path(), out.path(), 1, Precision::Fp16).expect("it exports");
    let check = [&check[..], &["--image-size", "64", "96", plain(out.path())]].concat();
    let checked = serve(&check);
    let (shown, said) = (text(&checked.stdout), text(&checked.stderr));
    assert_eq!(checked.status.code(), Some(1), "{shown}");
    assert!(shown.contains("tract") && shown.contains("NOT FINITE in run 1"), "{shown}");
    assert!(said.starts_with("error: not finite: first the block blocks.2 of deep-core"), "{said}");
    assert!(said.lines().count() == 1 && said.contains("export with --dtype bf16"), "{said}");

    // What rounds nothing in between says so.
    let checked = serve(&[&check[..], &["--backend", "ort"]].concat());
    assert!(text(&checked.stdout).contains("it computes fp16 in fp32"));
    let alone = serve(&["verify", &scratch.model, "--prompt", "a cat"]);
    assert_eq!(alone.status.code(), Some(2), "{}", text(&alone.stderr));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_and_leaves_nothing() {
    let scratch = Scratch::new();
    let (model, out) = (&scratch.model, scratch.file("out.png"));
    let nowhere = scratch.file("missing/out.png");
    let folder = plain(scratch.folder.path());
    let draw = ["generate", "--model", model, "--prompt", "a cat", "-o", &out];
    let with = |more: &[&'static str]| [&draw[..], more].concat();
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (with(&["--image-size", "100", "128"]), "height: 100 is not a multiple of 16"),
        (with(&["--infer-steps", "0"]), "steps is 0"),
        (with(&["--sampler", "heun"]), "ddpm, ddim, dpmms, unipc, euler, euler-ancestral, lcm"),
        (with(&["--use-cache", "--cache-step", "0"]), "--cache-step"),
        (with(&["--cache-policy", "N0"]), "N0"),
        (with(&["--compare"]), "--compare needs a cache"),
        (with(&["--provider", "cuda"]), "the cuda provider cannot be used"),
        (with(&["--backend", "tract", "--provider", "cuda"]), "tract computes on the CPU only"),
        (with(&["--from", "LICENSE"]), "LICENSE"),
        (
            vec!["generate", "--model", folder, "--prompt", "a", "-o", &out],
            "manifest.yaml: not found",
        ),
        (
            vec!["generate", "--model", model, "--prompt", "a", "-o", &nowhere],
            "--output: cannot write",
        ),
        (vec!["generate", "--model", model, "--prompt", "a", "-o", folder], "is a folder"),
        (vec!["info", model], "error: "),
    ];
    for (arguments, expected) in cases {
        let output = serve(&arguments);
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!error.contains("panicked") && error.lines().count() <= 6, "{error}");
    }
    assert_eq!(scratch.folder.path().read_dir().expect("readable").count(), 0);
}

#[test]
fn nothing_is_left_in_the_home_folder() {
    let home = tempfile::tempdir().expect("a folder");
    let output = command(&["doctor"]) // it opens ONNX Runtime, which has a telemetry database
        .env("HOME", home.path())
        .env_remove("ORT_DISABLE_TELEMETRY")
        .output()
        .expect("it starts");
    assert!(text(&output.stdout).contains("+ ort, cpu"), "{}", text(&output.stdout));
    let left: Vec<_> = home.path().read_dir().expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
