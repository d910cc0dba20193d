//! LoRAs of requests, through slots of the graphs: against exports with the same merged, and one
//! request after the other.
//!
//! Slots compute `x @ W + (x @ a) @ b` where a merged export has `x @ (W + a @ b)`. Both are fp32, so
//! a graph may differ by the rounding of its layers, as against PyTorch: 1e-5. Pictures are 60 dB
//! and more apart then (`tests/reference/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::eval::compare::psnr;
use hydit::lora::LoraChoice;
use hydit::pipeline::batch::can_batch;
use hydit::pipeline::lora::LoraInputs;
use hydit::request::Parameters;
use hydit::runtime::BackendChoice;
use hydit::{CheckedRequest, Error, Pipeline, Request};
use hydit_export::{Options, Weighted, export};
use hydit_testing::emoji;

use crate::common::graphs::{open, run};
use crate::common::synthetic;
use crate::common::tensor::{Tensor, Tensors, distance};
use crate::common::transformer;
use crate::lora::{Reference, folder as references};

const TOLERANCE: f64 = 1e-5;
const PSNR: f64 = 60.0;

/// A folder with the LoRAs `style`, `ink` (as PEFT saves it) and `text`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let theirs = |name: &str| references().join(format!("emoji-{name}.safetensors"));
    for name in ["style", "text"] {
        fs::copy(theirs(name), path(&format!("{name}.safetensors"))).expect("a copy");
    }
    fs::create_dir(path("ink")).expect("a folder");
    fs::copy(theirs("ink"), path("ink/adapter_model.safetensors")).expect("a copy");
    fs::write(path("notes.txt"), "no LoRA").expect("written");
    folder
}

fn artifacts(loras: &Path) -> Artifacts {
    let artifacts = Artifacts::open(&emoji::slots()).expect("an export");
    artifacts.with_loras(Some(loras)).expect("a folder of LoRAs")
}

fn pipeline(loras: &Path, engine: BackendChoice) -> Pipeline {
    Pipeline::open(artifacts(loras), emoji::backend(engine)).expect("an export loads")
}

fn choices(texts: &[&str]) -> Vec<LoraChoice> {
    texts.iter().map(|text| text.parse().expect("a LoRA")).collect()
}

/// The names of a reference's LoRAs in [`folder`], and their weights.
fn of_reference(reference: &Reference) -> Vec<LoraChoice> {
    let choice = |(file, weight): &(String, f32)| LoraChoice {
        name: file.trim_start_matches("emoji-").trim_end_matches(".safetensors").to_string(),
        weight: *weight,
        sha256: None,
    };
    reference.loras.iter().map(choice).collect()
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Vec<f32> {
    let request = emoji::checked(pipeline, request);
    pipeline.generate(&request, &mut emoji::ignore).expect("it draws").latents
}

/// An export with the LoRAs of `reference` merged.
fn merged(reference: &Reference) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a folder");
    let out = place.path().join("merged");
    let loras = reference.loras.iter().map(|(file, weight)| {
        Weighted::new(references().join(file).to_string_lossy(), *weight).expect("a LoRA")
    });
    let options = Options { loras: loras.collect(), ..Options::new(emoji::checkpoint(), &out) };
    export(&options, &mut ()).expect("an export");
    (place, out)
}

