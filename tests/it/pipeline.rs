//! The pipeline's promises beyond the pictures themselves.

use hydit::artifacts::Artifacts;
use hydit::cache::{CachePolicy, refreshes};
use hydit::eval::compare::psnr;
use hydit::request::spacing_of;
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::sampler::{SamplerKind, Spacing};
use hydit::timing::Stage;
use hydit::{Pipeline, Request};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;

fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

fn rgb(pipeline: &mut Pipeline, request: &Request) -> Vec<Vec<u8>> {
    let made = pipeline
        .generate(&emoji::checked(pipeline, request), &mut emoji::ignore)
        .expect("it draws");
    made.images.into_iter().map(|image| image.rgb).collect()
}

#[test]
fn gap_one_is_no_cache_to_the_last_byte() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    for sampler in [SamplerKind::Ddpm, SamplerKind::Ddim, SamplerKind::Dpmms] {
        let off = Request { sampler, ..emoji::cat(pipeline.manifest(), 6) };
        let one = Request { cache_policy: policy("N1"), ..off.clone() };
        let three = Request { cache_policy: policy("N3"), ..off.clone() };
        let picture = rgb(&mut pipeline, &off);
        assert_eq!(picture, rgb(&mut pipeline, &one), "{sampler}");
        assert_ne!(picture, rgb(&mut pipeline, &three), "{sampler}: N3 must differ");
    }
}

#[test]
fn nothing_of_a_request_stays_for_the_next() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    // 15 dpmms steps end above 50: the reference never resets its state after such a run.
    let cached = Request {
        sampler: SamplerKind::Dpmms,
        spacing: Spacing::Linspace,
        cache_policy: policy("N4"),
        ..emoji::cat(pipeline.manifest(), 15)
    };
    let first = rgb(&mut pipeline, &cached);
    let wide = Request { width: 192, steps: 5, ..cached.clone() };
    rgb(&mut pipeline, &wide);
    assert_eq!(first, rgb(&mut pipeline, &cached));
}

#[test]
fn low_memory_draws_the_same_pictures_one_request_after_another() {
    let artifacts = emoji::artifacts();
    for backend in [BackendChoice::Ort, BackendChoice::Tract] {
        let options = RuntimeOptions { backend, threads: Some(2), ..RuntimeOptions::default() };
        let open = |low_memory| {
            let backend = Backend::open(&RuntimeOptions { low_memory, ..options.clone() });
            Pipeline::load(&artifacts, backend.expect("an engine")).expect("it loads")
        };
        let (mut all, mut low) = (open(false), open(true));
        let cat = Request { cache_policy: policy("N2"), ..emoji::cat(all.manifest(), 3) };
        let two = Request { num_images: 2, guidance_scale: 1.0, width: 96, ..cat.clone() };
        let probe = Request { cache_policy: policy("probe:0.5+taylor2"), steps: 6, ..two.clone() };
        for request in [&cat, &two, &probe, &cat] {
            assert_eq!(rgb(&mut all, request), rgb(&mut low, request), "{backend}");
        }
        let loads = |pipeline: &mut Pipeline| {
            let made = pipeline
                .generate(&emoji::checked(pipeline, &cat), &mut emoji::ignore)
                .expect("it draws");
            made.timings.calls(Stage::Load)
        };
        assert_eq!([loads(&mut all), loads(&mut low)], [0, 3], "{backend}");
    }
}

/// In int8 the activations of a run share one scale, so there a row that ran beside others would
/// show it.
#[test]
fn from_1024_tokens_on_a_picture_does_not_depend_on_those_beside_it() {
    let target = GraphOptions::from((Precision::Int8, Target::OrtCpu));
    let artifacts = emoji::artifacts_for(target);
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let cached =
        Request { cache_policy: policy("N2-0-0+taylor1"), ..emoji::cat(pipeline.manifest(), 4) };
    let large = Request { width: 512, height: 512, ..cached };
    let beside = Request { num_images: 2, ..large.clone() };
    let alone = Request { seed: large.seed + 1, ..large };
    let made = pipeline
        .generate(&emoji::checked(&pipeline, &beside), &mut emoji::ignore)
        .expect("it draws");
    assert_eq!(made.timings.calls(Stage::Core), refreshes(&made.plan), "a call is one step");
    assert!(made.images[1].rgb == rgb(&mut pipeline, &alone)[0], "it depends on its neighbour");
    assert!(made.images[0].rgb != made.images[1].rgb, "other seeds, other pictures");

    let small = |request: &Request| Request { width: 128, height: 128, ..request.clone() };
    let together = rgb(&mut pipeline, &small(&beside));
    assert!(together[1] != rgb(&mut pipeline, &small(&alone))[0], "small rows run together");
}

