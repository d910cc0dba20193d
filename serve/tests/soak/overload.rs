//! Ten times as many requests as can be drawn.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{IMAGES, median, number, small};
use crate::harness::{Answer, Server, agent};

/// A machine's own speed drifts by a fifth within minutes, so that calm and storm take turns in
/// short phases, and each storm is held against the calm beside it.
const PHASE: Duration = Duration::from_secs(8);
/// Pairs of a calm and a storm, unless `SOAK_STORMS` says.
const STORMS: usize = 15;
const STEPS: usize = 25;
/// Places in the queue; as many clients keep two batches of eight busy, and none is refused.
const QUEUE: usize = 16;
/// More than may wait, at ten times the rate of drawing, before each has its answer.
const SENDERS: usize = 48;

/// What the clients share.
#[derive(Default)]
struct Load {
    /// Requests a second, in thousandths, that are sent whatever comes back; 0 in a calm.
    storm: AtomicU32,
    over: AtomicBool,
    sent: AtomicUsize,
    refused: AtomicUsize,
}

impl Load {
    /// Asks for a picture; whether it was drawn. A refusal says when to ask again.
    fn ask(&self, server: &Server) -> bool {
        self.sent.fetch_add(1, Relaxed);
        let answer = agent().post(server.at(IMAGES)).send_json(small(1, STEPS)).expect("an answer");
        let answer = Answer::of(answer);
        match answer.status {
            200 => true,
            429 => {
                let wait: u64 = answer.header("retry-after").parse().expect("seconds");
                assert!(wait >= 1);
                self.refused.fetch_add(1, Relaxed);
                false
            }
            status => panic!("{status}: {}", answer.text()),
        }
    }

    /// A client that asks again as soon as it has its answer.
    fn client(&self, server: &Server) {
        while !self.over.load(Relaxed) {
            if !self.ask(server) {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// One of the `SENDERS` of the storm.
    fn sender(&self, server: &Server) {
        while !self.over.load(Relaxed) {
            match self.storm.load(Relaxed) {
                0 => thread::sleep(Duration::from_millis(20)),
                rate => {
                    let start = Instant::now();
                    self.ask(server);
                    let share = Duration::from_secs_f64(SENDERS as f64 * 1000.0 / f64::from(rate));
                    thread::sleep(share.saturating_sub(start.elapsed()));
                }
            }
        }
    }

    /// Steps of pictures a second during one phase, after a while in which its load builds up.
    fn phase(&self, server: &Server, storm: f64) -> f64 {
        self.storm.store((storm * 1000.0) as u32, Relaxed);
        thread::sleep(PHASE / 4);
        let (before, start) = (steps(server), Instant::now());
        thread::sleep(PHASE);
        (steps(server) - before) / start.elapsed().as_secs_f64()
    }
}

/// Steps that were drawn so far, counted for each picture of a batch.
fn steps(server: &Server) -> f64 {
    let metrics = server.get("/metrics").text();
    let line = metrics.lines().find(|line| line.starts_with("hydit_steps_total")).expect("steps");
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
#[ignore = "minutes: make soak"]
fn ten_times_the_load_does_not_slow_the_drawing() {
    let server = Server::start(&["--queue", &QUEUE.to_string()]);
    let load = Load::default();
    let (mut ratios, mut capacities, mut in_storms) = (Vec::new(), Vec::new(), [0, 0]);
    thread::scope(|scope| {
        (0..QUEUE).for_each(|_| drop(scope.spawn(|| load.client(&server))));
        (0..SENDERS).for_each(|_| drop(scope.spawn(|| load.sender(&server))));
        load.phase(&server, 0.0);
        let mut before = load.phase(&server, 0.0);
        for _ in 0..number("SOAK_STORMS", STORMS) {
            let counts = || [load.sent.load(Relaxed), load.refused.load(Relaxed)];
            let calm = counts();
            let goodput = load.phase(&server, 10.0 * before / STEPS as f64);
            let storm = counts();
            in_storms = [0, 1].map(|i| in_storms[i] + storm[i] - calm[i]);
            let after = load.phase(&server, 0.0);
            ratios.push(2.0 * goodput / (before + after));
            capacities.push(before);
            before = after;
        }
        load.over.store(true, Relaxed);
    });
    let [sent, refused] = in_storms;
    let capacity = median(&mut capacities) / STEPS as f64;
    println!("capacity {capacity:.2} pictures/s; in {} storms of ten times that", ratios.len());
    println!("{sent} sent, {refused} refused, each 429 with Retry-After");
    let ratio = median(&mut ratios);
    let [low, .., high] = ratios[..] else { panic!("at least two storms") };
    println!("goodput in a storm: {ratio:.3} of the calm beside it ({low:.3} to {high:.3})");
    assert!(refused > sent / 2, "it was no overload");
    assert!(!server.log().contains("panic"), "{}", server.log());
    assert!(ratio >= 0.97, "{ratio}");
}
