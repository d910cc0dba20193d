//! DiT against diffusers' `DiTTransformer2DModel` and `DiTPipeline`, and as its authors have it
//! against the PyTorch module of `tests/reference/skip_dit.py`: every graph, and whole pictures with
//! and without the cache, which keeps what the deep blocks add.

use std::fs;
use std::path::Path;

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::runtime::BackendChoice;
use hydit::util::error_chain;
use hydit_export::synth::Shape;
use hydit_export::{Options, check, export};
use hydit_graphs::config::DitKind;
use hydit_graphs::scheduler::{Spacing, VarianceType};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{Place, TOLERANCE, draw_as_references, run_graphs};
use crate::common::golden;
use crate::common::graphs::{open, run};
use crate::common::tensor::distance;

/// The model of the references in diffusers' layout: an odd number of blocks, and heads that are
/// 32 wide.
fn diffusers() -> Place {
    let shape = Shape { depth: Some(9), heads: Some(2), head_dim: Some(32), ..Shape::default() };
    Place::new(DitKind::Diffusers, shape)
}

/// That of the references in the layout of DiT's authors.
fn authors() -> Place {
    let shape = Shape { depth: Some(8), heads: Some(1), ..Shape::default() };
    Place::new(DitKind::Dit, shape)
}

/// What goes around the core is the output of the encoder's last block.
fn known(name: &str, n: usize) -> String {
    match name {
        "skip_0" => format!("x_{n}"),
        "deep" => format!("deep_{n}"),
        _ => name.to_string(),
    }
}

#[test]
fn every_graph_is_its_part_of_diffusers_at_every_cut() {
    run_graphs(&diffusers(), &golden::read("dit", "parts"), 1..=3, &[1, 2, 3], known);
}

#[test]
fn every_graph_is_its_part_of_the_authors_model() {
    let cuts = [1, 3];
    run_graphs(&authors(), &golden::read("dit", "authors"), cuts.into_iter(), &cuts, known);
}

#[test]
fn without_the_cache_the_parts_are_the_whole_model() {
    let (place, golden) = (diffusers(), golden::read("dit", "parts"));
    let options = Options { cache_at_branch: Some(3), full: true, ..place.options("out") };
    export(&options, &mut ()).expect("an export");
    let artifacts = Artifacts::open(&options.out).expect("a manifest");
    let backend = open(BackendChoice::Ort);
    let mut feed = golden.inputs.clone();
    let mut predictions = Vec::new();
    for graph in ["conditioner", "full", "shallow-encoder", "deep-core", "shallow-decoder"] {
        let mut session = artifacts.load(graph, &backend).expect("it loads");
        let mut ours = run(&backend, &mut session, &feed);
        predictions.extend(ours.remove("noise_pred"));
        feed.extend(ours);
    }
    let error = distance(&predictions[1], &predictions[0]);
    assert!(error <= TOLERANCE / 10.0, "{error:.1e}");
}

#[test]
fn pictures_equal_those_of_the_pipeline() {
    let place = diffusers();
    let options = Options { cache_at_branch: Some(2), ..place.options("out") };
    let manifest = export(&options, &mut ()).expect("an export");
    assert_eq!(manifest.variant.name, "dit");
    assert_eq!(manifest.model.scheduler.variance_type, VarianceType::FixedSmall);
    draw_as_references(&place.path("out"), "dit", "pictures.json", 6);
}

#[test]
fn pictures_equal_those_of_the_authors_model() {
    let place = authors();
    let options = Options { cache_at_branch: Some(2), ..place.options("out") };
    let manifest = export(&options, &mut ()).expect("an export");
    assert_eq!(manifest.variant.name, "dit");
    let scheduler = &manifest.model.scheduler;
    assert_eq!(scheduler.variance_type, VarianceType::LearnedRange);
    assert_eq!(scheduler.timestep_spacing, Spacing::Linspace);
    draw_as_references(&place.path("out"), "dit", "authors-pictures.json", 2);
}

/// Changes a JSON file.
fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("it is written");
}

