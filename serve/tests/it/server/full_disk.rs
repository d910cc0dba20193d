//! A disk without room: a limit on the size of files stands in for it.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::harness::{Server, command, model, until};
use super::job_client::{cat, create, done, job, picture, post};
use crate::program;

/// Lets no file of the server grow beyond so many bytes.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = i32::try_from(server.pid).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).expect("it is our child");
}

#[test]
fn jobs_wait_for_room_and_no_more_are_taken_meanwhile() {
    let server = Server::start(&[]);
    let first = create(&server, &cat(1, 1));
    done(&server, &first);
    let store = server.data_dir.join("jobs.redb");
    limit_files(&server, Some(fs::metadata(&store).expect("it is there").len()));
    let mut large = cat(2, 1);
    (large["n"], large["size"]) = (json!(4), json!("512x512"));
    let name = create(&server, &large);
    until("it was stored", || server.get("/ready").status == 503);

    assert_eq!(server.metric("hydit_jobs_unstored"), 1.0);
    let ready = server.get("/ready").json();
    let why = ready["error"]["message"].as_str().expect("a text");
    assert!(why.contains("cannot be stored"), "{why}");
    let refused = post(&server, &cat(3, 1), &[]);
    assert_eq!((refused.status, refused.code().as_str()), (507, "disk_full"));
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 0));
    assert_eq!(job(&server, &name)["status"], "running", "only what is stored is told");
    assert_eq!(picture(&server, &first, 0).status, 200);
    assert_eq!(server.post("/v1/images/generations", &cat(4, 1)).status, 200);

    let [model, data] = [model(), &server.data_dir].map(|path| path.to_str().expect("plain"));
    let second = command(&["--listen", "127.0.0.1:0", "--model", model, "--data-dir", data]);
    let second = { second }.output().expect("it ends");
    let text = program::text(&second.stderr);
    assert!(text.contains("jobs.redb: another process uses it"), "{text}");

    limit_files(&server, None);
    done(&server, &name);
    until("it is not ready", || server.get("/ready").status == 200);
    assert_eq!(server.metric("hydit_jobs_unstored"), 0.0);
    done(&server, &create(&server, &cat(5, 1)));
}
