//! Image prompts by an IP-Adapter, against what Tencent's code adds to diffusers' model.
//! `tests/reference/make_ip_adapter.py` made the references.
//!
//! The tolerances are those of models without an adapter: 1e-5 for each graph (see `parity.rs`), 55 dB
//! for pictures (see `pictures.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::eval::compare::psnr;
use hydit::image::{Decoded, Image, read_png};
use hydit::pipeline::batch::can_batch;
use hydit::pipeline::denoise::DenoiseState;
use hydit::request::{Parameters, spacing_of};
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::timing::Stage;
use hydit::{ImagePrompt, Pipeline, Request};
use hydit_export::synth::{self, Storage};
use hydit_export::{Component, Options, WeightsPlace, export};
use hydit_graphs::config::{HunyuanDitConfig, ImageProcessor, IpAdapterConfig};
use hydit_graphs::{GraphOptions, Precision, Target, image_encoder};
use hydit_testing::emoji;
use serde::Deserialize;

use crate::common::golden;
use crate::common::graphs::Exporter;
use crate::common::tensor;
use crate::common::worst::Worst;
use crate::made_up::Size;
use crate::parity::{compare, compare_exported, whole};

const PSNR: f64 = 55.0;

fn references() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

#[derive(Deserialize)]
struct References {
    shape: Size,
    pictures: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    files: Vec<String>,
    variant: String,
    sampler: String,
    image: Option<String>,
    weight: f32,
    prompt: String,
    negative_prompt: String,
    steps: usize,
    seeds: Vec<u64>,
    guidance_scale: f32,
    height: usize,
    width: usize,
}

fn all() -> References {
    let text = fs::read_to_string(references().join("ip_adapter/pictures.json"));
    serde_json::from_str(&text.expect("the references")).expect("the references are JSON")
}

/// One of the images that make_image_to_image.py has drawn.
fn image(name: &str) -> Decoded {
    let path = references().join(format!("image_to_image/image-{name}.png"));
    Decoded::read(&path).expect("an image")
}

/// A checkpoint with made-up weights, with an IP-Adapter.
struct Checkpoint {
    place: tempfile::TempDir,
    variant: &'static str,
}

impl Checkpoint {
    fn new(variant: &'static str) -> Checkpoint {
        let place = tempfile::tempdir().expect("a folder");
        let model = synth::model(variant, &all().shape.shape()).expect("a valid shape");
        let out = place.path().join("checkpoint");
        synth::checkpoint_with_ip_adapter(&model, true, &out, &Storage::default())
            .expect("a checkpoint");
        Checkpoint { place, variant }
    }

    /// The options of an export without the adapter, to the folder `out`.
    fn plain(&self, out: &str) -> Options {
        let folder = |name: &str| self.place.path().join(name);
        Options {
            variant: Some(self.variant.to_string()),
            ..Options::new(folder("checkpoint"), folder(out))
        }
    }

    /// The same with it.
    fn options(&self, out: &str) -> Options {
        let adapter = self.place.path().join("checkpoint/ip_adapter");
        Options { ip_adapter: Some(adapter), ..self.plain(out) }
    }
}

fn pipeline(options: &Options, engine: BackendChoice) -> Pipeline {
    export(options, &mut ()).unwrap_or_else(|error| panic!("{error}"));
    emoji::pipeline(&options.out, engine)
}

