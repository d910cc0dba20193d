//! ControlNets in every form of an export, and with what else a request may ask for.

use std::fs;

use hydit::artifacts::Artifacts;
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::timing::Stage;
use hydit::{Generated, InitImage, Pipeline, Request};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;

use crate::control::{Picture, draw, image, near, reference};

#[test]
fn every_form_draws_with_nets() {
    let fp32 = |target| (Precision::Fp32, target);
    let mut pipeline = emoji::pipeline(&emoji::controlled(1), BackendChoice::Ort);
    let request = Picture::all()["ddim-10-cat"].request(&pipeline);
    let theirs = draw(&mut pipeline, &request);
    for (form, least) in [
        (fp32(Target::OrtCpu), 60.0),
        ((Precision::Fp16, Target::TensorRt), 45.0),
        ((Precision::Int8, Target::OrtCpu), 20.0),
    ] {
        let version = GraphOptions { controls: true, ..form.into() };
        let mut pipeline = emoji::pipeline(&emoji::artifacts_for(version), BackendChoice::Ort);
        let ours = draw(&mut pipeline, &request);
        let found = near(&ours.images[0], &theirs.images[0]);
        println!("{form:?}: {found:.1} dB");
        assert!(found >= least, "{form:?}: {found:.1} dB");
    }
}

#[test]
fn nets_go_with_loras_images_and_little_memory() {
    let loras = tempfile::tempdir().expect("a folder");
    let style = reference("../lora/emoji-style.safetensors");
    fs::copy(style, loras.path().join("style.safetensors")).expect("a copy");
    let both = GraphOptions { controls: true, lora_slots: true, ..Precision::Fp32.into() };
    let open = |low_memory| {
        let artifacts = Artifacts::open(&emoji::artifacts_for(both)).expect("an export");
        let artifacts = artifacts.with_loras(Some(loras.path())).expect("a folder of LoRAs");
        let options = RuntimeOptions {
            backend: BackendChoice::Ort,
            threads: Some(2),
            low_memory,
            ..RuntimeOptions::default()
        };
        let backend = Backend::open(&options).expect("an engine");
        Pipeline::open(artifacts, backend).expect("an export loads")
    };
    let mut pipeline = open(false);
    let plain = Picture::all()["ddim-10-cat"].request(&pipeline);
    let lora = |weight: &str| vec![format!("style:{weight}").parse().expect("a LoRA")];
    let fox = InitImage::new(&image("shade.png"), None, Some(0.7), (plain.width, plain.height));
    let with = |weight| Request { loras: lora(weight), ..plain.clone() };
    let mut late = with("1");
    late.controls[0].start = 0.5;
    let made = draw(&mut pipeline, &plain);
    let near_plain = |made: &Generated, other: &Generated| near(&made.images[0], &other.images[0]);
    assert!(near_plain(&draw(&mut pipeline, &with("0")), &made) > 60.0, "a LoRA of weight 0");
    assert!(near_plain(&draw(&mut pipeline, &with("1")), &made) < 40.0, "the LoRA changes it");

    let all = Request { init_image: Some(fox), ..late };
    let ours = draw(&mut pipeline, &all);
    assert_eq!(ours.timings.calls(Stage::ControlNets), 2 * 3, "of the 7 steps that are taken");
    assert!(near_plain(&ours, &draw(&mut pipeline, &with("1"))) < 40.0, "the image changes it");
    let low = draw(&mut open(true), &all);
    assert!(low.latents == ours.latents && low.timings.calls(Stage::Load) > 3);
}
