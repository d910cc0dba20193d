//! What is not wanted any more is not drawn on: counted in steps, by the server itself.

use std::time::Instant;

use serde_json::json;

use super::harness::{PATIENCE, Server};

fn steps(server: &Server) -> f64 {
    server.metric("hydit_steps_total")
}

/// Waits until some steps of a picture of a hundred were taken.
fn under_way(server: &Server) {
    let start = Instant::now();
    while steps(server) < 5.0 {
        assert!(start.elapsed() < PATIENCE, "it does not begin");
    }
}

/// Draws a picture of two steps, which waits until the worker is free; gives the steps since
/// `before` that were not its own.
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
    assert_eq!(server.metric(r#"hydit_orders_total{outcome="cancelled"}"#), 1.0);
}

#[test]
fn a_client_that_goes_away_ends_its_work() {
    let server = Server::start(&["--exact"]);
    let stream = server.send("/v1/images/generations", &json!({ "prompt": "猫", "steps": 100 }));
    under_way(&server);
    drop(stream);
    // One that was under way, and what a busy machine takes to tell the server.
    let more = more(&server, steps(&server));
    assert!(more <= 20.0, "{more} steps");
    assert_eq!(server.metric(r#"hydit_orders_total{outcome="cancelled"}"#), 1.0);
}

#[test]
fn how_far_the_core_moves_between_two_runs_is_counted() {
    let server = Server::start(&[]);
    let body = json!({ "prompt": "猫", "steps": 6, "cache": "N2-1000-0" });
    assert_eq!(server.post("/v1/images/generations", &body).status, 200);
    let runs = server.metric("hydit_deep_core_runs_total");
    assert_eq!(server.metric("hydit_cache_drift_count"), runs - 1.0);
    assert!(server.metric("hydit_cache_drift_sum") > 0.0);
}
