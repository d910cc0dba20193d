//! `hydit-serve calibrate`: what it writes is what `auto` follows.

use hydit::Request;
use hydit::cache::refreshes;
use hydit::eval::compare::psnr;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit_testing::emoji;
use serde_json::Value;

use crate::program::{plain, serve, text};

const PROMPTS: &str = "# two to learn from, two to measure on\na rocket on a black background\n\n蓝色背景上的猫\n\
                       a star on a red background\n绿色背景上的狗\n";

#[test]
fn auto_follows_what_calibrate_writes() {
    let artifacts = emoji::own_artifacts();
    let model = plain(artifacts.path());
    let prompts = artifacts.path().join("prompts.txt");
    std::fs::write(&prompts, PROMPTS).expect("it is written");
    let flags = ["--model", model, "--sampler", "ddim", "--infer-steps", "10", "--backend", "ort"];
    let file = plain(&prompts);
    let usual = || {
        let plan = serve(&[&["plan", "--use-cache", "--json"], &flags[..6]].concat());
        let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
        plan["cache_policy"].as_str().expect("a text").to_string()
    };
    assert_eq!(usual(), "N2-700-50");
    let made = serve(&[&["calibrate", "--prompts", file, "--runs", "4,7"], &flags[..]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(usual(), "auto:35dB");
    let table = text(&made.stdout);
    assert!(table.contains("core runs  speed-up    PSNR     p10    SSIM  forecasts"), "{table}");
    assert!(table.contains("core runs  PSNR, dB: from what nine pictures"), "{table}");
    let yaml = std::fs::read_to_string(artifacts.path().join("calibration-ddim-leading-10.yaml"));
    let yaml = yaml.expect("the calibration lies beside the manifest");
    assert!(yaml.contains("forecast: {"), "fitted forecasts are chosen: {yaml}");
    let files = std::fs::read_dir(artifacts.path()).expect("the folder");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    assert!(!names.into_iter().any(|name| name.contains("partial")), "nothing is left behind");
    for line in ["sampler: ddim", "steps: 10", "learned_from: \"a rocket on a black background; "] {
        assert!(yaml.contains(line), "{line} in {yaml}");
    }

    let mut pipeline = emoji::pipeline(artifacts.path(), BackendChoice::Ort);
    let mut draw = |cache: &str| {
        let cat = emoji::cat(pipeline.manifest(), 10);
        let cache_policy = cache.parse().expect("a policy");
        let request = Request { sampler: SamplerKind::Ddim, cache_policy, ..cat };
        pipeline
            .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
            .expect("it draws")
    };
    let off = draw("off");
    let (four, seven) = (draw("auto:4runs"), draw("auto:7runs"));
    assert_eq!((refreshes(&four.plan), refreshes(&seven.plan)), (4, 7));
    assert_eq!(refreshes(&draw("auto:1dB").plan), 4);
    let level = |made: &hydit::Generated| psnr(&off.images[0], &made.images[0]).expect("one size");
    assert!(level(&seven) > level(&four) + 3.0, "{} and {}", level(&seven), level(&four));
    let rule = draw("N3-1000-0"); // the fixed rule with as many core runs
    assert_eq!(refreshes(&rule.plan), 4, "{:?}", rule.plan);
    assert!(level(&four) > level(&rule), "{} and {}", level(&four), level(&rule));
}

#[test]
fn what_cannot_be_calibrated_is_told() {
    let artifacts = emoji::own_artifacts();
    let model = plain(artifacts.path());
    let prompts = artifacts.path().join("prompts.txt");
    let file = plain(&prompts);
    let refused = |content: &str, more: &[&str]| {
        std::fs::write(&prompts, content).expect("it is written");
        let output = serve(&[&["calibrate", "--model", model, "--prompts", file], more].concat());
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let one = refused("a cat\n", &[]);
    assert!(one.contains("prompts.txt: expected 2 prompts or more"), "{one}");
    let long = refused(&format!("a cat\n{}\n", "a dog ".repeat(900)), &[]);
    assert!(long.contains("prompts.txt: \"a dog a dog"), "{long}");
    let seed = refused("a cat\na dog\n", &["--seed", "18446744073709551615"]);
    assert!(seed.contains("seed: 18446744073709551615 + all pictures passes 2^64"), "{seed}");
    let runs = refused("a cat\na dog\n", &["--infer-steps", "8", "--runs", "9"]);
    assert!(runs.contains("--runs: 9 core runs of 8 steps; expected 1 to 8"), "{runs}");
    let steps = refused("a cat\na dog\n", &["--infer-steps", "5"]);
    assert!(steps.contains("--infer-steps: 5 steps are too few"), "{steps}");
}

#[test]
fn a_calibration_knows_its_loras_and_others_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let [loras, prompts, made, sheet] =
        ["loras", "prompts.txt", "style.yaml", "sheet.svg"].map(|name| folder.path().join(name));
    std::fs::create_dir(&loras).expect("a folder");
    let style = hydit_testing::repository().join("tests/reference/lora/emoji-style.safetensors");
    std::fs::copy(style, loras.join("style.safetensors")).expect("a copy");
    std::fs::write(&prompts, "a cat\na dog\n").expect("it is written");
    let (made, sheet, slots) = (plain(&made), plain(&sheet), emoji::slots());
    let shared = [
        &["--model", plain(&slots), "--sampler", "ddim", "--infer-steps", "6"][..],
        &["--image-size", "64", "64", "--lora-dir", plain(&loras)],
    ]
    .concat();
    let engine = ["--backend", "ort"];
    let style = ["--lora", "style:0.8"];
    let of = |command: &[&str], more: &[&[&str]]| {
        let output = serve(&[command, &shared[..], &more.concat()[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let calibrate = ["calibrate", "--prompts", plain(&prompts), "--runs", "3", "-o", made];
    of(&calibrate, &[&style, &engine]);
    let yaml = std::fs::read_to_string(made).expect("a calibration");
    assert!(yaml.contains(r#"loras: [{"name":"style","weight":0.8,"sha256":""#), "{yaml}");

    let policy = format!("schedule:{made}");
    let policy = ["--cache-policy", &policy];
    let words = "was calibrated with the LoRA style:0.8, and this is drawn with no LoRA";
    let picture = plain(folder.path()).to_string() + "/cat.png";
    let generate = ["generate", "--prompt", "a cat", "-o", &picture];
    let other = ["--lora", "style"];
    for (command, engine) in [(&generate[..], &engine[..]), (&["plan"], &[])] {
        let same = of(command, &[&policy, &style, engine]);
        assert!(!text(&same.stderr).contains("was calibrated"), "{}", text(&same.stderr));
        let none = of(command, &[&policy, engine]);
        assert!(text(&none.stderr).contains(words), "{}", text(&none.stderr));
        let other = text(&of(command, &[&policy, &other, engine]).stderr);
        assert!(other.contains("and this is drawn with the LoRA style: generate"), "{other}");
    }
    let judged = ["sheet", "--prompt", "a cat", "--policy", "N2", "--json", "-o", sheet];
    let judged = of(&judged, &[&style, &engine]);
    let judged: Value = serde_json::from_slice(&judged.stdout).expect("JSON");
    assert!(judged["model"].as_str().expect("a name").ends_with(" + style:0.8"), "{judged}");
}
