//! `calibrate`: what it writes is what `auto` follows; what was interrupted goes on.

mod emoji;
mod serve;

use std::panic::{AssertUnwindSafe, catch_unwind};

use hydit::cache::refreshes;
use hydit::calibrate::{Settings, calibrate, default_runs};
use hydit::image::psnr;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};
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
    let yaml = std::fs::read_to_string(artifacts.path().join("calibration-ddim-10.yaml"));
    let yaml = yaml.expect("the calibration lies beside the manifest");
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
    assert_eq!(refreshes(&draw("auto:90dB").plan), 10);
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
    assert!(!partial.exists(), "nothing is left behind");

    assert_eq!(all(Some(1), &settings, &mut pipeline).0, [0, 1]);
    assert_eq!(all(Some(4), &settings, &mut pipeline).0, [1, 2, 3, 4]);
    let other = Settings { runs: vec![3, 4], ..settings.clone() };
    let (begun, rest) = all(None, &settings, &mut pipeline);
    assert_eq!(begun, [2, 4], "the pictures to compare with are drawn again");
    assert_eq!(rest.expect("schedules"), whole);

    all(Some(1), &settings, &mut pipeline);
    assert_eq!(all(None, &other, &mut pipeline).0, [0, 1, 2, 3, 4], "of other settings");
}

#[test]
fn core_runs_grow_by_a_tenth_from_four() {
    assert_eq!(default_runs(25), [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17]);
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
    let runs = refused("a cat\na dog\n", &["--infer-steps", "8", "--runs", "9"]);
    assert!(runs.contains("--runs: 9 core runs of 8 steps; expected 1 to 8"), "{runs}");
    let steps = refused("a cat\na dog\n", &["--infer-steps", "5"]);
    assert!(steps.contains("--infer-steps: 5 steps are too few"), "{steps}");
}
