//! Jobs over kills, restarts and time: what is kept, and how long.

use std::path::Path;

use hydit_graphs::Precision;
use hydit_testing::emoji;
use redb::{Database, ReadableTable, TableDefinition};
use rustix::process::Signal;
use serde_json::json;

use super::harness::{self, PATIENCE, Server, command, model};
use super::job_client::{Events, cat, create, done, ids, job, long, path, picture, until};
use crate::program;

#[test]
fn sigterm_finishes_what_runs_and_keeps_what_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &["--exact", "--drain-timeout", "5m"]);
    let names: Vec<String> = (0..4).map(|seed| create(&server, &long(seed))).collect();
    until(&server, &names[0], &["running"]);
    let mut waits = Events::of(&server, &names[3]);
    assert_eq!(waits.next().expect("an event").name, "queued");
    server.signal(Signal::TERM);
    assert_eq!(waits.last().map(|event| event.name), None, "the stream ends without an end");
    assert_eq!(server.wait(PATIENCE).expect("it ends").code(), Some(0), "{}", server.log());

    let server = Server::start_in(folder.path(), &["--exact"]);
    assert_eq!(job(&server, &names[0])["status"], "done", "what ran was finished");
    let mut finished: Vec<f64> = Vec::new();
    for name in &names {
        let end = done(&server, name)["finished_at"].as_f64().expect("a time");
        assert!(finished.last().is_none_or(|last| *last <= end), "they keep their order");
        finished.push(end);
        assert_eq!(picture(&server, name, 3).status, 200);
    }
}

#[test]
fn a_reader_from_before_a_restart_reads_the_new_run_from_its_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &[]);
    let name = create(&server, &long(5));
    let mut before = Events::of(&server, &name).filter(|event| event.name == "step");
    let last = before.by_ref().take(5).last().expect("a step").id;
    server.kill();
    let server = Server::start_in(folder.path(), &[]);
    let steps = Events::after(&server, &name, Some(&last)).filter(|event| event.name == "step");
    assert_eq!(steps.count(), 100, "it is drawn from the start, so all of it is told");
}

#[test]
fn pictures_go_when_there_are_too_many_bytes_but_never_the_newest() {
    let server = Server::start(&["--keep-bytes", "1B"]);
    let old = create(&server, &cat(1, 1));
    done(&server, &old);
    assert_eq!(picture(&server, &old, 0).status, 200);
    let new = create(&server, &cat(2, 1));
    done(&server, &new);
    harness::until("the older picture stays", || picture(&server, &old, 0).status == 410);
    assert_eq!(picture(&server, &old, 0).code(), "picture_gone");
    assert_eq!(job(&server, &old)["result"]["pictures"][0]["kept"], false);
    assert_eq!(job(&server, &new)["result"]["pictures"][0]["kept"], true);
    assert_eq!(picture(&server, &new, 0).status, 200);
}

#[test]
fn another_server_in_the_same_folder_is_refused() {
    let server = Server::start(&[]);
    let folder = server.data_dir.to_str().expect("a plain path");
    let model = model().to_str().expect("a plain path");
    let second = command(&["--listen", "127.0.0.1:0", "--model", model, "--data-dir", folder]);
    let second = { second }.output().expect("it ends");
    let text = program::text(&second.stderr);
    assert!(!second.status.success());
    assert!(text.contains("jobs.redb: another process uses it"), "{text}");
}

#[test]
fn a_damaged_store_stops_the_start_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("jobs.redb"), [b'x'; 5000]).expect("it is written");
    let model = model().to_str().expect("a plain path");
    let data = folder.path().to_str().expect("a plain path");
    let mut broken = command(&["--listen", "127.0.0.1:0", "--model", model, "--data-dir", data]);
    let broken = broken.output().expect("it ends");
    let text = program::text(&broken.stderr);
    assert!(!broken.status.success());
    assert!(text.contains("jobs.redb: not a store of jobs, or a damaged one"), "{text}");
}

