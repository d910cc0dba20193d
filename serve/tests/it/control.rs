//! Pictures with ControlNets, on the command line.

use std::fs;

use hydit_testing::{emoji, repository};
use serde_json::Value;

use crate::program::{Calibrated, Scratch, make, plain, serve, text};

fn reference(name: &str) -> String {
    plain(&repository().join("tests/reference/control").join(name)).to_string()
}

const FOX: [&str; 4] = ["--prompt", "a fox", "--infer-steps", "6"];

#[test]
fn a_picture_with_a_net_says_so_and_is_drawn_again_from_it() {
    let scratch = Scratch::new();
    let model = plain(&emoji::controlled(1)).to_string();
    let [first, again] = ["first.png", "again.png"].map(|name| scratch.file(name));
    let control = format!("edges={}:0.25:0-0.7", reference("canny-emoji-photo.png"));
    let with = ["--control", &control, "--control-preprocess", "canny"];
    let report = make(&model, &first, &[&FOX[..], &with].concat()).expect("it draws");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let told = &report["parameters"]["controls"][0];
    assert_eq!((told["weight"].as_f64(), told["end"].as_f64()), (Some(0.25), Some(0.7)));
    assert_eq!((&told["name"], &told["preprocess"]), (&"edges".into(), &"canny".into()));
    let mut stages = report["stages"].as_array().expect("stages").iter();
    let nets = stages.find(|stage| stage["stage"] == "control-nets").expect("a stage");
    assert_eq!(nets["calls"], 2 * 4, "encoder and core at 4 of 6 steps");

    let shown = text(&serve(&["info", &first]).stdout);
    assert!(shown.contains("edges") && shown.contains("canny"), "{shown}");
    let refused = make(&model, &again, &["--from", &first]).expect_err("a refusal");
    assert!(refused.contains("with the ControlNet edges") && refused.contains("--control"));
    make(&model, &again, &[&["--from", &first][..], &with].concat()).expect("it draws");
    assert!(fs::read(&first).expect("a file") == fs::read(&again).expect("a file"));
}

#[test]
fn what_cannot_be_drawn_with_a_net_is_refused_in_a_line() {
    let scratch = Scratch::new();
    let model = plain(&emoji::controlled(1)).to_string();
    let out = scratch.file("out.png");
    let edges = |end: &str| format!("edges={}{end}", reference("edges.png"));
    let readme = format!("edges={}", plain(&repository().join("README.md")));
    let pose = format!("pose={}", reference("edges.png"));
    let refused = |model: &str, more: &[&str]| {
        let refused = make(model, &out, &[&FOX[..], more].concat()).expect_err("a refusal");
        assert!(!fs::exists(&out).expect("readable"), "{refused}");
        refused
    };
    for (more, words) in [
        (&["--control", &readme][..], "README.md: not a PNG, JPEG or WebP image"),
        (&["--control", "edges=none.png"], "--control: none.png: "),
        (&["--control", &pose], "there is no ControlNet \"pose\"; there is edges, shade"),
        (&["--control", &edges(":11")], "edges: weight 11; expected 0 to 10"),
        (&["--control", &edges(":1:0.7-0.2")], "the start below the end"),
        (
            &["--control", &edges(""), "--control-preprocess", "shade=canny"],
            "--control-preprocess: there is no --control shade",
        ),
    ] {
        let refused = refused(&model, more);
        let last = refused.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(words), "{refused}");
    }
    let told = refused(&scratch.model, &["--control", &edges("")]);
    assert!(told.contains("exported without ControlNets"), "{told}");
    let told = refused(&model, &["--control", "edges"]);
    assert!(told.contains("expected NAME=FILE"), "{told}");
}

#[test]
fn a_calibration_records_its_nets_and_others_are_told() {
    let model = plain(&emoji::controlled(1)).to_string();
    let net =
        |file: &str, end: &str| ["--control".into(), format!("edges={}{end}", reference(file))];
    let half = net("edges.png", ":0.5");
    let made = Calibrated::new(&model, &half);
    let yaml = made.yaml();
    assert!(yaml.contains(r#"controls: [{"name":"edges","weight":0.5,"start":0.0,"#), "{yaml}");

    // Another image of the same kind is like another prompt.
    for same in [&half, &net("canny-emoji-photo.png", ":0.5")] {
        assert_eq!(made.told(same), "");
    }
    let found = "was calibrated with the ControlNet edges:0.5, and this is drawn with ";
    for (other, words) in [
        (&[][..], "no ControlNet: generate --compare"),
        (&net("edges.png", "")[..], "the ControlNet edges: generate"),
        (&net("edges.png", ":0.5:0-0.6"), "the ControlNet edges:0.5:0-0.6: generate"),
    ] {
        let told = made.told(other);
        assert!(told.contains(found) && told.contains(words), "{told}");
    }
    let canny = [&half[..], &["--control-preprocess".into(), "canny".into()]].concat();
    assert!(made.told(&canny).contains("the ControlNet edges:0.5 by canny: generate"));

    let judged = made.judged(&half);
    let name = judged["model"].as_str().expect("a name");
    assert!(name.ends_with(" + ControlNet edges:0.5"), "{name}");
    let plan = |more: &[String]| {
        let plan = made.run(&["plan", "--json"], more).stdout;
        serde_json::from_slice::<Value>(&plan).expect("JSON")["gflop"].as_f64().expect("a number")
    };
    assert!(plan(&half) > 1.2 * plan(&[]), "a net costs");
}

#[test]
fn what_has_no_nets_refuses_them_in_every_command() {
    let scratch = Scratch::new();
    let [prompts, sheet, tensors] =
        ["prompts.txt", "sheet.svg", "request.safetensors"].map(|name| scratch.file(name));
    fs::write(&prompts, "a cat\na dog\n").expect("written");
    let edges = format!("edges={}", reference("edges.png"));
    let with = emoji::controlled(1);
    let without = "exported without ControlNets: export it again with hydit-export --control";
    for (command, model, words) in [
        (&["plan"][..], scratch.model.as_str(), without),
        (&["calibrate", "--prompts", &prompts], &scratch.model, without),
        (&["sheet", "--prompt", "a", "--policy", "N2", "-o", &sheet], &scratch.model, without),
        (&["plan", "--prompt", "a", "--tensors", &tensors], plain(&with), "controls: "),
    ] {
        let told = serve(&[command, &["--model", model, "--control", &edges]].concat());
        let told = (told.status.code(), text(&told.stderr));
        assert!(told.0 == Some(1) && told.1.contains(words), "{command:?}: {told:?}");
    }
    assert!(!fs::exists(&sheet).expect("readable") && !fs::exists(&tensors).expect("readable"));
}
