//! Whole pictures against diffusers' `HunyuanDiTPipeline` on the trained checkpoints: same seed,
//! same prompt, pixel by pixel. `tests/reference/make_pictures.py` made the references.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use hydit::cache::{CachePolicy, Decision, Forecast};
use hydit::eval::compare::psnr;
use hydit::guidance::GuidanceInterval;
use hydit::image::{Decoded, Image, read_png};
use hydit::init_image::{InitImage, Mask};
use hydit::request::spacing_of;
use hydit::runtime::BackendChoice;
use hydit::sampler::Spacing;
use hydit::{Pipeline, Request};
use hydit_graphs::Precision;
use hydit_testing::emoji;
use serde::Deserialize;

/// Both sides compute in fp32; a rounding difference of 1e-7 a step moves a channel value by 1 of
/// 255 where it lies near a half. 55 dB is far below what that gives (70 and more) and far above
/// any real mistake (below 40).
const PSNR: f64 = 55.0;
const WITHIN_ONE: f64 = 0.999;

#[derive(Deserialize)]
pub struct Reference {
    pub name: String,
    model: String,
    files: Vec<String>,
    steps: usize,
    prompt: String,
    negative_prompt: Option<String>,
    seeds: Vec<u64>,
    guidance_scale: f32,
    guidance_rescale: f32,
    guidance_interval: Option<GuidanceInterval>,
    pag_scale: Option<f32>,
    pag_adaptive_scale: Option<f32>,
    #[serde(default)]
    pub pag_layers: Vec<usize>,
    height: usize,
    width: usize,
    sampler: String,
    timesteps: Vec<f32>,
    spacing: Option<Spacing>,
    cache: Option<Cache>,
    full_steps: Option<Vec<u8>>,
    image: Option<String>,
    mask: Option<String>,
    strength: Option<f64>,
}

#[derive(Deserialize)]
struct Cache {
    gap: NonZeroU32,
    start: u32,
    close: u32,
    branch: usize,
}

impl Reference {
    pub fn branch(&self) -> usize {
        self.cache.as_ref().map_or(1, |cache| cache.branch)
    }

    /// The request of `model` and everything else that was passed. Images are in `folder`.
    pub fn request(&self, folder: &Path, pipeline: &Pipeline) -> Request {
        let sampler = self.sampler.parse().expect("a known sampler");
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
            height: self.height,
            width: self.width,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            sampler,
            spacing: self.spacing.unwrap_or_else(|| spacing_of(pipeline.manifest(), sampler)),
            seed: self.seeds[0],
            num_images: self.seeds.len(),
            loras: Vec::new(),
            controls: Vec::new(),
            guidance_interval: self.guidance_interval.unwrap_or_default(),
            init_image: self.init_image(folder),
            pag_scale: self.pag_scale.unwrap_or_default(),
            pag_adaptive_scale: self.pag_adaptive_scale.unwrap_or_default(),
            image_prompt: None,
            cache_policy: match self.cache {
                None => CachePolicy::off(),
                Some(Cache { gap, start, close, .. }) => CachePolicy::interval(gap, start, close),
            },
        }
    }

    fn init_image(&self, folder: &Path) -> Option<InitImage> {
        let read = |kind: &str, name: &String| {
            let file = folder.join(format!("{kind}-{name}.png"));
            Decoded::read(&file).expect("an image of the references")
        };
        let image = read("image", self.image.as_ref()?);
        let mask = self.mask.as_ref().map(|mask| read("mask", mask));
        let mask = mask.as_ref().map(Mask::White);
        Some(InitImage::new(&image, mask, self.strength, (self.width, self.height)))
    }

    /// Draws it and compares with the pictures in `folder`; gives the PSNR of the worst.
    pub fn check(&self, folder: &Path, pipeline: &mut Pipeline) -> f64 {
        let request = self.request(folder, pipeline);
        let made = pipeline
            .generate(&emoji::checked(pipeline, &request), &mut emoji::ignore)
            .expect("it draws");
        // Those of euler with karras come of a logarithm of numpy's own.
        let near = |(ours, theirs): (&f32, &f32)| (ours - theirs).abs() < 1e-3;
        let same = made.timesteps.len() == self.timesteps.len();
        let mut pairs = made.timesteps.iter().zip(&self.timesteps);
        assert!(same && pairs.all(near), "{}: {:?}", self.name, made.timesteps);
        if let Some(full_steps) = &self.full_steps {
            let refreshed = |&full: &u8| {
                if full == 1 { Decision::REFRESH } else { Decision::Reuse(Forecast::LAST) }
            };
            assert_eq!(made.plan, full_steps.iter().map(refreshed).collect::<Vec<_>>());
        }
        let compare = |(ours, file): (&Image, &String)| {
            let (theirs, _) = read_png(&folder.join(file)).expect("a reference picture");
            let psnr = psnr(ours, &theirs).expect("pictures of one size");
            let pairs = ours.rgb.iter().zip(&theirs.rgb);
            let close = pairs.filter(|(a, b)| a.abs_diff(**b) <= 1).count();
            let share = close as f64 / ours.rgb.len() as f64;
            println!("{file}: {psnr:.1} dB, {:.3}% within 1/255", 100.0 * share);
            assert!(psnr >= PSNR && share >= WITHIN_ONE, "{file}: {psnr:.1} dB, {share}");
            psnr
        };
        assert_eq!(made.images.len(), self.files.len());
        made.images.iter().zip(&self.files).map(compare).fold(f64::INFINITY, f64::min)
    }
}

/// A folder of references, and what its list `<folder>.json` says.
pub fn references(folder: &str) -> (PathBuf, Vec<Reference>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(folder);
    let list = path.join(folder).with_extension("json");
    let text = std::fs::read_to_string(list).expect("the references");
    (path, serde_json::from_str(&text).expect("the references are JSON"))
}

#[test]
fn pictures_equal_diffusers_with_and_without_cache() {
    let (folder, references) = references("pictures");
    assert!(references.len() >= 20, "the spread of references shrank");
    for (model, branch) in [("emoji", 1), ("emoji", 2), ("badges", 1)] {
        let artifacts = emoji::shared(model, branch, Precision::Fp32);
        let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
        assert_eq!(pipeline.manifest().variant.name, model);
        let own = |reference: &&Reference| reference.model == model && reference.branch() == branch;
        let checked =
            references.iter().filter(own).map(|r| r.check(&folder, &mut pipeline)).count();
        assert!(checked > 0, "{model}, {branch}");
    }
}

#[test]
fn the_embedded_engine_draws_the_same_picture() {
    let (folder, references) = references("pictures");
    let reference = references.iter().find(|r| r.name == "dpmms-10-cat").expect("it is there");
    let artifacts = emoji::artifacts();
    reference.check(&folder, &mut emoji::pipeline(&artifacts, BackendChoice::Tract));
}

#[test]
fn another_seed_is_another_picture() {
    let (folder, references) = references("pictures");
    let reference = references.iter().find(|r| r.name == "dpmms-10-cat").expect("it is there");
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let request = Request { seed: 43, ..reference.request(&folder, &pipeline) };
    let made = pipeline
        .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
        .expect("it draws");
    let (theirs, _) = read_png(&folder.join(&reference.files[0])).expect("a reference picture");
    assert!(psnr(&made.images[0], &theirs).expect("one size") < 30.0);
}