/// Changes the records of jobs in a store that no server has open.
fn rewrite(data_dir: &Path, change: impl Fn(&str) -> Option<String>) {
    let jobs: TableDefinition<u128, &[u8]> = TableDefinition::new("jobs");
    let store = Database::open(data_dir.join("jobs.redb")).expect("it opens");
    let transaction = store.begin_write().expect("a transaction");
    {
        let mut jobs = transaction.open_table(jobs).expect("the records");
        let records: Vec<(u128, String)> = jobs
            .iter()
            .expect("the records")
            .map(|entry| entry.expect("a record"))
            .map(|(id, json)| (id.value(), program::text(json.value())))
            .collect();
        for (id, json) in records {
            if let Some(json) = change(&json) {
                jobs.insert(id, json.as_bytes()).expect("room");
            }
        }
    }
    transaction.commit().expect("room");
}

#[test]
fn a_job_that_this_version_cannot_read_fails_by_name_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &["--exact"]);
    let names = [1, 2, 3, 4].map(|seed| create(&server, &cat(seed, 100)));
    until(&server, &names[0], &["running"]);
    server.kill();
    rewrite(folder.path(), |json| {
        if json.contains(&names[1]) {
            return Some(json.replace(r#""cache_policy":"off""#, r#""cache_policy":"dream:7""#));
        }
        json.contains(&names[2]).then(|| json[..40].to_string())
    });

    let server = Server::start_in(folder.path(), &["--exact"]);
    for (name, code, words) in [
        (&names[1], "cache_unknown", "cache policy \"dream:7\" is not understood"),
        (&names[2], "record_unreadable", "this version cannot read the job's record"),
    ] {
        let failed = until(&server, name, &["failed"]);
        assert_eq!(failed["error"]["code"], code);
        let message = failed["error"]["message"].as_str().expect("a text");
        assert!(message.contains(words), "{message}");
        assert!(server.log().contains(name), "{}", server.log());
    }
    assert_eq!(job(&server, &names[1])["request"]["cache"], "dream:7");
    let mut listed = ids(&server.get("/v1/jobs").json());
    listed.reverse();
    assert_eq!(listed, names);
    for name in [&names[0], &names[3]] {
        done(&server, name);
    }
}

#[test]
fn a_job_whose_model_was_exported_anew_fails_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |model: &std::path::Path, flag: &str| {
        let flag = format!("{flag}={}", model.display());
        let mut command = command(&["--listen", "127.0.0.1:0", "--exact", "--model", &flag]);
        command.arg("--data-dir").arg(folder.path());
        Server::spawn(command, folder.path())
    };
    let mut server = start(model(), "m");
    server.wait_until_ready();
    let [runs, waits] = [1, 2].map(|seed| create(&server, &long(seed)));
    until(&server, &runs, &["running"]);
    server.kill();
    let server = start(&emoji::shared("emoji", 2, Precision::Fp32), "m");
    for name in [&runs, &waits] {
        let failed = until(&server, name, &["failed"]);
        assert_eq!(
            (&failed["status"], &failed["error"]["code"]),
            (&json!("failed"), &json!("model_changed"))
        );
        let message = failed["error"]["message"].as_str().expect("a text");
        assert!(message.contains("exported anew"), "{message}");
    }
}

/// What a kill leaves is in `soak`, a hundred times; here a few.
#[test]
fn a_kill_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--exact"];
    let mut solo = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for round in 0..4u64 {
        let mut server = Server::start_in(folder.path(), &flags);
        if round == 0 {
            for seed in 0..9 {
                let name = create(&server, &cat(seed, 6));
                done(&server, &name);
                solo.push(picture(&server, &name, 0).body);
                assert_eq!(server.delete(&path(&name)).status, 204);
            }
        }
        if round < 3 {
            for seed in 3 * round..3 * round + 3 {
                names.push(create(&server, &cat(seed, 6)));
            }
            match round {
                0 => {}
                1 => drop(until(&server, &names[3], &["running", "done"])),
                _ => drop(done(&server, &names[6])),
            }
            server.kill();
            continue;
        }
        for (name, solo) in names.iter().zip(&solo) {
            assert_eq!(done(&server, name)["request"]["steps"], 6);
            assert!(picture(&server, name, 0).body == *solo, "as drawn alone");
        }
        let mut listed = ids(&server.get("/v1/jobs").json());
        listed.reverse();
        assert_eq!(listed, names, "no job is there that was not accepted");
    }
}
