//! What signals do to a server, at every time of its life.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::harness::{PATIENCE, Server, command, model, until as wait_until};
use super::job_client::{cat, create, done, job, until};

/// A server that `env` has started with this option.
fn start_by_env(option: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let mut serve = command(&["--listen", "127.0.0.1:0", "--drain-timeout", "1h"]);
    serve.arg("--model").arg(model()).arg("--data-dir").arg(&folder);
    let mut env = Command::new("env");
    env.arg(option).arg(serve.get_program()).args(serve.get_args());
    env.current_dir(serve.get_current_dir().expect("a folder"));
    for (name, _) in serve.get_envs() {
        env.env_remove(name);
    }
    let server = Server::spawn(env, &folder);
    server.wait_until_ready();
    server
}

#[test]
fn a_terminal_that_hangs_up_ends_it_as_sigterm_does() {
    // The tests themselves may run where it is ignored.
    let mut server = start_by_env("--default-signal=HUP");
    let name = create(&server, &cat(1, 100));
    until(&server, &name, &["running"]);
    server.signal(Signal::HUP);
    server.wait_for_log("SIGHUP received: draining");
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let data = server.data_dir.clone();
    let server = Server::start_in(&data, &[]);
    assert_eq!(job(&server, &name)["status"], "done", "what ran was finished");
}

#[test]
fn started_to_outlive_its_terminal_it_does() {
    let mut server = start_by_env("--ignore-signal=HUP");
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM received: draining");
    assert_eq!(server.wait(PATIENCE).expect("it ends").code(), Some(0), "{}", server.log());
}

#[test]
fn signals_that_mean_nothing_to_it_are_passed_over() {
    let mut server = Server::start(&[]);
    let name = create(&server, &cat(1, 100));
    until(&server, &name, &["running"]);
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::XFSZ,
        Signal::PIPE,
    ] {
        server.signal(signal);
        assert_eq!(server.get("/health").status, 200, "{signal:?}");
    }
    done(&server, &name);
    assert_eq!(server.stop(), 0, "{}", server.log());
}

#[test]
fn a_server_that_is_still_loading_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut never_warm = command(&["--listen", "127.0.0.1:0", "--drain-timeout", "1h"]);
    never_warm.arg("--model").arg(model()).arg("--data-dir").arg(folder.path());
    never_warm.env("FAILPOINTS", "core=pause");
    let mut server = Server::spawn(never_warm, folder.path());
    assert_eq!(server.get("/ready").status, 503);
    server.signal(Signal::TERM);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

/// Five hundred times in `soak`; here a few.
#[test]
fn two_signals_one_after_the_other_fail_no_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--exact", "--drain-timeout", "1h"];
    for (round, second) in [Signal::TERM, Signal::INT, Signal::TERM].into_iter().enumerate() {
        let mut server = Server::start_in(folder.path(), &flags);
        let name = create(&server, &cat(1, 100));
        until(&server, &name, &["running"]);
        server.signal(Signal::TERM);
        thread::sleep(Duration::from_millis(10 * round as u64));
        server.signal(second);
        server.wait(PATIENCE).expect("it ends");
        let server = Server::start_in(folder.path(), &flags);
        done(&server, &name);
    }
}

#[test]
fn a_server_that_was_stopped_for_a_while_fails_nothing() {
    let server = Server::start(&[]);
    let name = create(&server, &cat(1, 100));
    until(&server, &name, &["running"]);
    let direct = server.send("/v1/images/generations", &json!({ "prompt": "a cat", "steps": 4 }));
    server.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(4)); // more than a graph call may take
    server.signal(Signal::CONT);
    done(&server, &name);
    drop(direct);
    wait_until("it is not ready", || server.get("/ready").status == 200);
    assert_eq!(server.metric(r#"hydit_orders_total{outcome="failed"}"#), 0.0);
    assert!(!server.log().contains("stuck"), "{}", server.log());
}
