//! Two signals, one soon after the other, with a job under way: again and again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Dice, number, small};
use crate::harness::{PATIENCE, Server};
use crate::job_client::{create, done, ids, until};

/// Pairs of signals, unless `SOAK_SIGNALS` says.
const PAIRS: usize = 500;
/// Longest time between the two, in milliseconds.
const BETWEEN: u64 = 100;

#[test]
#[ignore = "minutes: make soak"]
fn two_signals_lose_and_fail_no_job() {
    let pairs = number("SOAK_SIGNALS", PAIRS);
    let folder = tempfile::tempdir().expect("a folder");
    let mut dice = Dice(20261127);
    let mut codes: BTreeMap<Option<i32>, usize> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    for pair in 0..pairs {
        let mut server = Server::start_in(folder.path(), &["--exact"]);
        // One that was cut off before goes on; else there is a new one.
        let goes_on =
            |name: &String| until(&server, name, &["running", "done"])["status"] != "done";
        if !names.last().is_some_and(goes_on) {
            names.push(create(&server, &small(pair, 100)));
            until(&server, &names[names.len() - 1], &["running"]);
        }
        let ends = [Signal::TERM, Signal::INT];
        server.signal(ends[dice.below(2) as usize]);
        thread::sleep(Duration::from_millis(dice.below(BETWEEN)));
        server.signal(ends[dice.below(2) as usize]);
        let status =
            server.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on: {}", server.log()));
        *codes.entry(status.code()).or_default() += 1;
    }
    let server = Server::start_in(folder.path(), &["--exact"]);
    for name in &names {
        done(&server, name);
    }
    println!("pairs of signals with a job under way  {pairs}");
    println!("jobs accepted, and done                {}", names.len());
    println!("exit codes                             {codes:?}");
    let newest = ids(&server.get("/v1/jobs?limit=100").json());
    assert!(newest.iter().all(|name| names.contains(name)), "jobs that nobody sent");
    let expected = [Some(0), Some(130), Some(143)];
    assert!(codes.keys().all(|code| expected.contains(code)), "{codes:?}");
}