/// With a guidance scale of little more than 1 the negative prompt counts for nothing, so rows or
/// texts that were mixed up would show.
#[test]
fn rows_that_run_apart_keep_their_places() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let unguided = Request {
        width: 512,
        height: 512,
        num_images: 2,
        negative_prompt: "a green tree".to_string(),
        guidance_scale: 1.0,
        ..emoji::cat(pipeline.manifest(), 3)
    };
    let guided = Request { guidance_scale: 1.0 + 1e-4, ..unguided.clone() };
    let mut draw = |request| {
        pipeline
            .generate(&emoji::checked(&pipeline, request), &mut emoji::ignore)
            .expect("it draws")
            .images
    };
    let (unguided, guided) = (draw(&unguided), draw(&guided));
    for (a, b) in unguided.iter().zip(&guided) {
        let level = psnr(a, b).expect("one size");
        assert!(level >= 60.0, "{level} dB");
    }
    let other = psnr(&unguided[0], &guided[1]).expect("one size");
    assert!(other < 40.0, "{other} dB between pictures of other seeds");
}

#[test]
fn the_core_runs_at_refresh_steps_only() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let request = Request { cache_policy: policy("N3"), ..emoji::cat(pipeline.manifest(), 12) };
    let mut told = Vec::new();
    let made = pipeline
        .generate(&emoji::checked(&pipeline, &request), &mut |step| told.push(step.decision))
        .expect("it draws");
    assert_eq!(told, made.plan);
    assert_eq!(made.timings.calls(Stage::Core), refreshes(&made.plan));
    assert!(refreshes(&made.plan) < 12);
    assert_eq!(made.timings.calls(Stage::Encoder), 12);
    assert_eq!(made.timings.calls(Stage::Decoder), 12);
    assert_eq!(made.timings.calls(Stage::Conditioner), 1);
}

#[test]
fn a_batch_holds_the_pictures_of_its_seeds() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let both = Request { num_images: 2, seed: 7, ..emoji::cat(pipeline.manifest(), 4) };
    let batch = rgb(&mut pipeline, &both);
    for (i, together) in batch.iter().enumerate() {
        let alone = Request { num_images: 1, seed: 7 + i as u64, ..both.clone() };
        let alone = &rgb(&mut pipeline, &alone)[0];
        // Matrix products of another height may round sums in another order.
        let far = together.iter().zip(alone).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert_eq!(far, 0, "picture {i}");
    }
    assert_ne!(batch[0], batch[1]);
}

#[test]
fn an_impossible_request_is_refused_by_field() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let good = emoji::cat(pipeline.manifest(), 2);
    let cases = [
        (Request { height: 100, ..good.clone() }, "height: 100 is not a multiple of 16"),
        (Request { width: 0, ..good.clone() }, "width: 0 is not a multiple of 16"),
        (Request { width: 1 << 40, ..good.clone() }, "up to 4096; try 4096"),
        (Request { steps: 0, ..good.clone() }, "steps is 0"),
        (Request { steps: 1001, ..good.clone() }, "steps is 1001"),
        (Request { num_images: 0, ..good.clone() }, "num_images: 0"),
        (Request { guidance_scale: f32::NAN, ..good.clone() }, "guidance_scale: NaN"),
        (Request { guidance_rescale: 1.5, ..good.clone() }, "guidance_rescale: 1.5"),
        (Request { seed: u64::MAX, num_images: 2, ..good.clone() }, "seed: 18446744073709551615"),
        (
            Request { prompt: "x".repeat(5000), ..good.clone() },
            "prompt: 5000 characters; at most 4096",
        ),
        (
            Request { negative_prompt: "猫".repeat(4097), ..good.clone() },
            "negative_prompt: 4097 characters; at most 4096",
        ),
    ];
    for (request, expected) in cases {
        let error = request.check(pipeline.artifacts()).expect_err("a refusal");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // As many characters as may be, of three and four bytes each.
    let long =
        Request {
            prompt: "猫".repeat(4096), negative_prompt: "🐈".repeat(4096), ..good.clone()
        };
    for request in [good, long] {
        pipeline
            .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
            .expect("the good ones draw");
    }
}

#[test]
fn the_spacing_is_the_variants_or_else_the_checkpoints() {
    let artifacts = emoji::artifacts();
    let mut manifest = Artifacts::open(&artifacts).expect("a fresh export").manifest;
    assert_eq!(spacing_of(&manifest, SamplerKind::Dpmms), Spacing::Linspace);
    assert_eq!(spacing_of(&manifest, SamplerKind::Ddpm), Spacing::Leading);
    manifest.model.scheduler.timestep_spacing = Spacing::Trailing;
    assert_eq!(spacing_of(&manifest, SamplerKind::Ddim), Spacing::Trailing);
    assert_eq!(spacing_of(&manifest, SamplerKind::Dpmms), Spacing::Linspace);
    manifest.variant.spacing.clear();
    assert_eq!(spacing_of(&manifest, SamplerKind::Dpmms), Spacing::Trailing);
}
