//! SIGTERM with work under way.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::small;
use crate::harness::{PATIENCE, Server};

fn state(server: &Server, id: &str) -> String {
    let job = server.get(&format!("/v1/jobs/{id}")).json();
    job["status"].as_str().expect("a state").to_string()
}

fn wait(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + 2 * PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "minutes: make soak"]
fn five_running_and_five_queued_are_finished_or_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--max-batch", "5", "--drain-timeout", "5m"];
    let mut server = Server::start_in(folder.path(), &flags);
    let job = |seed| -> String {
        let mut body: Value = small(seed, 100);
        body["cache"] = json!("off");
        let answer = server.post("/v1/jobs", &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_string()
    };
    let ids: Vec<String> = (0..10).map(job).collect();
    let count =
        |server: &Server, wanted: &str| ids.iter().filter(|id| state(server, id) == wanted).count();
    wait("five run", || count(&server, "running") == 5);
    assert_eq!(count(&server, "queued"), 5);
    server.signal(Signal::TERM);
    let status = server.wait(5 * PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    drop(server);
    let server = Server::start_in(folder.path(), &flags);
    let finished = count(&server, "done");
    wait("all are done", || count(&server, "done") == 10);
    println!(
        "SIGTERM with 5 running and 5 queued: {finished} finished before the end, 10 after the next start, exit 0"
    );
    assert!(finished >= 5);
}
