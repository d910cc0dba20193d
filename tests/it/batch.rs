//! Requests that run together: each picture is the one its request has alone.

use hydit::cache::CachePolicy;
use hydit::image::{Decoded, Image};
use hydit::init_image::{InitImage, Mask};
use hydit::pipeline::batch::{can_batch, most_images, rows_mix};
use hydit::pipeline::cost::sizes;
use hydit::pipeline::denoise::DenoiseState;
use hydit::runtime::{Backend, BackendChoice, Provider, RuntimeOptions};
use hydit::sampler::SamplerKind;
use hydit::timing::Stage;
use hydit::{Pipeline, Request};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::{emoji, repository};

use crate::common::graphs::provider;

fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

fn alone(pipeline: &mut Pipeline, request: &Request) -> Vec<Image> {
    pipeline
        .generate(&emoji::checked(pipeline, request), &mut emoji::ignore)
        .expect("it draws")
        .images
}

/// Requests that differ in all that may differ: text, seed, sampler, steps, policy, guidance,
/// number of pictures, and what they are made from.
fn mixed(pipeline: &Pipeline) -> Vec<Request> {
    let cat = emoji::cat(pipeline.manifest(), 8);
    let with = |prompt: &str, seed| Request { prompt: prompt.to_string(), seed, ..cat.clone() };
    vec![
        Request { cache_policy: policy("N3-1000-0+taylor1"), ..cat.clone() },
        Request { cache_policy: policy("N2-1000-0"), steps: 6, ..with("a red apple", 7) },
        Request {
            guidance_scale: 1.0, cache_policy: policy("N4-1000-0+taylor2"), ..with("狗", 8)
        },
        Request { sampler: SamplerKind::Dpmms, num_images: 2, ..with("a green tree", 9) },
        Request {
            guidance_interval: "0.25:0.8".parse().expect("an interval"),
            cache_policy: policy("N3-1000-0+taylor1"),
            num_images: 2,
            ..with("a blue car", 6)
        },
        Request {
            sampler: SamplerKind::Ddim,
            steps: 5,
            negative_prompt: "red".into(),
            ..with("红苹果", 3)
        },
        Request { init_image: from_image(false, 0.5), ..with("a fox", 4) },
        Request {
            init_image: from_image(true, 0.9),
            sampler: SamplerKind::Dpmms,
            ..with("a panda", 5)
        },
        Request { cache_policy: policy("N2-1000-0+align"), num_images: 2, ..with("a lemon", 10) },
    ]
}

/// The fox, to be changed by `strength` on the whole or in its right half.
pub fn from_image(half: bool, strength: f64) -> Option<InitImage> {
    let folder = repository().join("tests/reference/image_to_image");
    let read = |name: &str| Decoded::read(&folder.join(name)).expect("an image");
    let (image, mask) = (read("image-fox.png"), read("mask-half.png"));
    let mask = half.then_some(Mask::White(&mask));
    Some(InitImage::new(&image, mask, Some(strength), (128, 128)))
}

/// Runs `requests`, the one at index i joining before step 2 i; gives each one's pictures.
pub fn together(pipeline: &mut Pipeline, requests: &[Request]) -> Vec<Vec<Image>> {
    let mut pictures = vec![Vec::new(); requests.len()];
    let mut under_way: Vec<(usize, DenoiseState)> = Vec::new();
    let mut joined = 0;
    for step in 0.. {
        if joined < requests.len() && step == 2 * joined {
            let request = emoji::checked(pipeline, &requests[joined]);
            if let Some((_, first)) = under_way.first() {
                let (manifest, backend) = (pipeline.manifest(), pipeline.backend());
                assert!(can_batch(manifest, backend, first.request(), &request));
            }
            under_way.push((joined, pipeline.begin(&request).expect("it begins")));
            joined += 1;
        }
        step_all(pipeline, under_way.iter_mut().map(|(_, state)| state));
        let (done, rest) = under_way.into_iter().partition(|(_, state)| state.is_done());
        under_way = rest;
        for (which, state) in done {
            let made = pipeline.decode(state.request(), state.latents());
            pictures[which] = made.expect("a picture");
        }
        if under_way.is_empty() && joined == requests.len() {
            break;
        }
    }
    pictures
}

fn step_all<'a>(pipeline: &mut Pipeline, states: impl Iterator<Item = &'a mut DenoiseState>) {
    let mut transformer = pipeline.transformer().expect("it is loaded");
    let steps = transformer.step_together(&mut states.collect::<Vec<_>>()).expect("a step");
    assert!(steps.iter().all(Result::is_ok));
}

