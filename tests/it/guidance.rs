//! Guidance at some of the steps: what is computed, and what the cache does where the negative half
//! joins. That the pictures are right is for `pictures.rs` to say.

use hydit::cache::refreshed;
use hydit::eval::calibrate::{Settings, calibrate};
use hydit::eval::compare::psnr;
use hydit::runtime::BackendChoice;
use hydit::sampler::{SamplerKind, Spacing};
use hydit::{Generated, Pipeline, Request};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;

fn request(pipeline: &Pipeline, interval: &str, cache: &str) -> Request {
    Request {
        sampler: SamplerKind::Dpmms,
        spacing: Spacing::Linspace,
        guidance_interval: interval.parse().expect("an interval"),
        cache_policy: cache.parse().expect("a policy"),
        ..emoji::cat(pipeline.manifest(), 10)
    }
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Generated {
    let request = emoji::checked(pipeline, request);
    pipeline.generate(&request, &mut emoji::ignore).expect("it draws")
}

/// The rows of each step.
fn rows(pipeline: &mut Pipeline, request: &Request) -> Vec<usize> {
    let mut state = pipeline.begin(&emoji::checked(pipeline, request)).expect("it begins");
    let mut transformer = pipeline.transformer().expect("it is loaded");
    let mut rows = Vec::new();
    while !state.is_done() {
        rows.push(state.row_count());
        transformer.step(&mut state).expect("a step");
    }
    rows
}

/// In fp32 both halves share calls where they run, in int8 each has its own.
#[test]
fn the_negative_half_is_not_computed_outside() {
    let fp32 = emoji::artifacts();
    let int8 = emoji::artifacts_for(GraphOptions::from((Precision::Int8, Target::OrtCpu)));
    for artifacts in [&fp32, &int8] {
        let mut pipeline = emoji::pipeline(artifacts, BackendChoice::Ort);
        let of = |pipeline: &mut Pipeline, interval: &str| {
            let request = request(pipeline, interval, "N3-1000-0");
            rows(pipeline, &request)
        };
        assert_eq!(of(&mut pipeline, "0:1"), [2; 10]);
        assert_eq!(of(&mut pipeline, "0.2:0.7"), [1, 1, 2, 2, 2, 2, 2, 1, 1, 1]);
        assert_eq!(of(&mut pipeline, "0:0.3"), [2, 2, 2, 1, 1, 1, 1, 1, 1, 1]);
        let two = Request { num_images: 2, ..request(&pipeline, "0.8:1", "off") };
        assert_eq!(rows(&mut pipeline, &two), [2, 2, 2, 2, 2, 2, 2, 2, 4, 4]);
        let unguided = Request { guidance_scale: 1.0, ..request(&pipeline, "0.2:0.7", "off") };
        assert_eq!(rows(&mut pipeline, &unguided), [1; 10]);
    }
}

/// The halves of an int8 export, which run apart, and of an fp32 one, which run together, draw alike.
#[test]
fn halves_that_run_apart_draw_what_halves_together_do() {
    let int8 = emoji::artifacts_for(GraphOptions::from((Precision::Int8, Target::OrtCpu)));
    let pictures = [emoji::artifacts(), int8].map(|artifacts| {
        let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
        let asked = request(&pipeline, "0.2:0.7", "off");
        draw(&mut pipeline, &asked).images.remove(0)
    });
    // int8 is some 38 dB from fp32; a half that is taken for the other is below 15.
    let near = psnr(&pictures[0], &pictures[1]).expect("one size");
    assert!(near > 30.0, "{near}");
}

#[test]
fn the_cache_begins_anew_where_the_negative_half_joins() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let asked = request(&pipeline, "0.3:0.8", "off");
    let uncached = draw(&mut pipeline, &asked);
    // A tenth of the steps is 100 timesteps: these reuse at every second step, and are no likeness
    // of much; a half that is kept of the wrong rows or not at all is below 10 dB.
    for (cache, refreshes) in [
        ("N2-1000-0", &[0, 2, 3, 4, 6, 8][..]),
        ("N2-1000-0+taylor2", &[0, 2, 3, 4, 6, 8]),
        ("N2-1000-0+align", &[0, 2, 3, 4, 6, 8]),
        ("N5-1000-0", &[0, 3, 5]),
    ] {
        let asked = request(&pipeline, "0.3:0.8", cache);
        let made = draw(&mut pipeline, &asked);
        assert_eq!(refreshed(&made.plan), refreshes, "{cache}");
        let near = psnr(&made.images[0], &uncached.images[0]).expect("one size");
        println!("{cache}: {near:.1} dB");
        assert!(near > 15.0, "{cache}: {near}");
    }
    let asked = request(&pipeline, "0.3:0.8", "probe:9-9+taylor1");
    let made = draw(&mut pipeline, &asked);
    assert_eq!(refreshed(&made.plan), [0, 3]);
}

#[test]
fn pictures_do_not_depend_on_what_is_outside() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let mut image = |interval: &str, negative: &str, scale: f32| {
        let request = Request {
            negative_prompt: negative.to_string(),
            guidance_scale: scale,
            ..request(&pipeline, interval, "off")
        };
        draw(&mut pipeline, &request).images.remove(0)
    };
    let one = image("0.2:0.8", "", 5.0);
    assert_ne!(one, image("0.2:0.8", "red", 5.0), "the negative prompt counts inside");
    assert_ne!(one, image("0:1", "", 5.0));
    assert_ne!(one, image("0.2:0.8", "", 1.0));
}

#[test]
fn what_holds_no_step_or_cannot_be_calibrated_is_refused_by_name() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let narrow = request(&pipeline, "0.5:0.55", "off");
    let refused = narrow.check(pipeline.artifacts()).expect_err("a refusal").to_string();
    assert!(refused.starts_with("guidance_interval: 0.5:0.55 holds none of 10 steps"), "{refused}");
    let settings = Settings {
        request: request(&pipeline, "0.2:0.8", "off"),
        learn: vec!["a cat".into()],
        check: vec!["a dog".into()],
        runs: vec![4],
        tries: 0,
        corrections: true,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let refused = calibrate(&mut pipeline, &settings, &folder.path().join("partial"), &mut |_| {});
    let refused = refused.expect_err("a refusal").to_string();
    assert!(refused.starts_with("guidance_interval: a calibration is made"), "{refused}");
}
