//! Requests that run together: each picture is the one its request has alone.

use hydit::cache::CachePolicy;
use hydit::image::Image;
use hydit::pipeline::batch::{Batch, rows_mix};
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit::timing::{Stage, Timings};
use hydit::{Pipeline, Request};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;

fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

fn alone(pipeline: &mut Pipeline, request: &Request) -> Vec<Image> {
    pipeline.generate(request, &mut emoji::ignore).expect("it draws").images
}

/// Requests that differ in all that may differ: text, seed, sampler, steps, policy, guidance, number
/// of pictures.
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
            sampler: SamplerKind::Ddim,
            steps: 5,
            negative_prompt: "red".into(),
            ..with("红苹果", 3)
        },
    ]
}

/// Runs `requests`, the one at index i joining before step 2 i; gives each one's pictures.
fn together(
    pipeline: &mut Pipeline,
    requests: &[Request],
    timings: &mut Timings,
) -> Vec<Vec<Image>> {
    let mut pictures = vec![Vec::new(); requests.len()];
    let mut batch = Batch::default();
    let mut under_way: Vec<usize> = Vec::new();
    let mut joined = 0;
    for step in 0.. {
        if joined < requests.len() && step == 2 * joined {
            let request = &requests[joined];
            let walk = pipeline.enter(request, timings).expect("it begins");
            let (_, plan) = request.plan(pipeline.artifacts()).expect("it is planned");
            assert!(batch.fits(pipeline.manifest(), pipeline.backend(), request));
            pipeline
                .transformer(timings, |backend, dit, _| batch.join(backend, dit, walk, plan))
                .expect("it joins");
            under_way.push(joined);
            joined += 1;
        }
        let outcomes = pipeline
            .transformer(timings, |_, dit, timings| batch.step(dit, timings))
            .expect("a step");
        assert!(outcomes.iter().all(Result::is_ok));
        for place in (0..under_way.len()).rev() {
            if batch.members()[place].walk.is_done() {
                let member = batch.leave(place);
                let which = under_way.remove(place);
                let latents = &member.walk.place.latents;
                pictures[which] =
                    pipeline.decode(&requests[which], latents, timings).expect("a picture");
            }
        }
        if under_way.is_empty() && joined == requests.len() {
            break;
        }
    }
    pictures
}

#[test]
fn pictures_do_not_depend_on_those_beside_them() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let requests = mixed(&pipeline);
    let mut timings = Timings::default();
    let pictures = together(&mut pipeline, &requests, &mut timings);
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
    let mut timings = Timings::default();
    let mut batch = Batch::default();
    for request in &requests[..3] {
        let walk = pipeline.enter(request, &mut timings).expect("it begins");
        let (_, plan) = request.plan(pipeline.artifacts()).expect("it is planned");
        let join = |backend: &_, dit: &mut _, _: &mut _| batch.join(backend, dit, walk, plan);
        pipeline.transformer(&mut timings, join).expect("it joins");
    }
    let mut step = |batch: &mut Batch, pipeline: &mut Pipeline| {
        pipeline
            .transformer(&mut timings, |_, dit, timings| batch.step(dit, timings))
            .expect("a step");
    };
    (0..3).for_each(|_| step(&mut batch, &mut pipeline));
    batch.leave(1);
    (3..requests[0].steps).for_each(|_| step(&mut batch, &mut pipeline));
    for (member, request) in batch.members().iter().zip([&requests[0], &requests[2]]) {
        let latents = member.walk.place.latents.clone();
        let pictures =
            pipeline.decode(request, &latents, &mut Timings::default()).expect("pictures");
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
    let (_, mut plan) = request.plan(pipeline.artifacts()).expect("a plan");
    let mut timings = Timings::default();
    for watched in [true, false] {
        let mut walk = pipeline.enter(&request, &mut timings).expect("it begins");
        walk.lanes[0].watched = watched;
        let mut drifts = Vec::new();
        for _ in 0..4 {
            pipeline
                .transformer(&mut timings, |_, dit, timings| walk.step(dit, &mut plan, timings))
                .expect("a step");
            drifts.push(walk.lanes[0].drift);
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
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let cat = emoji::cat(pipeline.manifest(), 4);
    let wide = Request { width: 192, ..cat.clone() };
    let reactive = Request { cache_policy: policy("probe:0.3"), ..cat.clone() };
    let plan = |pipeline: &Pipeline, request: &Request| {
        request.plan(pipeline.artifacts()).expect("a plan").1
    };
    let mut timings = Timings::default();
    let mut batch = Batch::default();
    let fits = |batch: &Batch, pipeline: &Pipeline, request: &Request| {
        batch.fits(pipeline.manifest(), pipeline.backend(), request)
    };
    assert!(fits(&batch, &pipeline, &reactive), "anything fits into an empty batch");
    let walk = pipeline.enter(&cat, &mut timings).expect("it begins");
    let own = plan(&pipeline, &cat);
    pipeline
        .transformer(&mut timings, |backend, dit, _| batch.join(backend, dit, walk, own))
        .expect("it joins");
    assert!(fits(&batch, &pipeline, &cat));
    assert!(!fits(&batch, &pipeline, &wide), "another size");
    assert!(!fits(&batch, &pipeline, &reactive), "a policy that decides on the way");
    let large = Request { width: 512, height: 512, ..cat.clone() };
    assert!(!rows_mix(pipeline.manifest(), pipeline.backend(), &large));

    let target = GraphOptions { precision: Precision::Int8, target: Target::OrtCpu };
    let int8 = emoji::artifacts_for(target);
    let int8 = emoji::pipeline(&int8, BackendChoice::Ort);
    assert!(!rows_mix(int8.manifest(), int8.backend(), &cat));
    let tract = emoji::pipeline(&artifacts, BackendChoice::Tract);
    assert!(!rows_mix(tract.manifest(), tract.backend(), &cat));
}
