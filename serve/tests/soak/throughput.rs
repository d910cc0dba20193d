//! Eight clients against one at a time, and what the server adds to a picture's time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;
use serde_json::Value;

use crate::client::{IMAGES, median, small};
use crate::harness::{self, Server};

const ROUNDS: usize = 5;
/// Of each measurement in a round.
const TIME: Duration = Duration::from_secs(8);
const STEPS: usize = 25;

/// Pictures a second with `clients` that each wait for their answer.
fn rate(server: &Server, clients: usize, body: impl Fn(usize) -> Value + Sync) -> f64 {
    let (start, drawn) = (Instant::now(), AtomicUsize::new(0));
    let client = || {
        while start.elapsed() < TIME {
            let seed = drawn.load(Ordering::Relaxed);
            assert_eq!(server.post(IMAGES, &body(seed)).status, 200);
            drawn.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..clients).for_each(|_| drop(scope.spawn(client))));
    drawn.into_inner() as f64 / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "minutes: make soak"]
fn eight_clients_against_one_at_a_time() {
    let forms: [(&str, &[&str]); 4] = [
        ("1 worker, alone (--exact)", &["--exact"]),
        ("1 worker, together", &[]),
        ("2 workers, alone (--exact)", &["--workers", "2", "--threads", "2", "--exact"]),
        ("2 workers, together", &["--workers", "2", "--threads", "2", "--max-batch", "4"]),
    ];
    let servers: Vec<Server> = forms.iter().map(|(_, flags)| Server::start(flags)).collect();
    let body = |seed| small(seed, STEPS);
    let mut rates = vec![Vec::new(); 1 + forms.len()];
    for _ in 0..ROUNDS {
        rates[0].push(rate(&servers[0], 1, body));
        for (rates, server) in rates[1..].iter_mut().zip(&servers) {
            rates.push(rate(server, 8, body));
        }
    }
    let one = median(&mut rates[0].clone());
    println!("{STEPS} steps, dpmms, no cache; medians of {ROUNDS} interleaved rounds of {TIME:?}");
    println!("one client, 1 worker            {one:6.2} pictures/s  1.00x");
    let mut best: f64 = 0.0;
    for ((name, _), rates) in forms.iter().zip(&mut rates[1..]) {
        let rate = median(rates);
        best = best.max(rate / one);
        println!("8 clients, {name:28} {rate:6.2} pictures/s  {:.2}x", rate / one);
    }
    assert!(best >= 1.5, "{best:.2}x");
}

/// The time of a request over HTTP less that of the same picture in this process, in turns.
#[test]
#[ignore = "minutes: make soak"]
fn the_server_adds_at_most_five_milliseconds() {
    let artifacts = harness::model();
    let mut pipeline =
        Pipeline::load(artifacts, emoji::backend(BackendChoice::Ort)).expect("it loads");
    let cat = emoji::cat(pipeline.manifest(), 8);
    let spacing = hydit::request::spacing_of(pipeline.manifest(), SamplerKind::Dpmms);
    let request = Request { sampler: SamplerKind::Dpmms, spacing, ..cat };
    let server = Server::start(&["--threads", "2"]);
    let agent = harness::agent();
    let mut extra = Vec::new();
    for i in 0..60 {
        let start = Instant::now();
        let made = pipeline
            .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
            .expect("it draws");
        hydit::image::encode_png(&made.images[0], &[]).expect("a PNG");
        let library = start.elapsed();
        let start = Instant::now();
        let mut answer = agent.post(server.at(IMAGES)).send_json(small(42, 8)).expect("an answer");
        answer.body_mut().read_to_vec().expect("all of it");
        if i >= 10 {
            extra.push(1e3 * (start.elapsed().as_secs_f64() - library.as_secs_f64()));
        }
    }
    let extra = median(&mut extra);
    println!("a request costs {extra:.2} ms more than the picture and its PNG");
    assert!(extra <= 5.0, "{extra} ms");
}