/// With the provider that `HYDIT_TEST_PROVIDER` names, or on the CPU.
#[test]
fn pictures_do_not_depend_on_those_beside_them() {
    let artifacts = emoji::artifacts();
    let options = RuntimeOptions {
        backend: BackendChoice::Ort,
        provider: provider(),
        threads: Some(2),
        ..RuntimeOptions::default()
    };
    let backend = Backend::open(&options).expect("run scripts/setup-ort first");
    let mut pipeline = Pipeline::load(&artifacts, backend).expect("it loads");
    let requests = mixed(&pipeline);
    let timer = pipeline.backend().timer();
    timer.record();
    let pictures = together(&mut pipeline, &requests);
    let timings = timer.recorded();
    let steps: usize = requests.iter().map(|request| request.steps).sum();
    let calls = timings.calls(Stage::Encoder);
    assert!(calls < steps * 2 / 3, "{calls} calls for {steps} steps: they did not run together");
    for (request, together) in requests.iter().zip(&pictures) {
        let alone = alone(&mut pipeline, request);
        assert_eq!(alone.len(), together.len());
        for (a, b) in alone.iter().zip(together) {
            let far = a.rgb.iter().zip(&b.rgb).filter(|(a, b)| a.abs_diff(**b) > 1).count();
            assert_eq!(far, 0, "{}", request.prompt);
        }
    }
}

#[test]
fn one_that_leaves_takes_nothing_of_the_others_along() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let requests = mixed(&pipeline);
    let mut states: Vec<DenoiseState> = Vec::new();
    for request in &requests[..3] {
        let request = emoji::checked(&pipeline, request);
        states.push(pipeline.begin(&request).expect("it begins"));
    }
    (0..3).for_each(|_| step_all(&mut pipeline, states.iter_mut()));
    states.remove(1);
    (3..requests[0].steps).for_each(|_| step_all(&mut pipeline, states.iter_mut()));
    for (state, request) in states.iter().zip([&requests[0], &requests[2]]) {
        let pictures = pipeline.decode(request, state.latents()).expect("pictures");
        let alone = &alone(&mut pipeline, request)[0];
        let far =
            alone.rgb.iter().zip(&pictures[0].rgb).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert_eq!(far, 0, "{}", request.prompt);
    }
}

#[test]
fn how_far_the_core_moved_is_told_where_it_is_watched() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let request =
        Request { cache_policy: policy("N2-1000-0"), ..emoji::cat(pipeline.manifest(), 4) };
    let request = emoji::checked(&pipeline, &request);
    for watched in [true, false] {
        let mut state = pipeline.begin(&request).expect("it begins");
        if watched {
            state.track_drift();
        }
        let mut drifts = Vec::new();
        for _ in 0..4 {
            let mut transformer = pipeline.transformer().expect("it is loaded");
            transformer.step(&mut state).expect("a step");
            drifts.push(state.drifts().next());
        }
        // It runs at steps 0 and 2.
        assert_eq!([drifts[0], drifts[1]], [None, None]);
        assert_eq!(
            drifts[2].is_some_and(|drift| (0.01..2.0).contains(&drift)),
            watched,
            "{drifts:?}"
        );
    }
}

/// In int8 all rows of a call share a scale, and large pictures run row by row anyway.
#[test]
fn what_cannot_run_together_does_not_fit() {
    let artifacts = emoji::artifacts();
    let pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let cat = emoji::cat(pipeline.manifest(), 4);
    let wide = Request { width: 192, ..cat.clone() };
    let reactive = Request { cache_policy: policy("probe:0.3"), ..cat.clone() };
    let fits = |one: &Request, other: &Request| {
        can_batch(pipeline.manifest(), pipeline.backend(), one, other)
    };
    assert!(fits(&cat, &cat));
    assert!(!fits(&cat, &wide), "another size");
    assert!(!fits(&cat, &reactive), "a policy that decides on the way");
    assert!(!fits(&reactive, &cat), "either way");
    let large = Request { width: 512, height: 512, ..cat.clone() };
    assert!(!rows_mix(pipeline.manifest(), pipeline.backend(), &large));

    let on_a_gpu = |side| {
        let request = Request { width: side, height: side, ..cat.clone() };
        most_images(Provider::Cuda, &sizes(pipeline.manifest(), &request))
    };
    assert_eq!([512, 1024, 2048, 4096].map(on_a_gpu), [16, 4, 1, 1]);
    assert_eq!(most_images(Provider::Cpu, &sizes(pipeline.manifest(), &large)), usize::MAX);

    let target = GraphOptions::from((Precision::Int8, Target::OrtCpu));
    let int8 = emoji::artifacts_for(target);
    let int8 = emoji::pipeline(&int8, BackendChoice::Ort);
    assert!(!rows_mix(int8.manifest(), int8.backend(), &cat));
    let tract = emoji::pipeline(&artifacts, BackendChoice::Tract);
    assert!(!rows_mix(tract.manifest(), tract.backend(), &cat));
}
