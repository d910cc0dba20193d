//! What is not wanted any more is not drawn on: counted in steps, by the server itself.

mod emoji;
mod server;

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use server::{PATIENCE, Server};

fn metric(server: &Server, series: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.expect("a series").trim().parse().expect("a number")
}

fn steps(server: &Server) -> f64 {
    metric(server, "hydit_steps_total ")
}

/// Waits until some steps of a picture of a hundred were taken.
fn under_way(server: &Server) {
    let start = Instant::now();
    while steps(server) < 5.0 {
        assert!(start.elapsed() < PATIENCE, "it does not begin");
    }
}

/// Draws a picture of two steps, which waits until the worker is free; gives the steps since `before`
/// that were not its own.
fn more(server: &Server, before: f64) -> f64 {
    let answer = server.post("/v1/images/generations", &json!({ "prompt": "猫", "steps": 2 }));
    assert_eq!(answer.status, 200);
    steps(server) - before - 2.0
}

#[test]
fn a_deleted_job_takes_at_most_one_step_more() {
    let server = Server::start(&["--exact"]);
    let job = server.post("/v1/jobs", &json!({ "prompt": "猫", "steps": 100 })).json();
    under_way(&server);
    let id = job["id"].as_str().expect("an id");
    assert_eq!(server.delete(&format!("/v1/jobs/{id}")).status, 200);
    let more = more(&server, steps(&server));
    assert!(more <= 1.0, "{more} steps");
    assert_eq!(metric(&server, r#"hydit_orders_total{outcome="cancelled"} "#), 1.0);
}

#[test]
fn a_client_that_goes_away_ends_its_work() {
    let server = Server::start(&["--exact"]);
    let body = json!({ "prompt": "猫", "steps": 100 }).to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    under_way(&server);
    drop(stream);
    // One that was under way, and what a busy machine takes to tell the server.
    let more = more(&server, steps(&server));
    assert!(more <= 20.0, "{more} steps");
    assert_eq!(metric(&server, r#"hydit_orders_total{outcome="cancelled"} "#), 1.0);
}

#[test]
fn how_far_the_core_moves_between_two_runs_is_counted() {
    let server = Server::start(&[]);
    let body = json!({ "prompt": "猫", "steps": 6, "cache": "N2-1000-0" });
    assert_eq!(server.post("/v1/images/generations", &body).status, 200);
    let runs = metric(&server, "hydit_deep_core_runs_total ");
    assert_eq!(metric(&server, "hydit_cache_drift_count "), runs - 1.0);
    assert!(metric(&server, "hydit_cache_drift_sum ") > 0.0);
}
