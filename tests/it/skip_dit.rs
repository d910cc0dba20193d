//! Skip-DiT against PyTorch modules that `tests/reference/make_dit.py` has of its description:
//! every graph, whole pictures, and the steps that refresh.
//!
//! The tolerance of graphs is that of Hunyuan-DiT: see `parity.rs`. Of pictures it is above 55 dB, since
//! made-up weights make latents so large that noise hardly counts: without the learned variance they are
//! 65 dB away, and with it 89 dB or more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::cache::{CachePolicy, refreshed};
use hydit::eval::compare::psnr;
use hydit::image::read_png;
use hydit::request::spacing_of;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit::util::error_chain;
use hydit::{Pipeline, Request};
use hydit_export::synth::{self, Shape, Storage};
use hydit_export::{Options, export};
use hydit_testing::emoji;
use serde::Deserialize;
use tempfile::TempDir;

use crate::common::golden;
use crate::common::graphs::{engines, open, run};
use crate::common::tensor::distance;
use crate::common::worst::Worst;

const TOLERANCE: f64 = 1e-5;
const PSNR: f64 = 75.0;

/// The model of the references, as its authors would have published it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a folder"));
        let shape =
            Shape { heads: Some(1), image_size: Some(64), small_text: true, ..Shape::default() };
        let model = synth::dit(&shape).expect("a valid shape");
        synth::dit_checkpoint(&model, &place.path("checkpoint"), &Storage::default())
            .expect("a checkpoint");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Its options: one file, and the VAE beside it as the base.
    fn options(&self, out: &str) -> Options {
        let file = self.path("checkpoint/DiT-XL-2-skip.safetensors");
        Options { base: Some(self.path("checkpoint/vae")), ..Options::new(file, self.path(out)) }
    }
}

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/skip_dit").join(name)
}

#[test]
fn every_graph_is_its_part_of_the_reference_at_every_cut() {
    let (place, golden) = (Place::new(), golden::read("skip_dit", "parts"));
    let mut worst = Worst::new("");
    for n in 1..=13 {
        let out = format!("cut-{n}");
        let options = Options { cache_at_branch: Some(n), full: n == 1, ..place.options(&out) };
        export(&options, &mut ()).expect("an export");
        let artifacts = Artifacts::open(&options.out).expect("a manifest");
        for &engine in engines() {
            if engine == BackendChoice::Tract && ![1, 4, 13].contains(&n) {
                continue; // slow in a debug build
            }
            let backend = open(engine);
            let mut feed = golden.inputs.clone();
            for graph in ["conditioner", "full", "shallow-encoder", "deep-core", "shallow-decoder"]
            {
                if graph == "full" && n > 1 {
                    continue;
                }
                let mut session = artifacts.load(graph, &backend).expect("it loads");
                let ours = run(&backend, &mut session, &feed);
                for (name, tensor) in &ours {
                    let known = if name == "deep" { format!("deep_{n}") } else { name.clone() };
                    let Some(theirs) = golden.outputs.get(&known) else { continue };
                    let error = distance(tensor, theirs);
                    assert!(error <= TOLERANCE, "cut at {n}, {engine}: {name} is {error:.1e} off");
                    worst.add(format!("{graph:16} {name:12} {engine}"), error, &out);
                }
                feed.extend(ours);
            }
        }
    }
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    class: usize,
    seed: u64,
    images: usize,
    steps: usize,
    sampler: SamplerKind,
    guidance_scale: f32,
    gap: u32,
}

impl Reference {
    fn request(&self, pipeline: &Pipeline) -> Request {
        let manifest = pipeline.manifest();
        Request {
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            sampler: self.sampler,
            spacing: spacing_of(manifest, self.sampler),
            seed: self.seed,
            num_images: self.images,
            cache_policy: format!("N{}", self.gap).parse().expect("a policy"),
            ..Request::new(manifest, &self.class.to_string()).expect("the defaults are right")
        }
    }
}

/// Draws the pictures of the list `listed` with the model of the artifact folder `model`; all must be
/// as close to the references as [`PSNR`] says.
fn draw_as_references(model: &Path, listed: &str, count: usize) {
    let text = fs::read_to_string(reference(listed)).expect("the references");
    let all: Vec<Reference> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all.len(), count);
    let mut pipeline = emoji::pipeline(model, BackendChoice::Ort);
    for reference_of in &all {
        let request = emoji::checked(&pipeline, &reference_of.request(&pipeline));
        let gap = reference_of.gap;
        assert_eq!(request.cache_policy.to_string(), format!("N{gap}-1000-20"));
        let drawn = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
        for (i, image) in drawn.images.iter().enumerate() {
            let file = reference(&format!("{}-{i}.png", reference_of.name));
            let (theirs, _) = read_png(&file).expect("a reference picture");
            let found = psnr(image, &theirs).expect("pictures of one size");
            println!("{} {i}: {found:.1} dB", reference_of.name);
            assert!(found >= PSNR, "{} {i}: {found:.1} dB", reference_of.name);
        }
    }
}

