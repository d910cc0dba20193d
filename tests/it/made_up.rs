//! Whole pictures of models with made-up weights against diffusers: the conditions of v1.0 and v1.1,
//! and both readings of pictures that are not square. `tests/reference/make_made_up_pictures.py`
//! made the references.

use std::fs;
use std::path::{Path, PathBuf};

use hydit::eval::compare::psnr;
use hydit::image::read_png;
use hydit::request::spacing_of;
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_export::synth::{self, Shape, Storage};
use hydit_export::{Options, export};
use hydit_graphs::variant::RopeConvention;
use hydit_testing::emoji;
use serde::Deserialize;

/// As for the trained models: below what rounding gives, above what a mistake gives.
const PSNR: f64 = 55.0;

#[derive(Deserialize)]
struct References {
    shape: Size,
    prompt: String,
    steps: usize,
    seed: u64,
    guidance_scale: f32,
    pictures: Vec<Reference>,
}

/// The shape of a made-up model, as references tell it.
#[derive(Deserialize)]
pub struct Size {
    depth: usize,
    heads: usize,
    head_dim: usize,
    image_size: usize,
}

impl Size {
    /// The shape, with small text encoders.
    pub fn shape(&self) -> Shape {
        Shape {
            depth: Some(self.depth),
            heads: Some(self.heads),
            head_dim: Some(self.head_dim),
            image_size: Some(self.image_size),
            small_text: true,
        }
    }
}

#[derive(Deserialize)]
struct Reference {
    variant: String,
    reading: String,
    sampler: String,
    height: usize,
    width: usize,
    file: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/pictures")
}

/// How near the picture of `pipeline` is to the reference.
fn compare(all: &References, reference: &Reference, pipeline: &mut Pipeline) -> f64 {
    let sampler = reference.sampler.parse().expect("a known sampler");
    let manifest = pipeline.manifest();
    let request = Request {
        height: reference.height,
        width: reference.width,
        steps: all.steps,
        guidance_scale: all.guidance_scale,
        sampler,
        spacing: spacing_of(manifest, sampler),
        seed: all.seed,
        ..Request::new(manifest, &all.prompt).expect("the defaults are right")
    };
    let request = emoji::checked(pipeline, &request);
    let drawn = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
    let (theirs, _) = read_png(&folder().join(&reference.file)).expect("a reference picture");
    psnr(&drawn.images[0], &theirs).expect("pictures of one size")
}

#[test]
fn pictures_of_every_version_and_reading_equal_the_references() {
    let text = fs::read_to_string(folder().join("made-up.json")).expect("the references");
    let all: References = serde_json::from_str(&text).expect("the references are JSON");
    assert_eq!(all.pictures.len(), 10);
    for variant in ["hunyuan-dit-v1.1", "hunyuan-dit-v1.2"] {
        let place = tempfile::tempdir().expect("a folder");
        let checkpoint = place.path().join("checkpoint");
        let model = synth::model(variant, &all.shape.shape()).expect("a valid shape");
        synth::checkpoint(&model, &checkpoint, &Storage::default()).expect("a checkpoint");
        let [mut diffusers, mut tencent] = [RopeConvention::Diffusers, RopeConvention::Tencent]
            .map(|reading| {
                let options = Options {
                    reading: Some(reading),
                    variant: Some(variant.to_string()),
                    ..Options::new(&checkpoint, place.path().join(format!("{reading:?}")))
                };
                export(&options, &mut ()).expect("an export");
                emoji::pipeline(&options.out, BackendChoice::Ort)
            });
        for reference in all.pictures.iter().filter(|one| one.variant == variant) {
            let [right, wrong] = match reference.reading.as_str() {
                "diffusers" => [&mut diffusers, &mut tencent],
                _ => [&mut tencent, &mut diffusers],
            };
            let found = compare(&all, reference, right);
            println!("{}: {found:.1} dB", reference.file);
            assert!(found >= PSNR, "{}: {found:.1} dB", reference.file);
            if reference.height != reference.width {
                let found = compare(&all, reference, wrong);
                assert!(found < PSNR, "{}: {found:.1} dB with the other reading", reference.file);
            }
        }
    }
}
