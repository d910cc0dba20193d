//! Image prompts on the command line.

use std::fs;

use hydit_testing::{made_up, repository};
use serde_json::Value;

use crate::program::{Calibrated, Scratch, make, plain, serve, text};

/// A folder with the export of a small model with an IP-Adapter.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let model = made_up::with_ip_adapter(scratch.folder.path());
    Scratch { model: plain(&model).to_string(), ..scratch }
}

fn image(name: &str) -> String {
    let folder = repository().join("tests/reference/image_to_image");
    plain(&folder.join(format!("image-{name}.png"))).to_string()
}

const CAT: [&str; 4] = ["--prompt", "a cat", "--infer-steps", "4"];

#[test]
fn a_picture_with_an_image_prompt_says_so_and_is_made_again_with_it() {
    let scratch = scratch();
    let [first, again] = ["first.png", "again.png"].map(|name| scratch.file(name));
    let prompt = format!("{}:0.7", image("fox"));
    let report = make(&scratch.model, &first, &[&CAT[..], &["--image-prompt", &prompt]].concat());
    let report: Value = serde_json::from_str(&report.expect("it draws")).expect("JSON");
    let told = &report["parameters"]["image_prompt"];
    assert_eq!(told["weight"], 0.7_f32);
    assert_eq!(told["sha256"].as_str().map(str::len), Some(64));
    let stages = report["stages"].as_array().expect("stages").iter();
    let calls = |stage: &&Value| stage["stage"] == "image-encoder";
    assert_eq!(stages.clone().find(calls).expect("a stage")["calls"], 1);

    let shown = text(&serve(&["info", &first]).stdout);
    assert!(shown.contains("image prompt"), "{shown}");
    let refused = make(&scratch.model, &again, &["--from", &first]).expect_err("a refusal");
    assert!(refused.contains("which is not in it: name that with --image-prompt"), "{refused}");
    let fox = image("fox");
    make(&scratch.model, &again, &["--from", &first, "--image-prompt", &fox]).expect("it draws");
    assert!(fs::read(&first).expect("a file") == fs::read(&again).expect("a file"));
    make(&scratch.model, &again, &["--from", &first, "--image-prompt", &image("shapes")])
        .expect("it draws");
    assert!(fs::read(&first).expect("a file") != fs::read(&again).expect("a file"));
}

#[test]
fn what_cannot_be_a_prompt_is_refused_in_a_line() {
    let scratch = scratch();
    let out = scratch.file("out.png");
    let readme = plain(&repository().join("README.md")).to_string();
    let heavy = format!("{}:11", image("fox"));
    for (file, words) in [
        (readme.as_str(), "README.md: not a PNG, JPEG or WebP image"),
        ("none.png", "--image-prompt: none.png: "),
        (&heavy, "image_prompt: weight 11: expected 0 to 10"),
    ] {
        let refused = make(&scratch.model, &out, &[&CAT[..], &["--image-prompt", file]].concat());
        let refused = refused.expect_err("a refusal");
        let last = refused.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(words), "{refused}");
        assert!(!fs::exists(&out).expect("readable"), "{words}");
    }
    let plain = Scratch::new();
    let refused =
        make(&plain.model, &out, &[&CAT[..], &["--image-prompt", &image("fox")]].concat());
    assert!(refused.expect_err("a refusal").contains("with hydit-export --ip-adapter"));
}

#[test]
fn a_calibration_records_its_image_prompt_and_others_are_told() {
    let scratch = scratch();
    let with = |name: &str, end: &str| ["--image-prompt".into(), format!("{}{end}", image(name))];
    let fox = with("fox", ":0.7");
    let made = Calibrated::new(&scratch.model, &fox);
    let yaml = made.yaml();
    assert!(yaml.contains(r#"image_prompt: {"weight":0.7,"sha256":""#), "{yaml}");
    // Another image is like another prompt.
    for same in [&fox, &with("shapes", ":0.7")] {
        assert_eq!(made.told(same), "");
    }
    let found = "was calibrated with an image prompt of weight 0.7, and this is drawn with ";
    for (other, words) in [
        (&[][..], "no image prompt: generate --compare"),
        (&with("fox", "")[..], "an image prompt of weight 1: generate"),
    ] {
        let told = made.told(other);
        assert!(told.contains(found) && told.contains(words), "{told}");
    }
    let judged = made.judged(&fox);
    assert!(judged["model"].as_str().expect("a name").ends_with(" + image prompt:0.7"), "{judged}");

    let plain = Scratch::new();
    for command in [&["plan"][..], &["sheet", "--prompt", "a", "--policy", "N2"]] {
        let told =
            serve(&[command, &["--model", &plain.model, "--image-prompt", &image("fox")]].concat());
        assert!(text(&told.stderr).contains("again with hydit-export --ip-adapter"), "{command:?}");
    }
}
