//! Perturbed-attention guidance on the command line.

use std::fs;

use hydit_graphs::pag::PagLayers;
use hydit_graphs::{GraphOptions, Precision};
use hydit_testing::emoji;
use serde_json::Value;

use crate::program::{Scratch, make, plain, serve, text};

/// A copy of an export with layers, to write into.
fn scratch() -> Scratch {
    let layers = PagLayers::new(&[5]);
    let shared =
        emoji::artifacts_for(GraphOptions { pag_layers: layers, ..Precision::Fp32.into() });
    let scratch = Scratch::new();
    let model = scratch.folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    for file in shared.read_dir().expect("an export") {
        let file = file.expect("an entry");
        fs::copy(file.path(), model.join(file.file_name())).expect("a copy");
    }
    Scratch { model: plain(&model).to_string(), ..scratch }
}

#[test]
fn a_picture_says_its_scale_and_is_made_again_with_it() {
    let scratch = scratch();
    let [first, again] = ["first.png", "again.png"].map(|name| scratch.file(name));
    let asked = ["--prompt", "a cat", "--infer-steps", "4", "--pag-scale", "2.5"];
    let adaptive = ["--pag-adaptive-scale", "0.003"];
    let report = make(&scratch.model, &first, &[&asked[..], &adaptive].concat()).expect("it draws");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["parameters"]["pag_scale"], 2.5);
    assert_eq!(report["parameters"]["pag_adaptive_scale"], 0.003_f32);
    assert!(text(&serve(&["info", &first]).stdout).contains("pag scale"));
    make(&scratch.model, &again, &["--from", &first]).expect("it draws");
    assert!(fs::read(&first).expect("a file") == fs::read(&again).expect("a file"));
    make(&scratch.model, &again, &asked).expect("it draws");
    assert!(fs::read(&first).expect("a file") != fs::read(&again).expect("a file"));
    let none = ["--from", &first, "--pag-scale", "0"];
    let refused = make(&scratch.model, &again, &none).expect_err("a refusal");
    assert!(refused.contains("pag_adaptive_scale: there is no pag_scale"), "{refused}");
    make(&scratch.model, &again, &[&none[..], &["--pag-adaptive-scale", "0"]].concat())
        .expect("it draws");
    assert!(fs::read(&first).expect("a file") != fs::read(&again).expect("a file"));

    let plan = |more: &[&str]| {
        let plan = serve(&[&["plan", "--model", &scratch.model, "--json"], more].concat());
        serde_json::from_slice::<Value>(&plan.stdout).expect("JSON")
    };
    let (with, without) = (plan(&["--pag-scale", "1"]), plan(&[]));
    assert_eq!((&with["rows_per_image"], &without["rows_per_image"]), (&3.into(), &2.into()));
    let tensors = scratch.file("request.safetensors");
    let refused = serve(&[
        "plan",
        "--model",
        &scratch.model,
        "--pag-scale",
        "1",
        "--prompt",
        "a cat",
        "--tensors",
        &tensors,
    ]);
    let refused = text(&refused.stderr);
    assert!(refused.contains("pag_scale: the pipeline in one file has no perturbed rows"));
}

#[test]
fn a_calibration_records_the_scale_and_drawing_with_another_says_so() {
    let scratch = scratch();
    let prompts = scratch.file("prompts.txt");
    fs::write(&prompts, "a cat\na dog\n").expect("written");
    let flags = ["--model", &scratch.model, "--sampler", "ddim", "--infer-steps", "6"];
    let more = ["--prompts", &prompts, "--runs", "3", "--pag-scale", "2", "--backend", "ort"];
    let more = [&more[..], &["--pag-adaptive-scale", "0.003"]].concat();
    let made = serve(&[&["calibrate"], &flags[..], &more].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let yaml = fs::read_to_string(scratch.file("model/calibration-ddim-leading-6.yaml"));
    assert!(yaml.expect("a calibration").contains("\npag_scale: 2\npag_adaptive_scale: 0.003\n"));
    let told = |scales: &[&str]| {
        let auto = ["--cache-policy", "auto:3runs"];
        text(&serve(&[&["plan"], &flags[..], &auto, scales].concat()).stderr)
    };
    let same = ["--pag-scale", "2", "--pag-adaptive-scale", "0.003"];
    assert_eq!(told(&same), "");
    for (scales, words) in [
        (&[][..], "was calibrated with --pag-scale 2, and this is drawn with 0: "),
        (&same[..2], "was calibrated with --pag-adaptive-scale 0.003, and this is drawn with 0: "),
    ] {
        assert!(told(scales).contains(words), "{}", told(scales));
    }
}