#[test]
fn every_graph_with_slots_is_the_graph_of_the_merged_model() {
    let loras = folder();
    let artifacts = artifacts(loras.path());
    let manifest = &artifacts.manifest;
    let dit = manifest.model.transformer.hunyuan_dit().expect("a Hunyuan-DiT");
    let reference = Reference::all().into_iter().find(|r| r.loras.len() == 2).expect("two LoRAs");
    let (_place, merged) = merged(&reference);
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let backend = open(engine);
        let request = Request::new(manifest, "").expect("the defaults are right");
        let request = Request { loras: of_reference(&reference), ..request };
        let request = request.check(&artifacts).expect("a good request");
        let inputs = LoraInputs::of(manifest, &backend, &request).expect("inputs");

        let mut feed = transformer::inputs(dit, 2, [6, 5]);
        for (name, length, width) in [
            ("encoder_hidden_states", dit.text_len, dit.cross_attention_dim),
            ("encoder_hidden_states_t5", dit.text_len_t5, dit.cross_attention_dim_t5),
        ] {
            feed.insert(name.to_string(), synthetic::floats(name, &[2, length, width], 1.5));
        }
        let mask = |length| synthetic::prefix_mask(&[3, length], length);
        feed.insert("text_embedding_mask".to_string(), mask(dit.text_len));
        feed.insert("text_embedding_mask_t5".to_string(), mask(dit.text_len_t5));

        let mut changed = 0;
        for graph in ["conditioner", "shallow-encoder", "deep-core", "shallow-decoder"] {
            let run = |folder: &Path, feed: &Tensors| {
                let file = folder.join(format!("{graph}.onnx"));
                let mut session = backend.load(&file).unwrap_or_else(|error| panic!("{error}"));
                run(&backend, &mut session, feed)
            };
            let theirs = run(&merged, &feed);
            let plain = run(&emoji::artifacts(), &feed);
            let mut own = feed.clone();
            for (name, value) in inputs.of_graph(graph) {
                own.insert(name.to_string(), Tensor::of_value(value));
            }
            for (name, ours) in run(&emoji::slots(), &own) {
                let error = distance(&ours, &theirs[&name]);
                println!("{graph:16} {name:12} {engine} {error:.1e}");
                assert!(error <= TOLERANCE, "{graph} {name} {engine}: {error:.1e}");
                changed += usize::from(distance(&ours, &plain[&name]) > 10.0 * TOLERANCE);
            }
            feed.extend(theirs);
        }
        assert!(changed >= 4, "only {changed} outputs see the LoRAs");
    }
}

#[test]
fn pictures_with_slots_are_those_of_merged_models() {
    let loras = folder();
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let mut slots = pipeline(loras.path(), engine);
        for reference in Reference::all().iter().filter(|one| one.file != "text.png") {
            let (_place, merged) = merged(reference);
            let mut merged = emoji::pipeline(&merged, engine);
            let plain = reference.request(&merged);
            let theirs = emoji::checked(&merged, &plain);
            let theirs = merged.generate(&theirs, &mut emoji::ignore).expect("it draws");
            let request = Request { loras: of_reference(reference), ..plain };
            let request = emoji::checked(&slots, &request);
            let ours = slots.generate(&request, &mut emoji::ignore).expect("it draws");
            let found = psnr(&ours.images[0], &theirs.images[0]).expect("one size");
            println!("{} {engine}: {found:.1} dB", reference.file);
            assert!(found >= PSNR, "{} {engine}: {found:.1} dB", reference.file);
        }
    }
}

#[test]
fn without_a_lora_the_picture_is_that_of_a_plain_export() {
    let mut slots = emoji::pipeline(&emoji::slots(), BackendChoice::Ort);
    let mut plain = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let request = emoji::cat(plain.manifest(), 4);
    let [slots, plain] = [&mut slots, &mut plain].map(|one| {
        let request = emoji::checked(one, &request);
        one.generate(&request, &mut emoji::ignore).expect("it draws").images.remove(0)
    });
    assert!(psnr(&slots, &plain).expect("one size") >= PSNR);
}

#[test]
fn requests_that_switch_loras_are_each_as_alone() {
    let loras = folder();
    let sets: [&[&str]; 8] = [
        &[],
        &["style"],
        &["style:0.5"],
        &["style:-1"],
        &["ink"],
        &["ink:2"],
        &["style", "ink"],
        &["ink:0.3", "style:0.7"],
    ];
    let small = |pipeline: &Pipeline, set: &[&str], seed| Request {
        loras: choices(set),
        width: 64,
        height: 64,
        seed,
        ..emoji::cat(pipeline.manifest(), 2)
    };
    let alone: Vec<Vec<f32>> = sets
        .iter()
        .map(|set| {
            let mut pipeline = pipeline(loras.path(), BackendChoice::Ort);
            let request = small(&pipeline, set, 1);
            draw(&mut pipeline, &request)
        })
        .collect();
    for (i, one) in alone.iter().enumerate() {
        assert!(alone[..i].iter().all(|other| other != one), "set {i} changes nothing");
    }
    let mut pipeline = pipeline(loras.path(), BackendChoice::Ort);
    let mut place = 0;
    for turn in 0..200 {
        place = (place + 1 + turn * turn % 7) % sets.len();
        let request = small(&pipeline, sets[place], 1);
        assert!(draw(&mut pipeline, &request) == alone[place], "turn {turn}, set {place}");
    }
}

