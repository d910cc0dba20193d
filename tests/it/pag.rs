//! Perturbed-attention guidance: graphs and pictures against diffusers, and with what else a request
//! may ask for. `tests/reference/make_pag.py` made the references.

use std::fs;

use hydit::artifacts::Artifacts;
use hydit::eval::compare::psnr;
use hydit::image::Image;
use hydit::pipeline::cost::StepCosts;
use hydit::request::Parameters;
use hydit::runtime::BackendChoice;
use hydit::sampler::{SamplerKind, Spacing};
use hydit::{Pipeline, Request};
use hydit_export::Component;
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::pag::PagLayers;
use hydit_graphs::{GraphOptions, Precision, Target, hunyuan_dit};
use hydit_testing::{emoji, repository};

use crate::batch::{from_image, together};
use crate::common::golden;
use crate::common::graphs::Exporter;
use crate::common::worst::Worst;
use crate::parity::{compare_exported, whole};
use crate::pictures::references;

fn version(blocks: &[usize]) -> GraphOptions {
    GraphOptions { pag_layers: PagLayers::new(blocks), ..Precision::Fp32.into() }
}

fn pipeline(branch: usize, blocks: &[usize]) -> Pipeline {
    let artifacts = emoji::shared("emoji", branch, version(blocks));
    emoji::pipeline(&artifacts, BackendChoice::Ort)
}

