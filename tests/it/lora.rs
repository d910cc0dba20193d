//! LoRAs that are merged at the export, against models in which peft has merged the same.
//! `tests/reference/make_lora.py` made both.
//!
//! A merged weight is computed in fp32 on both sides, so the tolerances are those of models without
//! a LoRA: 1e-5 for each graph (see `parity.rs`), 55 dB for pictures (see `pictures.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use hydit::eval::compare::psnr;
use hydit::image::read_png;
use hydit::request::spacing_of;
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_export::{Component, Options, Weighted, WeightsPlace, export};
use hydit_graphs::Precision;
use hydit_graphs::config::HunyuanDitConfig;
use hydit_testing::emoji;
use serde::Deserialize;

use crate::common::golden;
use crate::common::graphs::Exporter;
use crate::common::worst::Worst;
use crate::parity::{compare_exported, whole};

const PSNR: f64 = 55.0;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/lora")
}

/// A picture of the emoji model with LoRAs.
#[derive(Deserialize)]
pub struct Reference {
    pub file: String,
    pub loras: Vec<(String, f32)>,
    sampler: String,
    steps: usize,
    prompt: String,
    seeds: Vec<u64>,
    guidance_scale: f32,
}

impl Reference {
    pub fn all() -> Vec<Reference> {
        let text = fs::read_to_string(folder().join("pictures.json")).expect("the references");
        serde_json::from_str(&text).expect("the references are JSON")
    }

    pub fn request(&self, pipeline: &Pipeline) -> Request {
        let sampler = self.sampler.parse().expect("a known sampler");
        Request {
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            sampler,
            spacing: spacing_of(pipeline.manifest(), sampler),
            seed: self.seeds[0],
            ..Request::new(pipeline.manifest(), &self.prompt).expect("the defaults are right")
        }
    }

    /// How near the picture of `pipeline` is.
    pub fn compare(&self, pipeline: &mut Pipeline, request: &Request) -> f64 {
        let request = emoji::checked(pipeline, request);
        let drawn = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
        let (theirs, _) = read_png(&folder().join(&self.file)).expect("a reference picture");
        psnr(&drawn.images[0], &theirs).expect("pictures of one size")
    }
}

#[test]
fn graphs_with_merged_loras_are_pefts_in_every_layout() {
    let mut worst = Worst::new("");
    for (reference, loras) in [
        ("golden-peft", &[("tiny-peft", 0.8)][..]),
        ("golden-peft", &[("tiny-diffusers.safetensors", 0.8)]),
        ("golden-tencent", &[("tiny-tencent", 1.5)]),
        ("golden-tencent", &[("tiny-kohya.safetensors", 1.5)]),
        ("golden-tencent", &[("tiny-unet.safetensors", 1.5)]),
        ("golden-both", &[("tiny-tencent", 1.5), ("tiny-peft", -0.4)]),
    ] {
        let golden = golden::read("lora", reference);
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let whole = whole(&cfg, Precision::Fp32);
        for alone in [true, false] {
            let mut exporter = Exporter::of_golden(&golden, Component::Transformer, &whole);
            for (lora, weight) in loras {
                exporter.merge(&folder().join(lora), *weight, &whole);
            }
            compare_exported(&golden, &exporter, Precision::Fp32, alone, &mut worst);
        }
    }
}

#[test]
fn pictures_with_merged_loras_are_diffusers_and_pefts() {
    for reference in Reference::all() {
        let loras: Result<Vec<Weighted>, String> = reference
            .loras
            .iter()
            .map(|(file, weight)| Weighted::new(folder().join(file).to_string_lossy(), *weight))
            .collect();
        let loras = loras.expect("weights");
        let place = tempfile::tempdir_in(emoji::models()).expect("a folder");
        let copied = Options {
            loras: loras.clone(),
            ..Options::new(emoji::checkpoint(), place.path().join("copied"))
        };
        // What is not changed stays in the files of the checkpoint.
        let in_place = Options {
            weights: WeightsPlace::InPlace,
            out: place.path().join("in-place"),
            ..copied.clone()
        };
        for options in [copied, in_place] {
            let manifest = export(&options, &mut ()).expect("an export");
            assert_eq!(manifest.loras.len(), loras.len());
            let mut pipeline = emoji::pipeline(&options.out, BackendChoice::Ort);
            let request = reference.request(&pipeline);
            let found = reference.compare(&mut pipeline, &request);
            println!("{} {:?}: {found:.1} dB", reference.file, options.weights);
            assert!(found >= PSNR, "{}: {found:.1} dB", reference.file);
        }
        let mut plain = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
        let request = reference.request(&plain);
        let found = reference.compare(&mut plain, &request);
        assert!(found < 30.0, "{}: {found:.1} dB without the LoRA", reference.file);
    }
}

#[test]
fn int8_weights_are_those_of_the_merged_model() {
    let reference = &Reference::all()[0];
    let (file, weight) = &reference.loras[0];
    let place = tempfile::tempdir().expect("a folder");
    let options = Options {
        loras: vec![Weighted::new(folder().join(file).to_string_lossy(), *weight).expect("a LoRA")],
        precision: Precision::Int8,
        ..Options::new(emoji::checkpoint(), place.path().join("int8"))
    };
    export(&options, &mut ()).expect("an export");
    let mut pipeline = emoji::pipeline(&options.out, BackendChoice::Ort);
    let request = reference.request(&pipeline);
    let found = reference.compare(&mut pipeline, &request);
    println!("int8: {found:.1} dB");
    // Rounding to 8 bits costs most of it; without the LoRA it is 17 dB.
    assert!(found > 25.0, "{found:.1} dB");
}