#[test]
fn only_requests_with_the_same_loras_share_a_batch() {
    let loras = folder();
    let pipeline = pipeline(loras.path(), BackendChoice::Ort);
    let request = |texts: &[&str]| -> CheckedRequest {
        let request = Request { loras: choices(texts), ..emoji::cat(pipeline.manifest(), 2) };
        emoji::checked(&pipeline, &request)
    };
    let together = |one: &CheckedRequest, other: &CheckedRequest| {
        can_batch(pipeline.manifest(), pipeline.backend(), one, other)
    };
    let style = request(&["style:0.5"]);
    assert!(together(&style, &request(&["style:0.5"])));
    for other in [&[][..], &["style"], &["ink:0.5"], &["style:0.5", "ink"]] {
        assert!(!together(&style, &request(other)), "{other:?}");
    }
    // Another file under the same name.
    fs::copy(
        loras.path().join("ink/adapter_model.safetensors"),
        loras.path().join("style.safetensors"),
    )
    .expect("a copy");
    assert!(!together(&style, &request(&["style:0.5"])));
}

fn refusal(artifacts: &Artifacts, loras: Vec<LoraChoice>) -> String {
    let request = Request::new(&artifacts.manifest, "a cat").expect("the defaults are right");
    let error = Request { loras, ..request }.check(artifacts).expect_err("a refusal");
    match &error {
        Error::Request { field, .. } => assert_eq!(*field, "loras"),
        Error::Lora { .. } => {}
        other => panic!("{other}"),
    }
    hydit::util::error_chain(&error)
}

#[test]
fn loras_that_cannot_be_drawn_with_are_refused_before_any_work() {
    let loras = folder();
    let slots = artifacts(loras.path());
    assert_eq!(slots.loras.names().expect("names"), ["ink", "style", "text"]);
    for (texts, expected) in [
        (&["pixel"][..], r#"there is no LoRA "pixel"; there is ink, style, text"#),
        (&["../style"], r#"there is no LoRA "../style"; there is"#),
        (&["/etc/passwd"], "there is no LoRA"),
        (&["ink/adapter_model"], "there is no LoRA"),
        (&[".."], "there is no LoRA"),
        (&["notes"], "there is no LoRA"),
        (&["style\u{1b}"], r#"there is no LoRA "style\u{1b}""#),
        (&["style", "style", "style"], "rank 12 all together, and the model has slots up to 8"),
        (&["text"], "slots take LoRAs of attention alone"),
        (&["style"; 17], "17 LoRAs; at most 16"),
    ] {
        let told = refusal(&slots, choices(texts));
        assert!(told.contains(expected), "{texts:?}: {told}");
        assert!(!told.contains('\n'), "{told}");
    }
    let choice = LoraChoice { weight: f32::NAN, ..choices(&["style"]).remove(0) };
    assert!(refusal(&slots, vec![choice]).contains("weight NaN: expected a number from -100"));
    let choice = LoraChoice { sha256: Some("00".repeat(32)), ..choices(&["style"]).remove(0) };
    let told = refusal(&slots, vec![choice]);
    assert!(told.contains("another file than the request means"), "{told}");

    fs::write(loras.path().join("broken.safetensors"), "no").expect("written");
    let told = refusal(&slots, choices(&["broken"]));
    assert!(told.contains("broken.safetensors: truncated"), "{told}");

    let plain = Artifacts::open(&emoji::artifacts()).expect("an export");
    let told = refusal(&plain, choices(&["style"]));
    assert!(told.contains("no slots for LoRAs: export it with --lora-slots"), "{told}");
    let nowhere = Artifacts::open(&emoji::slots()).expect("an export");
    let told = refusal(&nowhere, choices(&["style"]));
    assert!(told.contains("name it with --lora-dir"), "{told}");
    let missing = loras.path().join("missing");
    let error = Artifacts::open(&emoji::slots()).expect("an export").with_loras(Some(&missing));
    assert!(error.err().expect("a refusal").to_string().contains("missing"));
}

#[test]
fn parameters_name_the_loras_and_their_files() {
    let loras = folder();
    let slots = artifacts(loras.path());
    let request = Request::new(&slots.manifest, "a cat").expect("the defaults are right");
    let request = Request { loras: choices(&["style:0.8", "ink"]), ..request };
    let request = request.check(&slots).expect("a good request");
    let texts = request.parameters(&slots, 0, &[]).to_texts();
    assert!(texts[1].1.contains(", LoRA: style:0.8 ink:1"), "{}", texts[1].1);
    let read = Parameters::from_texts(&texts).expect("parameters");
    assert_eq!(read.request.loras, request.loras);
    assert!(read.request.loras.iter().all(|lora| lora.sha256.is_some()));
    read.request.check(&slots).expect("the same files");
}