fn request(pipeline: &Pipeline) -> Request {
    Request {
        sampler: SamplerKind::Dpmms,
        spacing: Spacing::Linspace,
        pag_scale: 2.0,
        ..emoji::cat(pipeline.manifest(), 8)
    }
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Vec<Image> {
    let request = emoji::checked(pipeline, request);
    pipeline.generate(&request, &mut emoji::ignore).expect("it draws").images
}

fn near(one: &Image, other: &Image) -> f64 {
    psnr(one, other).expect("pictures of one size")
}

#[test]
fn every_graph_with_perturbed_rows_is_diffusers_at_every_seam() {
    let mut worst = Worst::new("");
    for (name, blocks) in [("depth10-style", &[0, 4, 9][..]), ("depth8", &[3])] {
        let golden = golden::read("pag", name);
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let version = version(blocks);
        let exporter = Exporter::synthetic(Component::Transformer, &whole(&cfg, version));
        compare_exported(&golden, &exporter, version, false, &mut worst);
    }
}

/// With the layers in the core, outside of it and on both sides; cached or not; with classifier-free
/// guidance or without; at all steps or some.
#[test]
fn pictures_equal_diffusers_with_and_without_cache() {
    let (folder, references) = references("pag");
    assert!(references.len() >= 9, "the spread of references shrank");
    for (branch, blocks) in [(1, &[5][..]), (1, &[0, 11]), (2, &[1, 6, 10])] {
        let mut pipeline = pipeline(branch, blocks);
        let own = references.iter().filter(|r| r.pag_layers == blocks && r.branch() == branch);
        assert!(own.map(|r| r.check(&folder, &mut pipeline)).count() > 0, "{blocks:?}");
    }
}

#[test]
fn without_a_scale_an_export_with_layers_draws_as_one_without() {
    let mut with = pipeline(1, &[5]);
    let asked = Request { pag_scale: 0.0, ..request(&with) };
    let mut plain = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    assert_eq!(draw(&mut with, &asked), draw(&mut plain, &asked));
}

/// The same picture by two cuts: one has the layer in the core, the other in the encoder. So all
/// that goes with it is the same in both.
#[test]
fn it_goes_with_loras_images_intervals_and_batches() {
    let loras = tempfile::tempdir().expect("a folder");
    let style = repository().join("tests/reference/lora/emoji-style.safetensors");
    fs::copy(style, loras.path().join("style.safetensors")).expect("a copy");
    let version = GraphOptions { lora_slots: true, ..version(&[1]) };
    let mut pictures = Vec::new();
    for branch in [1, 2] {
        let artifacts = Artifacts::open(&emoji::shared("emoji", branch, version));
        let artifacts = artifacts.expect("an export").with_loras(Some(loras.path()));
        let backend = emoji::backend(BackendChoice::Ort);
        let mut pipeline =
            Pipeline::open(artifacts.expect("LoRAs"), backend).expect("an export loads");
        let all = Request {
            loras: vec!["style".parse().expect("a LoRA")],
            init_image: from_image(true, 0.8),
            guidance_interval: "0.3:0.9".parse().expect("an interval"),
            num_images: 2,
            ..request(&pipeline)
        };
        pictures.push(draw(&mut pipeline, &all));
        for changed in [
            Request { pag_scale: 0.0, ..all.clone() },
            Request { loras: Vec::new(), ..all.clone() },
            Request { init_image: from_image(true, 0.5), ..all.clone() },
            Request { guidance_interval: "0.3:0.7".parse().expect("an interval"), ..all.clone() },
        ] {
            let apart = near(&draw(&mut pipeline, &changed)[0], &pictures[0][0]);
            assert!(apart < 45.0, "{apart:.1} dB");
        }
    }
    for (one, other) in pictures[0].iter().zip(&pictures[1]) {
        let found = near(one, other);
        assert!(found >= 60.0, "{found:.1} dB");
    }
}

#[test]
fn pictures_do_not_depend_on_those_beside_them() {
    let mut pipeline = pipeline(1, &[5]);
    let with = request(&pipeline);
    let requests = [
        Request { cache_policy: "N3-1000-0".parse().expect("a policy"), ..with.clone() },
        Request { pag_scale: 0.0, seed: 7, ..with.clone() },
        Request {
            guidance_scale: 1.0,
            guidance_interval: "0.25:0.8".parse().expect("an interval"),
            cache_policy: "N2-1000-0+taylor1".parse().expect("a policy"),
            num_images: 2,
            ..with
        },
    ];
    let pictures = together(&mut pipeline, &requests);
    for (request, together) in requests.iter().zip(&pictures) {
        for (alone, beside) in draw(&mut pipeline, request).iter().zip(together) {
            assert!(near(alone, beside) >= 60.0, "{}", request.seed);
        }
    }
}

/// From 1024 image tokens on each row runs alone.
#[test]
fn rows_that_run_apart_are_those_of_their_picture() {
    let mut pipeline = pipeline(1, &[5]);
    let large = Request { width: 512, height: 512, steps: 1, ..request(&pipeline) };
    let [one, two] = [1, 2].map(|num_images| {
        draw(&mut pipeline, &Request { num_images, ..large.clone() }).swap_remove(0)
    });
    assert!(near(&one, &two) >= 60.0);
    let plain = draw(&mut pipeline, &Request { pag_scale: 0.0, ..large });
    assert!(near(&one, &plain[0]) < 45.0);
}

#[test]
fn other_forms_draw_it_too() {
    let mut fp32 = pipeline(1, &[5]);
    let asked = request(&fp32);
    let theirs = draw(&mut fp32, &asked);
    for (form, least) in [
        ((Precision::Fp32, Target::OrtCpu), 60.0),
        ((Precision::Fp16, Target::TensorRt), 45.0),
        ((Precision::Int8, Target::OrtCpu), 20.0),
    ] {
        let version = GraphOptions { pag_layers: PagLayers::new(&[5]), ..form.into() };
        let artifacts = emoji::artifacts_for(version);
        let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
        let found = near(&draw(&mut pipeline, &asked)[0], &theirs[0]);
        println!("{form:?}: {found:.1} dB");
        assert!(found >= least, "{form:?}: {found:.1} dB");
    }
}

#[test]
fn a_request_says_what_it_costs_and_what_it_was() {
    let pipeline = pipeline(1, &[5]);
    let with = request(&pipeline);
    let cost = |request: &Request| StepCosts::of(pipeline.manifest(), request).full;
    let without = Request { pag_scale: 0.0, ..with.clone() };
    // The rotary tables are the same for all rows.
    let more = cost(&with) / cost(&without);
    assert!((more - 1.5).abs() < 1e-3, "{more}: three rows for two");

    let texts = with.parameters(pipeline.artifacts(), 0, &[]).to_texts();
    assert!(
        texts
            .iter()
            .any(|(_, text)| text.contains(", PAG scale: 2,") || text.ends_with(", PAG scale: 2"))
    );
    let read = Parameters::from_texts(&texts).expect("our own");
    assert_eq!(read.request, with);
    let texts = without.parameters(pipeline.artifacts(), 0, &[]).to_texts();
    assert!(texts.iter().all(|(_, text)| !text.to_lowercase().contains("pag")));
}

#[test]
fn a_model_without_layers_refuses_by_name() {
    let pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let refused = request(&pipeline).check(pipeline.artifacts()).expect_err("a refusal");
    assert!(refused.to_string().starts_with("pag_scale: this model has no layers"), "{refused}");
    let negative = Request { pag_scale: -1.0, ..request(&pipeline) };
    let refused = negative.check(pipeline.artifacts()).expect_err("a refusal");
    assert!(refused.to_string().starts_with("pag_scale: -1; expected 0 to 100"), "{refused}");
    let alone = Request { pag_scale: 0.0, pag_adaptive_scale: 0.1, ..request(&pipeline) };
    let refused = alone.check(pipeline.artifacts()).expect_err("a refusal");
    assert!(
        refused.to_string().starts_with("pag_adaptive_scale: there is no pag_scale"),
        "{refused}"
    );
}

#[test]
fn an_export_without_layers_has_the_bytes_that_it_had() {
    let golden = golden::read("pag", "depth8");
    let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
    let core = |version| hunyuan_dit::deep_core(&cfg, 1, version).encode();
    let plain = core(Precision::Fp32.into());
    assert_eq!(plain, core(version(&[0, 7])), "neither is in the core");
    assert_ne!(plain, core(version(&[3])));
}