#[test]
fn classes_have_the_labels_of_diffusers() {
    let place = diffusers();
    let index = place.path("checkpoint/model_index.json");
    let labels: Value =
        (0..1000).map(|i| (i.to_string(), json!(format!("N{i}, Other {i}")))).collect();
    change(&index, |json| json["id2label"] = labels);
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    assert_eq!(artifacts.classes.as_ref().expect("classes").names()[207], "N207");
    for (class, there) in [("n207", true), ("other 207", true), ("tench", false)] {
        let request = Request::new(&artifacts.manifest, class).expect("the defaults are right");
        assert_eq!(request.check(&artifacts).is_ok(), there, "{class}");
    }
    for (labels, expected) in [
        (json!({"0": "one"}), "model_index.json: it names 1 classes; expected 1000"),
        (json!({"1": "one"}), "model_index.json: `id2label` has no names of class 0"),
    ] {
        change(&index, |json| json["id2label"] = labels);
        let error = error_chain(&export(&place.options("none"), &mut ()).expect_err("no labels"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_block_with_another_embedder_is_refused_by_name() {
    let place = diffusers();
    let file = place.path("checkpoint/transformer/diffusion_pytorch_model.safetensors");
    let name = "transformer_blocks.4.norm1.emb.timestep_embedder.linear_2.bias";
    let mut bytes = fs::read(&file).expect("a file");
    let at = {
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = tensors.tensor(name).expect("a bias").data().as_ptr();
        data as usize - bytes.as_ptr() as usize
    };
    bytes[at] ^= 1;
    fs::write(&file, bytes).expect("it is written");
    let error = error_chain(&export(&place.options("out"), &mut ()).expect_err("other embedders"));
    let expected = "`timestep_embedder.linear_2.bias` of blocks.4 is not that of blocks.0";
    assert!(error.contains(expected) && error.contains("diffusion_pytorch_model"), "{error}");
    assert!(!place.path("out").exists());
}

#[test]
fn what_a_config_asks_for_beside_a_dit_is_refused_by_field() {
    let place = diffusers();
    let config = place.path("checkpoint/transformer/config.json");
    let whole = fs::read(&config).expect("a config");
    for (field, value, expected) in [
        ("norm_type", json!("ada_norm_single"), "only `ada_norm_zero` is supported"),
        ("activation_fn", json!("geglu"), "only `gelu-approximate` is supported"),
        ("attention_bias", json!(false), "only true is supported"),
        ("norm_elementwise_affine", json!(true), "only false is supported"),
        ("norm_eps", json!(1e-6), "only 1e-5 is supported"),
        ("out_channels", json!(5), "expected 4, or 8 with variance"),
        ("num_layers", json!(3), "expected 4 to 256"),
    ] {
        change(&config, |json| json[field] = value);
        let error = error_chain(&export(&place.options("out"), &mut ()).expect_err(field));
        let named = error.contains("transformer/config.json") && error.contains(field);
        assert!(named && error.contains(expected), "{field}: {error}");
        fs::write(&config, &whole).expect("it is written");
    }
}

#[test]
fn a_dit_is_recognised_by_its_older_class_alone_or_as_a_file() {
    let place = diffusers();
    let config = place.path("checkpoint/transformer/config.json");
    change(&config, |json| json["_class_name"] = json!("Transformer2DModel"));
    let summary = check::check(&place.options("")).expect("a checkpoint");
    assert!(summary.is_whole(), "{}", summary.text());
    let text = summary.text();
    assert!(text.contains("DiT, class to image, in diffusers' layout"), "{text}");
    assert!(text.contains("--class 0"), "{text}");
    let alone = Options {
        base: Some(place.path("checkpoint/vae")),
        ..Options::new(place.path("checkpoint/transformer"), place.path("alone"))
    };
    let manifest = export(&alone, &mut ()).expect("a transformer alone, and its VAE");
    let whole = export(&place.options("out"), &mut ()).expect("an export");
    assert_eq!(manifest.model, whole.model);
    let file = place.path("checkpoint/transformer/diffusion_pytorch_model.safetensors");
    let file =
        Options { base: Some(place.path("checkpoint")), ..Options::new(file, place.path("file")) };
    let manifest = export(&file, &mut ()).expect("a file, and what is around it as its base");
    assert_eq!(manifest.model, whole.model);
}
