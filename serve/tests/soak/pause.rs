//! A process that is stopped and goes on, as a paused container does, with work under way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Dice, IMAGES, number, small};
use crate::harness::{Answer, PATIENCE, Server, agent};
use crate::job_client::{create, done, until};

/// Pauses, unless `SOAK_PAUSES` says.
const PAUSES: usize = 50;
/// Shortest pause in seconds, unless `SOAK_PAUSE_SECONDS` says: more than a graph call of the small
/// model may take.
const SECONDS: usize = 3;
/// How much longer a pause may be, in milliseconds.
const LONGER: u64 = 4000;

#[test]
#[ignore = "minutes: make soak"]
fn pauses_fail_nothing() {
    let pauses = number("SOAK_PAUSES", PAUSES);
    let shortest = 1000 * number("SOAK_PAUSE_SECONDS", SECONDS) as u64;
    let patience = PATIENCE + Duration::from_millis(2 * (shortest + LONGER));
    let server = Server::start(&["--deadline", "1h"]);
    let (over, drawn) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut dice = Dice(20261127);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // A pause is as long for who waits.
                let request = agent().post(server.at(IMAGES)).config();
                let request = request.timeout_global(Some(patience)).build();
                let answer = request.send_json(small(drawn.load(Ordering::Relaxed), 20));
                let answer = Answer::of(answer.expect("it answers"));
                assert_eq!(answer.status, 200, "{}", answer.text());
                drawn.fetch_add(1, Ordering::Relaxed);
            }
        });
        for pause in 0..pauses {
            let name = create(&server, &small(pause, 100));
            until(&server, &name, &["running"]);
            thread::sleep(Duration::from_millis(dice.below(200)));
            server.signal(Signal::STOP);
            thread::sleep(Duration::from_millis(shortest + dice.below(LONGER)));
            server.signal(Signal::CONT);
            done(&server, &name);
        }
        over.store(true, Ordering::Relaxed);
    });
    let failed = server.metric(r#"hydit_orders_total{outcome="failed"}"#);
    println!("pauses with a job under way       {pauses}");
    println!("pictures drawn beside the jobs    {}", drawn.into_inner());
    println!("orders that failed                {failed}");
    assert_eq!(failed, 0.0);
    assert!(!server.log().contains("stuck"), "{}", server.log());
}
