//! A model that draws classes, on the command line.

use std::path::Path;

use hydit::eval::compare::psnr;
use hydit::image::{Image, read_png};
use hydit::request::Parameters;
use hydit_testing::made_up;

use crate::program::{Scratch, make, plain, serve, text};

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let model = plain(&made_up::skip_dit(scratch.folder.path())).to_string();
    Scratch { model, ..scratch }
}

fn drawn(file: &str) -> (Image, String) {
    let (image, texts) = read_png(Path::new(file)).expect("a PNG");
    (image, Parameters::from_texts(&texts).expect("parameters").request.prompt)
}

const FEW: [&str; 4] = ["--infer-steps", "4", "--seed", "5"];

#[test]
fn pictures_take_classes_in_turn_and_each_says_its_own() {
    let scratch = scratch();
    let all = scratch.file("all.png");
    let classes = ["--class", "207", "--class", "Goldfish, 3"];
    make(&scratch.model, &all, &[&FEW[..], &classes].concat()).expect("it draws");
    let single = |class: &str, seed: &str, flag: &str| {
        let file = scratch.file("single.png");
        let flags = ["--infer-steps", "4", "--seed", seed, flag, class];
        make(&scratch.model, &file, &flags).expect("it draws");
        drawn(&file)
    };
    for (i, (class, seed)) in [("207", "5"), ("Goldfish", "6"), ("3", "7")].iter().enumerate() {
        let (image, named) = drawn(&scratch.file(&format!("all-{i}.png")));
        assert_eq!(named, *class);
        let flag = if i == 1 { "--prompt" } else { "--class" };
        let (alone, _) = single(class, seed, flag);
        let (other, _) = single("900", seed, flag);
        let found = [&alone, &other].map(|one| psnr(&image, one).expect("one size"));
        assert!(found[0] >= 60.0 && found[1] < 50.0, "{class}: {found:?} dB");
    }
    make(&scratch.model, &all, &[&FEW[..], &["--class", "7,8", "--batch-size", "3"]].concat())
        .expect("it draws");
    assert_eq!(drawn(&scratch.file("all-2.png")).1, "7");

    let refused = make(&scratch.model, &all, &["--class", "7,8", "--batch-size", "1"]);
    let told = refused.expect_err("one picture of two classes");
    assert!(told.contains("num_images: 1; expected 2 or more"), "{told}");
    let told = make(&scratch.model, &all, &["--class", "a cat"]).expect_err("no class");
    assert!(told.contains("\"a cat\" is no class of this model"), "{told}");
    let told = make(&Scratch::new().model, &all, &["--class", "7"]).expect_err("a model of texts");
    assert!(told.contains("--class: this model draws what a text says"), "{told}");
}

#[test]
fn every_command_works_with_a_model_of_classes() {
    let scratch = scratch();
    let prompts = scratch.file("classes.txt");
    std::fs::write(&prompts, "207\ngoldfish\n").expect("it is written");
    let wrong = scratch.file("texts.txt");
    std::fs::write(&wrong, "207\na cat\n").expect("it is written");
    let files = ["made.yaml", "sheet.svg"].map(|name| scratch.file(name));
    let [calibration, sheet] = &files;
    let run = |command: &str, flags: &[&str]| {
        let model = [&["--model", &scratch.model][..], &[&scratch.model]];
        let model = model[usize::from(command == "verify")];
        serve(&[&[command], model, flags].concat())
    };
    let few = ["--infer-steps", "6", "--sampler", "ddim"];
    let calibrate = ["--runs", "3", "-o", calibration];
    for (command, flags) in [
        ("plan", &few[..]),
        ("verify", &[][..]),
        ("verify", &["--check-finite", "--infer-steps", "2"][..]),
        ("bench", &["--infer-steps", "2", "--rounds", "1"][..]),
        ("calibrate", &[&["--prompts", &prompts], &few[..], &calibrate].concat()),
        ("sheet", &[&["--prompts", &prompts, "--policy", "N2", "-o", sheet], &few[..]].concat()),
    ] {
        let output = run(command, flags);
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
    let plan = run("plan", &["--cache-policy", "N2"]);
    assert!(text(&plan.stdout).contains("N2-1000-20"), "{}", text(&plan.stdout));
    for (command, flags, expected) in [
        (
            "calibrate",
            &[&["--prompts", &wrong], &few[..], &calibrate].concat()[..],
            "\"a cat\" is no class",
        ),
        ("sheet", &["--prompt", "a cat", "--policy", "N2", "-o", sheet], "is no class"),
        ("plan", &["--tensors", &scratch.file("t.safetensors"), "--prompt", "7"], "draws classes"),
    ] {
        let output = run(command, flags);
        assert!(!output.status.success(), "{command}");
        assert!(text(&output.stderr).contains(expected), "{command}: {}", text(&output.stderr));
    }
}
