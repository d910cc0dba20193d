//! Many clients with requests of all kinds, some of which go away.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hydit::image::Image;
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;
use serde_json::{Value, json};

use crate::client::{IMAGES, number, pictures};
use crate::harness::{self, Server};

/// Requests, unless `SOAK_REQUESTS` says; half as many before them warm up.
const REQUESTS: usize = 2000;
const CLIENTS: usize = 8;
/// Every so many requests one is given up on the way.
const GIVEN_UP: usize = 5;
/// Resident memory may grow by so much once all kinds of requests, and of batches, were seen.
const GROWTH: f64 = (16 << 20) as f64;

/// Kinds of requests: sizes, samplers, lengths, policies, guidance, numbers of pictures.
fn kinds() -> Vec<Value> {
    let prompts = ["蓝色背景上的猫", "a red apple", "a green tree", "笑脸", "黄色的星星", "a fish"];
    let sizes = ["128x128", "128x128", "128x128", "192x128", "96x160"];
    let samplers = ["dpmms", "ddim", "ddpm"];
    let caches = ["off", "N2-1000-0", "N3", "N3-1000-0+taylor1", "probe:0.3"];
    let kind = |i: usize| {
        json!({
            "prompt": prompts[i % prompts.len()], "seed": i, "steps": 4 + i % 5,
            "size": sizes[i % sizes.len()], "sampler": samplers[i / 2 % samplers.len()],
            "cache": caches[i / 3 % caches.len()], "n": 1 + usize::from(i.is_multiple_of(7)),
            "guidance": if i % 6 == 5 { 1.0 } else { 5.0 }
        })
    };
    (0..40).map(kind).collect()
}

fn request(pipeline: &Pipeline, kind: &Value) -> Request {
    let text = |field: &str| kind[field].as_str().expect("text");
    let number = |field: &str| kind[field].as_u64().expect("a number");
    let (width, height) = text("size").split_once('x').expect("a size");
    let plain = Request::new(pipeline.manifest(), text("prompt")).expect("the defaults are right");
    let sampler = text("sampler").parse().expect("a sampler");
    Request {
        width: width.parse().expect("a number"),
        height: height.parse().expect("a number"),
        seed: number("seed"),
        steps: number("steps") as usize,
        num_images: number("n") as usize,
        init_image: None,
        pag_scale: 0.0,
        image_prompt: None,
        guidance_scale: kind["guidance"].as_f64().expect("a number") as f32,
        sampler,
        spacing: hydit::request::spacing_of(pipeline.manifest(), sampler),
        cache_policy: text("cache").parse().expect("a policy"),
        ..plain
    }
}

/// How far the pictures are from those drawn alone.
fn farthest(alone: &[Image], served: &[Image]) -> u8 {
    assert_eq!(alone.len(), served.len(), "as many as were asked for");
    let pairs = alone.iter().zip(served).flat_map(|(a, b)| a.rgb.iter().zip(&b.rgb));
    pairs.map(|(a, b)| a.abs_diff(*b)).max().expect("pixels")
}

fn run(flags: &[&str], most: u8) {
    let requests = number("SOAK_REQUESTS", REQUESTS);
    let mut pipeline =
        Pipeline::load(harness::model(), emoji::backend(BackendChoice::Ort)).expect("it loads");
    let kinds = kinds();
    let alone: Vec<Vec<Image>> = kinds
        .iter()
        .map(|kind| {
            let request = request(&pipeline, kind);
            pipeline
                .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
                .expect("it draws")
                .images
        })
        .collect();
    let server = Server::start(flags);
    let far = Mutex::new(vec![0usize; 256]);
    let (drawn, given_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let round = |requests: usize| {
        let next = AtomicUsize::new(0);
        let client = || {
            while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < requests)
            {
                let which = i * 17 % kinds.len();
                if i % GIVEN_UP == 3 {
                    let stream = server.send(IMAGES, &kinds[which]);
                    thread::sleep(Duration::from_millis((i * 37 % 200) as u64));
                    drop(stream);
                    given_up.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let answer = server.post(IMAGES, &kinds[which]);
                assert_eq!(answer.status, 200, "{}", answer.text());
                let distance = farthest(&alone[which], &pictures(&answer));
                far.lock().expect("no panic")[usize::from(distance)] += 1;
                drawn.fetch_add(1, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
    };
    round(requests / 2); // every kind, several times
    // ONNX Runtime keeps what the largest batch of each size has needed.
    for size in ["128x128", "192x128", "96x160"] {
        let largest = json!({ "prompt": "a fish", "size": size, "steps": 12, "sampler": "dpmms" });
        let ask = || assert_eq!(server.post(IMAGES, &largest).status, 200);
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(ask))));
    }
    let memory = || server.metric("process_resident_memory_bytes");
    let before = memory();
    round(requests);
    let growth = memory() - before;
    let far = far.into_inner().expect("no panic");
    let (drawn, given_up) = (drawn.into_inner(), given_up.into_inner());
    let wrong: usize = far[usize::from(most) + 1..].iter().sum();
    println!(
        "{flags:?}: {} requests, {drawn} drawn, {given_up} given up on the way, {wrong} wrong (more than \
         {most}/255 from the picture drawn alone), resident memory {:+.1} MiB",
        drawn + given_up,
        growth / f64::from(1 << 20),
    );
    assert_eq!(drawn + given_up, requests + requests / 2, "none is lost");
    assert_eq!(wrong, 0);
    assert!(growth <= GROWTH, "{growth} bytes more");
}

#[test]
#[ignore = "minutes: make soak"]
fn mixed_requests_draw_what_they_draw_alone() {
    run(&["--max-n", "4"], 1);
    run(&["--workers", "2", "--threads", "2"], 1);
}

#[test]
#[ignore = "minutes: make soak"]
fn mixed_requests_in_exact_mode_have_the_same_bits() {
    run(&["--exact"], 0);
}
