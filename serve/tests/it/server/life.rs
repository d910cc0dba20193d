//! A server from its start to its end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, ScopedJoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::harness::{Answer, PATIENCE, Server, agent, command, model, until};

/// A request whose body has begun: it runs until the rest comes.
const BEGUN: &[u8] = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab";

fn begun(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(BEGUN).expect("it reads");
    // The server has it once it has answered a later one.
    assert_eq!(server.get("/health").status, 200);
    stream
}

#[test]
fn a_server_starts_answers_and_ends_at_sigterm() {
    let mut server = Server::start(&[]);
    let health = server.get("/health");
    assert_eq!((health.status, health.text().as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(server.get("/ready").status, 200);
    assert_eq!(server.stop(), 0, "{}", server.log());
}

#[test]
fn requests_that_run_are_answered_and_no_new_ones_are_taken() {
    let mut server = Server::start(&[]);
    let mut running = begun(&server);
    let idle = server.connect();
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM received: draining");
    until("new connections are taken", || TcpStream::connect(server.address).is_err());
    running.write_all(b"cd").expect("it reads");
    let mut answer = String::new();
    running.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    drop(idle);
}

#[test]
fn what_does_not_end_in_time_is_cut_off_and_told() {
    let mut server = Server::start(&["--drain-timeout", "10ms"]);
    let mut running = begun(&server);
    server.signal(Signal::INT);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let told = "error: cut off after --drain-timeout 10 ms: 1 connections";
    assert!(server.log().contains(told), "{}", server.log());
    let mut answer = String::new();
    let _ = running.read_to_string(&mut answer);
    assert_eq!(answer, "");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Server::start(&["--drain-timeout", "1h"]);
        let _running = begun(&server);
        server.signal(Signal::TERM);
        server.wait_for_log("SIGTERM received: draining");
        server.signal(signal);
        let status = server.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(code), "{}", server.log());
        assert!(server.log().contains("received again: quitting at once"), "{}", server.log());
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).expect("a folder");
    for file in std::fs::read_dir(model()).expect("the model") {
        let file = file.expect("a file").path();
        let name = file.file_name().expect("a name");
        let copied = std::fs::copy(&file, broken.join(name));
        copied.expect("a copy");
    }
    std::fs::write(broken.join("deep-core.onnx.data"), b"").expect("it can be written");

    let (good, empty) = (model().to_path_buf(), folder.path().to_path_buf());
    let free = "127.0.0.1:0".to_string();
    let cases = [
        (&good, &port, "error: --listen 127.0.0.1:", "in use"),
        (&empty, &free, "error: ", "manifest.yaml"),
        (&broken, &free, "error: ", "deep-core.onnx.data"),
    ];
    for (model, listen, first, second) in cases {
        let mut command = command(&["--listen", listen, "--log-level", "error"]);
        let data = folder.path().join("data");
        let output = command.arg("--model").arg(model).arg("--data-dir").arg(&data).output();
        let output = output.expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let last = told.lines().last().expect("a line");
        assert!(last.starts_with(first) && last.contains(second), "{told}");
    }
}

#[test]
fn a_host_name_is_listened_on_at_all_its_addresses() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command(&["--listen", "localhost:0", "--model"]);
    command.arg(model()).arg("--data-dir").arg(folder.path());
    let mut server = Server::spawn(command, folder.path());
    server.wait_until_ready();
    let out = server.out();
    let addresses: Vec<SocketAddr> = out
        .lines()
        .filter_map(|line| line.strip_prefix("listening on http://"))
        .map(|address| address.parse().expect("an address"))
        .collect();
    assert!(addresses[0].is_ipv4(), "{out}");
    for address in &addresses {
        assert!(address.ip().is_loopback() && address.port() == addresses[0].port(), "{out}");
        let health = agent().get(format!("http://{address}/health")).call();
        assert_eq!(Answer::of(health.expect("it answers")).status, 200);
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_server_whose_output_nobody_reads_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let mut command = command(&["--listen", &address.to_string(), "--model"]);
    command.arg(model()).arg("--data-dir").arg(folder.path());
    let mut child = command.stdout(closed()).stderr(closed()).spawn().expect("it starts");
    let ready = || agent().get(format!("http://{address}/ready")).call();
    until("it is ready", || ready().is_ok_and(|answer| answer.status() == 200));
    let pid = Pid::from_raw(child.id() as i32).expect("a process");
    kill_process(pid, Signal::TERM).expect("it is our child");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// Waits until more than `fewer` pictures were drawn together, and `waiting` orders wait.
fn wait_for_load(server: &Server, fewer: usize, waiting: usize) {
    let small = format!("hydit_batch_pictures_bucket{{le=\"{fewer}\"}}");
    until("too few are drawn together", || {
        server.metric("hydit_batch_pictures_count") > server.metric(&small)
    });
    until("others wait", || server.metric("hydit_queue_depth") == waiting as f64);
}

fn draw(server: &Server, seed: u64) -> Answer {
    let body = json!({ "prompt": "a cat", "seed": seed, "steps": 40 });
    server.post("/v1/images/generations", &body)
}

fn drawings<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    server: &'scope Server,
    count: u64,
) -> Vec<ScopedJoinHandle<'scope, Answer>> {
    (0..count).map(|seed| scope.spawn(move || draw(server, seed))).collect()
}

