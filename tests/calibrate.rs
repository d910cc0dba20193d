//! `calibrate`: what it writes is what `auto` follows; what was interrupted goes on.

mod emoji;
mod serve;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use hydit::cache::refreshes;
use hydit::eval::calibrate::{Settings, calibrate, default_runs};
use hydit::image::psnr;
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};
use hydit_graphs::{Precision, Target};
use serde_json::Value;
use serve::{serve, text};

const PROMPTS: &str = "# two to learn from, two to measure on\na rocket on a black background\n\n蓝色背景上的猫\n\
                       a star on a red background\n绿色背景上的狗\n";

#[test]
fn auto_follows_what_calibrate_writes() {
    let artifacts = emoji::artifacts(1);
    let model = artifacts.path().to_str().expect("a plain path");
    let prompts = artifacts.path().join("prompts.txt");
    std::fs::write(&prompts, PROMPTS).expect("it is written");
    let flags = ["--model", model, "--sampler", "ddim", "--infer-steps", "10", "--backend", "ort"];
    let file = prompts.to_str().expect("a plain path");
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
    let yaml = std::fs::read_to_string(artifacts.path().join("calibration-ddim-leading-10.yaml"));
    let yaml = yaml.expect("the calibration lies beside the manifest");
    assert!(yaml.contains("forecast: {"), "fitted forecasts are chosen: {yaml}");
    let files = std::fs::read_dir(artifacts.path()).expect("the folder");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    assert!(!names.into_iter().any(|name| name.contains("partial")), "nothing is left behind");
    for line in ["sampler: ddim", "steps: 10", "learned_from: \"a rocket on a black background; "] {
        assert!(yaml.contains(line), "{line} in {yaml}");
    }

    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let mut draw = |cache: &str| {
        let cat = emoji::cat(pipeline.manifest(), 10);
        let cache = cache.parse().expect("a policy");
        let request = Request { sampler: SamplerKind::Ddim, cache, ..cat };
        pipeline.generate(&request, &mut emoji::ignore).expect("it draws")
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
fn an_interrupted_calibration_goes_on_where_it_was() {
    let artifacts = emoji::artifacts(1);
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let request = Request { sampler: SamplerKind::Dpmms, ..emoji::cat(pipeline.manifest(), 7) };
    let prompts = |from, to| PROMPTS.lines().filter(|l| !l.is_empty()).skip(from).take(to);
    let settings = Settings {
        request,
        learn: prompts(1, 2).map(String::from).collect(),
        check: prompts(3, 1).map(String::from).collect(),
        runs: vec![3, 5],
    };
    let folder = tempfile::tempdir().expect("a folder");
    let partial = folder.path().join("partial.json");
    let all = |stop: Option<usize>, settings: &Settings, pipeline: &mut Pipeline| {
        let mut begun = Vec::new();
        let run = catch_unwind(AssertUnwindSafe(|| {
            calibrate(pipeline, settings, &partial, &mut |progress| {
                begun.push(progress.done);
                assert_eq!(progress.total, 5);
                assert_ne!(Some(progress.done), stop, "stopped");
            })
        }));
        (begun, run.ok().map(|found| found.expect("it calibrates")))
    };
    let (begun, whole) = all(None, &settings, &mut pipeline);
    assert_eq!(begun, [0, 1, 2, 3, 4]);
    let whole = whole.expect("schedules");
    assert_eq!(whole.iter().map(|s| s.refresh.len()).collect::<Vec<_>>(), [3, 5]);
    std::fs::remove_file(&partial).expect("it is the caller's to remove");

    assert_eq!(all(Some(1), &settings, &mut pipeline).0, [0, 1]);
    assert_eq!(all(Some(4), &settings, &mut pipeline).0, [1, 2, 3, 4]);
    let other = Settings { runs: vec![3, 4], ..settings.clone() };
    let (begun, rest) = all(None, &settings, &mut pipeline);
    assert_eq!(begun, [2, 4], "the pictures to compare with are drawn again");
    assert_eq!(rest.expect("schedules"), whole);
    assert_eq!(all(None, &settings, &mut pipeline).0, [2], "all is there until it is removed");

    std::fs::write(&partial, "{\"key\": ").expect("a torn file");
    all(Some(1), &settings, &mut pipeline);
    assert_eq!(all(None, &other, &mut pipeline).0, [0, 1, 2, 3, 4], "of other settings");
}

/// Rows apart, half precision, no guidance, several seeds, one part in memory at a time.
#[test]
fn calibration_works_wherever_pictures_are_drawn() {
    let artifacts = emoji::export_with(1, Target::from(Precision::Fp16));
    let options = RuntimeOptions { low_memory: true, ..RuntimeOptions::default() };
    let backend = Backend::open(&options).expect("an engine");
    let mut pipeline = Pipeline::load(artifacts.path(), backend).expect("it loads");
    let cat = emoji::cat(pipeline.manifest(), 6);
    let small = Request { guidance_scale: 1.0, batch_size: 2, ..cat.clone() };
    let apart = Request { height: 512, width: 512, ..cat };
    for request in [small, apart] {
        let settings = Settings {
            request,
            learn: vec!["a cat on a red background".into()],
            check: vec!["a dog on a red background".into()],
            runs: vec![3],
        };
        let folder = tempfile::tempdir().expect("a folder");
        let partial = folder.path().join("partial.json");
        let found = calibrate(&mut pipeline, &settings, &partial, &mut |_| {});
        let found = found.expect("it calibrates");
        let measured = found[0].measured.expect("it is measured");
        assert!(measured.psnr > 15.0 && measured.latent_error < 1.0, "{measured:?}");
    }
}

#[test]
fn prompts_to_judge_by_are_not_calibrated_with() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/cache/prompts").join(name);
        let text = std::fs::read_to_string(path).expect("the file");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(String::from).collect::<BTreeSet<_>>()
    };
    for model in ["emoji", "badges"] {
        let held_out = read(&format!("{model}-heldout.txt"));
        assert_eq!(held_out.len(), 50);
        assert!(held_out.is_disjoint(&read(&format!("{model}-calibrate.txt"))), "{model}");
    }
}

#[test]
fn core_runs_grow_by_a_tenth_from_four() {
    assert_eq!(default_runs(25), (4..=18).collect::<Vec<_>>());
    assert_eq!(default_runs(50)[15..], [19, 20, 22, 24, 26, 28, 30, 33, 36]);
    assert_eq!(default_runs(6), [4]);
    assert!(default_runs(5).is_empty());
}

#[test]
fn what_cannot_be_calibrated_is_told() {
    let artifacts = emoji::artifacts(1);
    let model = artifacts.path().to_str().expect("a plain path");
    let prompts = artifacts.path().join("prompts.txt");
    let file = prompts.to_str().expect("a plain path");
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