/// A request of `steps` steps for the model of `pipeline`, with the image prompt `name`.
fn request(pipeline: &Pipeline, steps: usize, name: Option<&str>) -> Request {
    let manifest = pipeline.manifest();
    let image_prompt =
        name.map(|name| ImagePrompt::new(manifest, &image(name), 0.8).expect("it has an adapter"));
    Request { image_prompt, width: 64, height: 64, ..emoji::cat(manifest, steps) }
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Vec<Image> {
    let request = emoji::checked(pipeline, request);
    pipeline.generate(&request, &mut emoji::ignore).expect("it draws").images
}

#[test]
fn the_image_encoder_is_clip_and_tencents_projection() {
    compare(&golden::all("ip_adapter", "encoder"), Component::ImageEncoder, |golden| {
        let cfg: IpAdapterConfig = serde_json::from_str(&golden.config).expect("a config");
        let cross = golden.outputs["image_states"].shape[2];
        image_encoder::image_encoder(&cfg, cross, Precision::Fp32)
    });
}

#[test]
fn every_graph_with_an_image_prompt_is_its_part_of_the_reference() {
    let mut worst = Worst::new("");
    let version = GraphOptions { ip_adapter: true, ..Precision::Fp32.into() };
    for golden in golden::all("ip_adapter", "depth") {
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let graphs = whole(&cfg, version);
        for alone in [true, false] {
            let exporter = Exporter::of_golden(&golden, Component::Transformer, &graphs);
            compare_exported(&golden, &exporter, version, alone, &mut worst);
        }
    }
}

#[test]
fn images_come_to_the_encoder_as_transformers_brings_them() {
    let folder = references().join("ip_adapter");
    let theirs = tensor::read(&fs::read(folder.join("processed.safetensors")).expect("a file"));
    assert_eq!(theirs.len(), 12);
    let golden = golden::read("ip_adapter", "encoder-quick-gelu");
    let config: IpAdapterConfig = serde_json::from_str(&golden.config).expect("a config");
    for (name, theirs) in theirs {
        let (file, edge) = name.split_once('/').expect("an image and a size");
        let config = IpAdapterConfig {
            image_processor: ImageProcessor::of_clip(edge.parse().ok()),
            ..config.clone()
        };
        let image = Decoded::read(&folder.join(format!("image-{file}.png"))).expect("an image");
        let ours = ImagePrompt::of(&config, &image, 1.0).pixel_values(&config);
        // A pixel that is another by 1 of 255 is 0.014 off.
        let far = ours.iter().zip(theirs.floats()).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
        assert_eq!((far, ours.len()), (0, theirs.floats().len()), "{name}");
    }
}

#[test]
fn pictures_with_an_image_prompt_equal_the_references() {
    let all = all();
    assert_eq!(all.pictures.len(), 5);
    for variant in ["hunyuan-dit-v1.1", "hunyuan-dit-v1.2"] {
        let checkpoint = Checkpoint::new(variant);
        let mut pipeline = pipeline(&checkpoint.options("out"), BackendChoice::Ort);
        for reference in all.pictures.iter().filter(|one| one.variant == variant) {
            let sampler = reference.sampler.parse().expect("a known sampler");
            let manifest = pipeline.manifest();
            let prompt = |name: &String| {
                let prompt = ImagePrompt::new(manifest, &image(name), reference.weight);
                prompt.expect("it has an adapter")
            };
            let request = Request {
                negative_prompt: reference.negative_prompt.clone(),
                height: reference.height,
                width: reference.width,
                steps: reference.steps,
                guidance_scale: reference.guidance_scale,
                sampler,
                spacing: spacing_of(manifest, sampler),
                seed: reference.seeds[0],
                num_images: reference.seeds.len(),
                image_prompt: reference.image.as_ref().map(prompt),
                ..Request::new(manifest, &reference.prompt).expect("the defaults are right")
            };
            let drawn = draw(&mut pipeline, &request);
            for (ours, file) in drawn.iter().zip(&reference.files) {
                let theirs = references().join("ip_adapter").join(file);
                let (theirs, _) = read_png(&theirs).expect("a reference picture");
                let found = psnr(ours, &theirs).expect("pictures of one size");
                println!("{file}: {found:.1} dB");
                assert!(found >= PSNR, "{file}: {found:.1} dB");
            }
            if reference.image.is_some() {
                let without = Request { image_prompt: None, ..request };
                let without = draw(&mut pipeline, &without);
                let found = psnr(&drawn[0], &without[0]).expect("pictures of one size");
                assert!(found < 40.0, "the image changes little: {found:.1} dB");
            }
        }
    }
}

#[test]
fn without_an_image_the_picture_is_that_of_an_export_without_the_adapter() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    for (name, engine, target) in [
        ("portable", BackendChoice::Ort, Target::Portable),
        ("tract", BackendChoice::Tract, Target::Portable),
        ("ort-cpu", BackendChoice::Ort, Target::OrtCpu),
    ] {
        let plain = Options { target, ..checkpoint.plain(&format!("plain-{name}")) };
        let adapter = Options { target, ..checkpoint.options(&format!("adapter-{name}")) };
        let [plain, adapter] = [plain, adapter].map(|options| {
            let mut pipeline = pipeline(&options, engine);
            let request = request(&pipeline, 6, None);
            draw(&mut pipeline, &request).remove(0)
        });
        assert!(plain == adapter, "{name}: {:.1} dB", psnr(&plain, &adapter).expect("one size"));
    }
}

