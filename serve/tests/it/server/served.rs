//! A whole server in the process of the test.

use std::time::Duration;

use hydit_serve::server::settings::Settings;
use hydit_serve::server::{App, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::harness::{Answer, agent};
use super::in_process::settings;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_the_process_draws_and_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().to_path_buf();
    let app = App::open(Settings { data_dir, ..settings() }).expect("it opens");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (shutdown, told) = oneshot::channel::<()>();
    let scheduler = app.scheduler.clone();
    let server = tokio::spawn(serve(listener, app, async { told.await.expect("it is told") }));

    scheduler.started().await.expect("it warms up");
    let drawn = tokio::task::spawn_blocking(move || {
        let body = json!({ "prompt": "a cat", "steps": 2, "cache": "N2-1000-0" });
        let post = agent().post(format!("{url}/v1/images/generations"));
        Answer::of(post.send_json(&body).expect("it answers"))
    });
    let drawn = drawn.await.expect("an answer");
    assert_eq!(drawn.status, 200, "{}", drawn.text());
    assert_eq!(drawn.json()["hydit"]["core_runs"], 1);

    shutdown.send(()).expect("it listens");
    let ended = tokio::time::timeout(Duration::from_secs(60), server).await;
    ended.expect("it ends").expect("no panic").expect("nothing was cut off");
}
