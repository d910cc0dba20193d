//! Ten times as many requests as can be drawn.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{IMAGES, median, small};
use crate::harness::{Answer, Server, agent};

const TIME: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;
const STEPS: usize = 25;
/// More than may wait, at ten times the rate of drawing, before each has its answer.
const SENDERS: usize = 48;

/// Pictures a second with as many clients as keep the queue from running empty.
fn capacity(server: &Server) -> f64 {
    let (start, drawn) = (Instant::now(), AtomicUsize::new(0));
    let client = || {
        let agent = agent();
        while start.elapsed() < TIME {
            let answer =
                agent.post(server.at(IMAGES)).send_json(small(1, STEPS)).expect("an answer");
            assert_eq!(Answer::of(answer).status, 200);
            drawn.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..12).for_each(|_| drop(scope.spawn(client))));
    drawn.into_inner() as f64 / start.elapsed().as_secs_f64()
}

/// Sends at `rate` whatever comes back; gives pictures a second, requests sent and refusals.
fn overload(server: &Server, rate: f64) -> (f64, usize, usize) {
    let (start, next, drawn) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    let refused = Mutex::new(0);
    let sender = || {
        let agent = agent();
        loop {
            let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
            if due >= TIME {
                break;
            }
            thread::sleep(due.saturating_sub(start.elapsed()));
            let answer =
                agent.post(server.at(IMAGES)).send_json(small(1, STEPS)).expect("an answer");
            let answer = Answer::of(answer);
            match answer.status {
                200 => drop(drawn.fetch_add(1, Ordering::Relaxed)),
                429 => {
                    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
                    assert!(wait >= 1);
                    *refused.lock().expect("no panic") += 1;
                }
                status => panic!("{status}: {}", answer.text()),
            }
        }
    };
    thread::scope(|scope| (0..SENDERS).for_each(|_| drop(scope.spawn(sender))));
    let rate = drawn.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let refused = refused.into_inner().expect("no panic");
    (rate, drawn.into_inner() + refused, refused)
}

#[test]
#[ignore = "minutes: make soak"]
fn ten_times_the_load_does_not_slow_the_drawing() {
    let server = Server::start(&["--queue", "16"]);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let capacity = capacity(&server);
        let (goodput, sent, refused) = overload(&server, 10.0 * capacity);
        println!(
            "capacity {capacity:.2} pictures/s; at ten times that ({sent} sent in {TIME:?}) {goodput:.2}, \
             {refused} refused, each 429 with Retry-After"
        );
        assert!(refused > sent / 2, "it was no overload");
        ratios.push(goodput / capacity);
    }
    let ratio = median(&mut ratios);
    println!("goodput at ten times the load: {ratio:.3} of capacity");
    assert!(!server.log().contains("panic"), "{}", server.log());
    assert!(ratio >= 0.95, "{ratio}");
}
