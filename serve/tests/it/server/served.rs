//! A whole server in the process of the test.

use std::time::Duration;

use serde_json::json;

use super::harness::{Answer, agent};
use super::in_process::{Served, beside, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_the_process_draws_and_ends_when_it_is_told_to() {
    let server = Served::start(settings()).await;
    let post = agent().post(server.at("/v1/images/generations"));
    let body = json!({ "prompt": "a cat", "steps": 2, "cache": "N2-1000-0" });
    let drawn = beside(move || Answer::of(post.send_json(&body).expect("it answers"))).await;
    assert_eq!(drawn.status, 200, "{}", drawn.text());
    assert_eq!(drawn.json()["hydit"]["core_runs"], 1);

    let ended = tokio::time::timeout(Duration::from_secs(60), server.shut_down()).await;
    ended.expect("it ends").expect("no panic").expect("nothing was cut off");
}
