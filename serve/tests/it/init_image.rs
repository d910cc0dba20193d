//! Pictures made from images, on the command line.

use std::fs;

use hydit::image::read_png;
use hydit_testing::repository;
use serde_json::Value;

use crate::program::{Scratch, make, plain, serve, text};

fn reference(name: &str) -> String {
    plain(&repository().join("tests/reference/image_to_image").join(name)).to_string()
}

const FOX: [&str; 6] = ["--prompt", "a fox", "--infer-steps", "10", "--sampler", "ddim"];

#[test]
fn a_picture_made_from_an_image_says_so_and_is_made_again_from_it() {
    let scratch = Scratch::new();
    let [first, again] = ["first.png", "again.png"].map(|name| scratch.file(name));
    let (fox, mask) = (reference("image-fox.png"), reference("mask-half.png"));
    let from_fox = ["--init-image", &fox, "--mask", &mask, "--strength", "0.7"];
    let report = make(&scratch.model, &first, &[&FOX[..], &from_fox].concat()).expect("it draws");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["steps"], 7, "of 10");
    assert_eq!(report["parameters"]["steps"], 10);
    assert_eq!(report["parameters"]["init_image"]["strength"], 0.7);
    assert_eq!(report["parameters"]["init_image"]["sha256"].as_str().map(str::len), Some(64));
    let called = |stage: &str| {
        let mut stages = report["stages"].as_array().expect("stages").iter();
        stages.find(|found| found["stage"] == stage).map(|found| found["calls"].clone())
    };
    assert_eq!(called("vae-encoder"), Some(1.into()));

    let shown = text(&serve(&["info", &first]).stdout);
    assert!(shown.contains("init image strength 0.7\n"), "{shown}");
    let from = ["--from", &first];
    let refused = make(&scratch.model, &again, &from).expect_err("a refusal");
    assert!(refused.contains("which is not in it: name that with --init-image"), "{refused}");
    let from = [&from[..], &["--init-image", &fox]].concat();
    let refused = make(&scratch.model, &again, &from).expect_err("a refusal");
    assert!(refused.contains("with a mask") && refused.contains("--mask"), "{refused}");
    let from = [&from[..], &["--mask", &mask]].concat();
    make(&scratch.model, &again, &from).expect("it draws");
    assert!(fs::read(&first).expect("a file") == fs::read(&again).expect("a file"));
}

#[test]
fn the_image_gives_the_size_unless_one_is_asked_for() {
    let scratch = Scratch::new();
    let (out, large) = (scratch.file("out.png"), reference("image-large.png"));
    let size = |more: &[&str]| {
        let from = ["--init-image", &large, "--strength", "0.1"];
        make(&scratch.model, &out, &[&FOX[..], &from, more].concat()).expect("it draws");
        let (image, _) = read_png(out.as_ref()).expect("a picture");
        (image.height, image.width)
    };
    assert_eq!(size(&[]), (96, 144), "100x150, cut down to multiples of 16");
    assert_eq!(size(&["--image-size", "64", "80"]), (64, 80));
}

#[test]
fn what_cannot_be_made_is_refused_in_a_line() {
    let scratch = Scratch::new();
    let (out, fox) = (scratch.file("out.png"), reference("image-fox.png"));
    let readme = plain(&repository().join("README.md")).to_string();
    for (more, words) in [
        (&["--init-image", &readme][..], "README.md: not a PNG, JPEG or WebP image"),
        (&["--init-image", "none.png"], "--init-image: none.png: "),
        (&["--init-image", &fox, "--mask", &readme], "--mask: "),
        (&["--mask", &fox], "--mask: there is no --init-image"),
        (&["--strength", "0.5"], "--strength: there is no --init-image"),
        (&["--init-image", &fox, "--strength", "0"], "strength: 0; expected more than 0, up to 1"),
        (&["--init-image", &fox, "--strength", "0.05"], "strength: 0.05 of 10 steps is none"),
        (&["--init-image", &fox, "--image-size", "100", "128"], "height: 100 is not a multiple"),
    ] {
        let refused =
            make(&scratch.model, &out, &[&FOX[..], more].concat()).expect_err("a refusal");
        let last = refused.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(words), "{refused}");
        assert!(!fs::exists(&out).expect("readable"), "{words}");
    }
}

#[test]
fn a_plan_shows_the_part_of_the_steps_that_is_taken() {
    let scratch = Scratch::new();
    let plan = ["plan", "--model", &scratch.model, "--sampler", "ddim", "--infer-steps", "10"];
    let policy = ["--strength", "0.4", "--cache-policy", "N2-1000-0"];
    let shown = text(&serve(&[&plan[..], &policy].concat()).stdout);
    assert!(shown.contains("from an image, strength 0.4: the last 4 steps"), "{shown}");
    assert!(shown.contains("   6   301●  201○  101●    1○"), "{shown}");
    let json = serve(&[&plan[..], &policy, &["--json"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["steps"], &json["first_step"]), (&10.into(), &6.into()));
    assert_eq!(json["timesteps"], serde_json::json!([301, 201, 101, 1]));
}