#[test]
fn exports_of_every_kind_draw_with_an_image_prompt() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let steps = 4;
    let mut usual = pipeline(&checkpoint.options("usual"), BackendChoice::Ort);
    let asked = request(&usual, steps, Some("fox"));
    let theirs = draw(&mut usual, &asked).remove(0);
    let kinds: [(&str, Options, BackendChoice, f64); 7] = [
        ("tract", checkpoint.options("tract"), BackendChoice::Tract, 60.0),
        (
            "ort-cpu",
            Options { target: Target::OrtCpu, ..checkpoint.options("ort-cpu") },
            BackendChoice::Ort,
            60.0,
        ),
        (
            "branch 2",
            Options { cache_at_branch: Some(2), full: true, ..checkpoint.options("branch") },
            BackendChoice::Ort,
            60.0,
        ),
        (
            "in place",
            Options { weights: WeightsPlace::InPlace, ..checkpoint.options("in-place") },
            BackendChoice::Ort,
            60.0,
        ),
        (
            "slots",
            Options { lora_slots: Some(4), image_to_image: true, ..checkpoint.options("slots") },
            BackendChoice::Ort,
            60.0,
        ),
        (
            "fp16",
            Options { precision: Precision::Fp16, ..checkpoint.options("fp16") },
            BackendChoice::Ort,
            35.0,
        ),
        (
            "int8",
            Options { precision: Precision::Int8, ..checkpoint.options("int8") },
            BackendChoice::Ort,
            20.0,
        ),
    ];
    for (name, options, engine, least) in kinds {
        let mut pipeline = pipeline(&options, engine);
        let found = psnr(&draw(&mut pipeline, &asked)[0], &theirs).expect("one size");
        println!("{name}: {found:.1} dB");
        assert!(found >= least, "{name}: {found:.1} dB");
    }
}

#[test]
fn a_low_memory_engine_loads_the_image_encoder_for_a_request_that_needs_it() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let mut usual = pipeline(&checkpoint.options("out"), BackendChoice::Ort);
    let options = RuntimeOptions { low_memory: true, threads: Some(2), ..Default::default() };
    let backend = Backend::open(&options).expect("an engine");
    let mut lean = Pipeline::load(&checkpoint.options("out").out, backend).expect("it opens");
    for (name, calls) in [(Some("fox"), 1), (None, 0)] {
        let asked = request(&usual, 3, name);
        let ours = lean.generate(&emoji::checked(&lean, &asked), &mut emoji::ignore);
        let ours = ours.expect("it draws");
        assert_eq!(ours.timings.calls(Stage::ImageEncoder), calls);
        assert!(ours.images == draw(&mut usual, &asked), "{name:?}");
    }
}

#[test]
fn requests_with_different_images_run_together_and_come_out_as_alone() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let mut pipeline = pipeline(&checkpoint.options("out"), BackendChoice::Ort);
    let policy = |text: &str| text.parse().expect("a policy");
    let fox = Request { cache_policy: policy("N2-1000-0"), ..request(&pipeline, 6, Some("fox")) };
    let shapes = Request {
        num_images: 2,
        seed: 5,
        cache_policy: policy("N3-1000-0+taylor1"),
        ..request(&pipeline, 6, Some("shapes"))
    };
    let none = request(&pipeline, 6, None);
    let may = |one: &Request, other: &Request| {
        can_batch(pipeline.manifest(), pipeline.backend(), one, other)
    };
    assert!(may(&fox, &shapes) && !may(&fox, &none) && !may(&none, &shapes));
    let requests = [fox, shapes];
    let mut states: Vec<DenoiseState> = Vec::new();
    for request in &requests {
        let request = emoji::checked(&pipeline, request);
        states.push(pipeline.begin(&request).expect("it begins"));
    }
    while !states[0].is_done() {
        let mut transformer = pipeline.transformer().expect("it is loaded");
        let mut together: Vec<&mut DenoiseState> = states.iter_mut().collect();
        transformer.step_together(&mut together).expect("a step");
    }
    for (request, state) in requests.iter().zip(&states) {
        let together = pipeline.decode(request, state.latents()).expect("pictures");
        for (a, b) in draw(&mut pipeline, request).iter().zip(&together) {
            let far = a.rgb.iter().zip(&b.rgb).filter(|(a, b)| a.abs_diff(**b) > 1).count();
            assert_eq!(far, 0, "seed {}", request.seed);
        }
    }
}