#[test]
fn pictures_equal_the_references() {
    let place = Place::new();
    let manifest = export(&place.options("out"), &mut ()).expect("an export");
    assert_eq!((manifest.variant.name.as_str(), manifest.cache_at_branch), ("skip-dit", 4));
    draw_as_references(&place.path("out"), "pictures.json", 7);
}

#[test]
fn pictures_of_the_trained_model_equal_the_references() {
    let place = tempfile::tempdir().expect("a folder");
    let out = place.path().join("out");
    let options = Options {
        base: Some(emoji::models().join("badges")),
        ..Options::new(emoji::models().join("emoji-classes"), &out)
    };
    let manifest = export(&options, &mut ()).expect("an export");
    let found = (manifest.variant.name.as_str(), manifest.cache_at_branch);
    assert_eq!(found, ("emoji-classes", 1));
    let artifacts = Artifacts::open(&out).expect("a manifest");
    assert_eq!(artifacts.classes.expect("classes").names()[0], "koala");
    draw_as_references(&out, "trained.json", 3);
}

#[test]
fn steps_refresh_as_the_authors_table_says() {
    let place = Place::new();
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    let text = fs::read_to_string(reference("refresh.json")).expect("the references");
    let table: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(table.len(), 12);
    for (name, gaps) in table {
        let (spacing, steps) = name.split_once(' ').expect("a spacing and steps");
        let sampler = if spacing == "leading" { SamplerKind::Ddim } else { SamplerKind::Ddpm };
        for (gap, bits) in (2..).zip(gaps) {
            let steps = steps.parse().expect("a count");
            let cache_policy: CachePolicy = format!("N{gap}").parse().expect("a policy");
            let request = Request {
                steps,
                sampler,
                spacing: spacing.parse().expect("a spacing"),
                cache_policy,
                ..Request::new(&artifacts.manifest, "0").expect("the defaults are right")
            };
            let request = request.check(&artifacts).expect("a good request");
            let found = refreshed(request.planned().expect("a plan"));
            let expected: Vec<usize> = (0..steps).filter(|&i| bit(&bits, i)).collect();
            assert_eq!(found, expected, "{name} N{gap}");
        }
    }
}

/// Bit `i`, from the lowest, of a hexadecimal number of any length.
fn bit(hexadecimal: &str, i: usize) -> bool {
    let digit = hexadecimal.chars().rev().nth(i / 4).and_then(|digit| digit.to_digit(16));
    digit.is_some_and(|digit| digit >> (i % 4) & 1 == 1)
}

#[test]
fn what_a_model_of_classes_cannot_draw_is_refused_by_field() {
    let place = Place::new();
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    let request = || Request::new(&artifacts.manifest, "207").expect("the defaults are right");
    for class in ["207", " 0 ", "999", "golden retriever", "Golden Retriever"] {
        let request = Request { prompt: class.into(), ..request() };
        request.check(&artifacts).expect("a class");
    }
    for (request, field, expected) in [
        (
            Request { prompt: "a cat".into(), ..request() },
            "prompt",
            "a number, 0 to 999, or a name, such as \"tench\" (",
        ),
        (Request { prompt: "1000".into(), ..request() }, "prompt", "expected a number, 0 to 999"),
        (Request { negative_prompt: "-1".into(), ..request() }, "negative_prompt", "no class"),
        (Request { width: 128, ..request() }, "width", "64x64 only"),
        (Request { pag_scale: 3.0, ..request() }, "pag_scale", "no layers to perturb"),
    ] {
        let error = request.check(&artifacts).expect_err(field).to_string();
        assert!(error.contains(field) && error.contains(expected), "{field}: {error}");
    }
}

#[test]
fn the_names_of_classes_beside_a_checkpoint_are_those_of_its_export() {
    let place = Place::new();
    let file = place.path("checkpoint/classes.txt");
    let mut names: Vec<String> = (0..1000).map(|i| format!("Klasse {i}, Nummer {i}")).collect();
    fs::write(&file, names.join("\n")).expect("it is written");
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    assert_eq!(artifacts.classes.as_ref().expect("classes").names()[999], "Klasse 999");
    for (class, there) in [("klasse 7", true), ("Nummer 7", true), ("golden retriever", false)] {
        let request = Request::new(&artifacts.manifest, class).expect("the defaults are right");
        assert_eq!(request.check(&artifacts).is_ok(), there, "{class}");
    }
    names[4] = "cats, ".to_string();
    let two = "one\ntwo".to_string();
    for (text, expected) in [
        (two, "classes.txt: it names 2 classes; expected 1000"),
        (names.join("\n"), "classes.txt: class 4: `cats, ` has a name that is none"),
    ] {
        fs::write(&file, text).expect("it is written");
        let error = error_chain(&export(&place.options("none"), &mut ()).expect_err("no names"));
        assert!(error.contains(expected) && !place.path("none").exists(), "{error}");
    }
    fs::write(place.path("out/classes.txt"), "another").expect("it is written");
    let error = Artifacts::open(&place.path("out")).err().expect("other names").to_string();
    assert!(error.contains("classes.txt") && error.contains("was changed"), "{error}");
}
