//! One server, asked for everything again and again: its memory and its handles stay as they are.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Dice, IMAGES, number, small};
use crate::harness::{Server, until};
use crate::job_client::{create, done, path};

/// Minutes, unless `SOAK_MINUTES` says. The first sixth is for warming up.
const MINUTES: usize = 60;
const CLIENTS: u64 = 4;
/// Resident memory may grow by so much after that.
const GROWTH: f64 = (8 << 20) as f64;

/// Until what nobody waits for any more has ended.
const REST: Duration = Duration::from_secs(2);

/// What a client does, told by a throw of the dice.
fn ask(server: &Server, dice: &mut Dice) {
    let (seed, steps) = (dice.below(1000) as usize, 1 + dice.below(6) as usize);
    let pause = Duration::from_millis(dice.below(100));
    match dice.below(8) {
        0 => {
            let mut body = small(seed, steps);
            body["stream"] = json!(true);
            body["partial_images"] = json!(2);
            assert_eq!(server.post(IMAGES, &body).status, 200);
        }
        1 => {
            let gone = server.send(IMAGES, &small(seed, 20));
            thread::sleep(pause);
            drop(gone);
        }
        2 => {
            let job = create(server, &small(seed, steps));
            done(server, &job);
            assert_eq!(server.delete(&path(&job)).status, 204);
        }
        3 => {
            let job = create(server, &small(seed, 50));
            thread::sleep(pause);
            assert!([200, 202, 204].contains(&server.delete(&path(&job)).status));
        }
        4 => assert_eq!(server.post(IMAGES, &json!({ "prompt": 7 })).status, 400),
        5 => drop(server.connect()),
        6 => assert_eq!(server.get("/metrics").status, 200),
        _ => {
            let mut body = small(seed, steps);
            body["size"] = json!(["128x128", "192x128", "96x160"][seed % 3]);
            assert_eq!(server.post(IMAGES, &body).status, 200);
        }
    }
}

/// Asks from all sides for `time`; gives how often.
fn ask_for(server: &Server, time: Duration, dice: u64) -> usize {
    let (start, asked) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (asked, start) = (&asked, &start);
            scope.spawn(move || {
                let mut dice = Dice(dice + client);
                while start.elapsed() < time {
                    ask(server, &mut dice);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    asked.into_inner()
}

#[test]
#[ignore = "an hour: make soak"]
fn memory_and_handles_stay_as_they_are() {
    let time = Duration::from_secs(60 * number("SOAK_MINUTES", MINUTES) as u64);
    let server = Server::start(&["--keep-age", "1m"]);
    let handles = || fs::read_dir(format!("/proc/{}/fd", server.pid)).expect("it runs").count();
    let at_rest = || {
        until("clients are gone", || server.metric("hydit_connections") <= 1.0);
        thread::sleep(REST);
        let memory = server.metric("process_resident_memory_bytes");
        // The connection that has asked for it closes too.
        thread::sleep(REST);
        (memory, handles())
    };
    let warming = ask_for(&server, time / 6, 1);
    let (memory, open) = at_rest();
    let asked = ask_for(&server, time - time / 6, 100);
    let (grown, left) = at_rest();
    println!("time                              {} s", time.as_secs());
    println!("requests, jobs, cancels, goings   {warming} to warm up, {asked} after that");
    println!("resident memory after warm-up     {:.1} MiB", memory / f64::from(1 << 20));
    println!("  and at the end                  {:+.1} MiB", (grown - memory) / f64::from(1 << 20));
    println!("open files and connections        {open} after warm-up, {left} at the end");
    assert!(grown - memory <= GROWTH, "{} bytes more", grown - memory);
    assert!(left <= open, "{left} handles, {open} before");
}