#[test]
fn an_image_prompt_that_cannot_be_drawn_with_is_refused_before_any_work() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let pipeline = pipeline(&checkpoint.options("out"), BackendChoice::Ort);
    let good = request(&pipeline, 3, Some("fox"));
    let text = serde_json::to_string(&good).expect("JSON");
    assert!(text.len() < 1000, "its pixels are not in it: {text}");
    let read: Request = serde_json::from_str(&text).expect("a request");
    let config = pipeline.manifest().ip_adapter.clone().expect("an adapter");
    let larger = {
        let mut config = config.clone();
        (config.image_encoder.image_size, config.image_processor.shortest_edge) = (56, None);
        config
    };
    let with = |prompt| Request { image_prompt: Some(prompt), ..good.clone() };
    let weight = |weight| with(ImagePrompt::of(&config, &image("fox"), weight));
    for (request, words) in [
        (read, "only the hash of the image is known"),
        (with(ImagePrompt::of(&larger, &image("fox"), 1.0)), "it was resized for another model"),
        (weight(f32::NAN), "weight NaN: expected 0 to 10"),
        (weight(-0.1), "weight -0.1: expected 0 to 10"),
        (weight(10.5), "weight 10.5: expected 0 to 10"),
    ] {
        let error = request.check(pipeline.artifacts()).expect_err("a refusal").to_string();
        assert!(error.starts_with(&format!("image_prompt: {words}")), "{error}");
    }
    let plain = Artifacts::open(&emoji::artifacts()).expect("an export");
    let error = ImagePrompt::new(&plain.manifest, &image("fox"), 1.0).expect_err("a refusal");
    assert!(error.to_string().ends_with("with hydit-export --ip-adapter"), "{error}");
    assert_eq!(good.check(&plain).expect_err("a refusal").to_string(), error.to_string());
}

#[test]
fn parameters_have_the_image_prompts_hash_and_weight() {
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let pipeline = pipeline(&checkpoint.options("out"), BackendChoice::Ort);
    let request = request(&pipeline, 3, Some("fox"));
    let texts = request.parameters(pipeline.artifacts(), 0, &[]).to_texts();
    let hash = image("fox").sha256().to_string();
    assert!(texts[1].1.contains(&format!(", Image prompt: {}:0.8", &hash[..10])), "{}", texts[1].1);
    let read = Parameters::from_texts(&texts).expect("parameters").request.image_prompt;
    let read = read.expect("an image prompt");
    assert_eq!((read.weight, read.sha256), (0.8, hash));
}

#[test]
fn every_graph_is_alike_on_both_engines_and_split_and_whole() {
    use hydit::eval::verify::{Tensors, Tolerance, split_against_full};
    let checkpoint = Checkpoint::new("hunyuan-dit-v1.2");
    let options = Options { full: true, ..checkpoint.options("out") };
    export(&options, &mut ()).expect("an export");
    let artifacts = Artifacts::open(&options.out).expect("an export");
    let tolerance = Tolerance::of(Precision::Fp32);
    let [ort, tract] = [BackendChoice::Ort, BackendChoice::Tract].map(emoji::backend);
    for graph in &artifacts.manifest.graphs {
        let run = |backend: &Backend| {
            let mut tensors = Tensors::random(&artifacts.manifest, graph, backend).expect("inputs");
            tensors
                .run(&mut artifacts.load(&graph.name, backend).expect("it loads"))
                .expect("it runs")
        };
        let error = run(&ort).error(&run(&tract));
        assert!(error <= tolerance.engines, "{}: {error:.1e}", graph.name);
    }
    let error = split_against_full(&artifacts, &ort).expect("it runs");
    assert!(error <= tolerance.split, "{error:.1e}");
}