fn statuses(drawings: Vec<ScopedJoinHandle<'_, Answer>>) -> Vec<u16> {
    let answers = drawings.into_iter().map(|drawing| drawing.join().expect("it answers"));
    let statuses = answers.map(|answer| {
        if answer.status != 200 {
            assert_eq!(answer.code(), "shutting_down");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 0));
        }
        answer.status
    });
    let mut statuses: Vec<u16> = statuses.collect();
    statuses.sort_unstable();
    statuses
}

#[test]
fn pictures_that_are_drawn_are_finished_and_those_that_wait_are_sent_away() {
    let mut server = Server::start(&["--max-batch", "5", "--drain-timeout", "5m"]);
    let answered = thread::scope(|scope| {
        let all = drawings(scope, &server, 10);
        wait_for_load(&server, 4, 5);
        server.signal(Signal::TERM);
        statuses(all)
    });
    assert_eq!(answered, [[200; 5], [503; 5]].concat());
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn while_it_drains_jobs_can_be_watched_and_nothing_new_is_drawn() {
    let mut server = Server::start(&["--drain-timeout", "5m"]);
    let long = json!({ "prompt": "a cat", "steps": 50, "n": 4 });
    let path = format!(
        "/v1/jobs/{}",
        server.post("/v1/jobs", &long).json()["id"].as_str().expect("an id")
    );
    until("it is begun", || server.get(&path).json()["status"] == "running");
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM received: draining");
    until("it is ready", || server.get("/ready").status == 503);
    let refused = [
        server.get("/ready"),
        server.get("/v2/health/ready"),
        server.post("/v1/jobs", &long),
        server.post("/v1/images/generations", &long),
    ];
    for answer in refused {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 0));
        assert_eq!(answer.header("connection"), "close");
    }
    let watched = server.get(&path);
    assert_eq!((watched.status, watched.header("connection")), (200, "close"));
    assert_eq!(watched.json()["status"], "running");
    let events = server.get(&format!("{path}/events")).text();
    assert!(events.contains("event: done"), "{events}");
    let status = server.wait(PATIENCE).expect("it ends with its last job");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn pictures_that_take_too_long_to_drain_are_sent_away() {
    let mut server = Server::start(&["--drain-timeout", "50ms", "--max-batch", "2"]);
    let answered = thread::scope(|scope| {
        let all = drawings(scope, &server, 3);
        wait_for_load(&server, 1, 1);
        server.signal(Signal::TERM);
        statuses(all)
    });
    assert_eq!(answered, [503; 3]);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", server.log());
}

#[test]
fn a_second_signal_does_not_wait_for_a_graph() {
    let mut server = Server::start(&["--max-batch", "1", "--drain-timeout", "1h"]);
    let (mut streams, body) = (Vec::new(), r#"{"prompt":"a cat","steps":100,"n":4}"#);
    for _ in 0..2 {
        let head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Type: application/json\r\n";
        let mut stream = server.connect();
        let ask = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(ask.as_bytes()).expect("it reads");
        streams.push(stream);
    }
    until("nothing is drawn", || server.metric("hydit_batch_pictures_count") >= 1.0);
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM received: draining");
    server.signal(Signal::TERM);
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(143), "{}", server.log());
}
