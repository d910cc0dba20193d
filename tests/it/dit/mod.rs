//! Models that draw classes against PyTorch modules: Skip-DiT, and DiT without long skips.
//!
//! The tolerance of graphs is that of Hunyuan-DiT: see `parity.rs`. Of pictures it is above 55 dB, since
//! made-up weights make latents so large that noise hardly counts: without the learned variance they are
//! 65 dB away, and with it 89 dB or more.

mod plain;
mod skip;

use std::fs;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::eval::compare::psnr;
use hydit::image::read_png;
use hydit::request::spacing_of;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};
use hydit_export::synth::{self, Shape, Storage};
use hydit_export::{Options, export};
use hydit_graphs::config::DitKind;
use hydit_testing::emoji;
use serde::Deserialize;
use tempfile::TempDir;

use crate::common::golden::Golden;
use crate::common::graphs::{engines, open, run};
use crate::common::tensor::{Tensors, distance};
use crate::common::worst::Worst;

const TOLERANCE: f64 = 1e-5;
const PSNR: f64 = 75.0;

/// A model with made-up weights for 64x64, as it would have been published, and what is made of it.
struct Place {
    folder: TempDir,
    kind: DitKind,
}

impl Place {
    fn new(kind: DitKind, shape: Shape) -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder"), kind };
        let shape = Shape { image_size: Some(64), small_text: true, ..shape };
        let model = synth::dit(kind, &shape).expect("a valid shape");
        synth::dit_checkpoint(&model, &place.path("checkpoint"), &Storage::default())
            .expect("a checkpoint");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its options: diffusers' folder, or one file, and the VAE beside it as the base.
    fn options(&self, out: &str) -> Options {
        if self.kind == DitKind::Diffusers {
            return Options::new(self.path("checkpoint"), self.path(out));
        }
        let file = self.path(&format!("checkpoint/{}.safetensors", synth::dit_stem(self.kind)));
        Options { base: Some(self.path("checkpoint/vae")), ..Options::new(file, self.path(out)) }
    }
}

fn reference(folder: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(folder).join(name)
}

/// Runs every graph of exports that are cut at each of `cuts`, on tract only where it is one of
/// `tract`, since that is slow in a debug build. Each reads what those before it gave; what they give
/// has in the golden the name that `known` makes of its own and the cut.
fn run_graphs(
    place: &Place,
    golden: &Golden,
    cuts: impl Iterator<Item = usize>,
    tract: &[usize],
    known: impl Fn(&str, usize) -> String,
) {
    let mut worst = Worst::new("");
    for n in cuts {
        let out = format!("cut-{n}");
        let options = Options { cache_at_branch: Some(n), full: n == 1, ..place.options(&out) };
        export(&options, &mut ()).expect("an export");
        let artifacts = Artifacts::open(&options.out).expect("a manifest");
        for &engine in engines() {
            if engine == BackendChoice::Tract && !tract.contains(&n) {
                continue;
            }
            let backend = open(engine);
            let mut feed = golden.inputs.clone();
            for graph in ["conditioner", "full", "shallow-encoder", "deep-core", "shallow-decoder"]
            {
                if graph == "full" && n > 1 {
                    continue;
                }
                let mut session = artifacts.load(graph, &backend).expect("it loads");
                let ours: Tensors = run(&backend, &mut session, &feed);
                for (name, tensor) in &ours {
                    let Some(theirs) = golden.outputs.get(&known(name, n)) else { continue };
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

/// Draws the pictures of the list `listed` of the references in `folder` with the model of the
/// artifact folder `model`; all must be as close as [`PSNR`] says.
fn draw_as_references(model: &Path, folder: &str, listed: &str, count: usize) {
    let text = fs::read_to_string(reference(folder, listed)).expect("the references");
    let all: Vec<Reference> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all.len(), count);
    let mut pipeline = emoji::pipeline(model, BackendChoice::Ort);
    for reference_of in &all {
        let request = emoji::checked(&pipeline, &reference_of.request(&pipeline));
        let gap = reference_of.gap;
        assert_eq!(request.cache_policy.to_string(), format!("N{gap}-1000-20"));
        let drawn = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
        for (i, image) in drawn.images.iter().enumerate() {
            let file = reference(folder, &format!("{}-{i}.png", reference_of.name));
            let (theirs, _) = read_png(&file).expect("a reference picture");
            let found = psnr(image, &theirs).expect("pictures of one size");
            println!("{} {i}: {found:.1} dB", reference_of.name);
            assert!(found >= PSNR, "{} {i}: {found:.1} dB", reference_of.name);
        }
    }
}
