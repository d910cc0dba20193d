//! What the server tells its operators: metrics and log lines.

use std::collections::BTreeSet;

use hydit::timing::Stage;
use serde_json::json;
use ureq::http::Request;

use super::harness::{Server, agent};

const KEY: &str = "0123456789abcdef-canary";

/// Samples by series.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("a value").0).collect()
}

#[test]
fn every_metric_is_there_from_the_start_with_help_and_type() {
    let server = Server::start(&[]);
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let series = series(&text);
    for expected in [
        "hydit_queue_depth",
        "hydit_connections",
        "hydit_models_loaded",
        "hydit_pictures_total",
        "hydit_steps_total",
        "hydit_deep_core_runs_total",
        "hydit_deep_core_skips_total",
        "hydit_engine_restarts_total",
        "hydit_jobs_unstored",
        "hydit_cache_drift_count",
        "hydit_batch_pictures_count",
        "process_resident_memory_bytes",
        r#"hydit_orders_total{outcome="done"}"#,
        r#"hydit_orders_total{outcome="refused"}"#,
        r#"hydit_stage_duration_seconds_count{stage="core"}"#,
        r#"hydit_stage_duration_seconds_bucket{stage="vae",le="+Inf"}"#,
        r#"hydit_requests_total{route="/version",status="200"}"#,
        r#"hydit_request_duration_seconds_count{route="/version"}"#,
    ] {
        assert!(series.contains(expected), "{expected} in {text}");
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    assert!(text.contains("\nhydit_models_loaded 1\n"), "{text}");
    let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let memory: f64 = memory.expect("a line").parse().expect("a number");
    assert!(memory > 1e6, "{memory}");
}

#[test]
fn requests_are_counted_by_route_and_status_and_clients_cannot_add_series() {
    let server = Server::start(&[]);
    let before = server.get("/metrics").text();
    for n in 0..300 {
        server.get(&format!("/nowhere/{n}"));
        server.get(&format!("/version?n={n}"));
    }
    for n in 0..50 {
        let method = format!("METHOD{n}");
        let ask =
            format!("{method} /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(server.raw(ask.as_bytes()).starts_with("HTTP/1.1 405 "));
    }
    let after = server.get("/metrics").text();
    for (line, count) in [
        (r#"hydit_requests_total{route="other",status="404"}"#, 300),
        (r#"hydit_requests_total{route="/version",status="200"}"#, 300),
        (r#"hydit_requests_total{route="/health",status="405"}"#, 50),
    ] {
        assert!(after.contains(&format!("\n{line} {count}\n")), "{line} {count} in {after}");
    }
    let (before, after) = (series(&before), series(&after));
    // A counter and a histogram for each route, a histogram for each stage, and what is of neither.
    let document = server.get("/openapi.json").json();
    let routes = document["paths"].as_object().expect("paths").len();
    let most = 12 * routes + 14 * Stage::ALL.len() + 100;
    assert!(after.len() < most, "{} series, {routes} routes", after.len());
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.iter().all(|name| name.contains("hydit_request")), "{new:?}");
    assert!(new.len() < 60, "{new:?}");
}

#[test]
fn a_request_has_one_line_with_what_matters_and_no_secret() {
    let server = Server::start(&["--api-key", &format!("mary={KEY}")]);
    let ask = |id: &str, path: &str| {
        let request = Request::get(server.at(path))
            .header("authorization", format!("Bearer {KEY}"))
            .header("x-request-id", id)
            .header("user-agent", "canary-agent\u{9b}31m");
        let answer = agent().run(request.body(()).expect("a request"));
        assert!(answer.is_ok(), "{answer:?}");
    };
    ask("one", "/version?prompt=canary-query");
    ask("two", "/canary-path%1b%5b31m");
    let line = server.wait_for_log("id=one ");
    for words in [r#"method="GET""#, r#"route="/version""#, r#"client="mary""#, "status=200"] {
        assert!(line.contains(words), "{words} in {line}");
    }
    server.wait_for_log("id=two ");
    let log = server.log();
    assert_eq!(log.lines().filter(|line| line.contains("id=one ")).count(), 1, "{log}");
    assert!(!log.contains("canary"), "{log}");
    assert!(!log.chars().any(|letter| letter.is_control() && letter != '\n'), "{log:?}");
}

#[test]
fn json_lines_are_objects_with_the_same() {
    let server = Server::start(&["--log", "json"]);
    let request = Request::get(server.at("/version")).header("x-request-id", "one");
    agent().run(request.body(()).expect("a request")).expect("it answers");
    let line = server.wait_for_log(r#""id":"one""#);
    let line: serde_json::Value = serde_json::from_str(&line).expect("an object");
    assert_eq!((&line["status"], &line["message"]), (&200.into(), &"answered".into()));
    assert_eq!(line["span"]["route"], "/version");
    assert_eq!(line["span"]["client"], "anonymous");
    for line in server.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("every line is an object");
    }
}

#[test]
fn a_prompt_is_logged_by_its_length_and_its_text_only_on_request() {
    let prompt = "猫\u{1b}[31m\r\ncanary\u{202e}\u{2028}";
    let ask = |server: &Server| {
        for path in ["/v1/images/generations", "/v1/jobs"] {
            let answer = server.post(path, &json!({ "prompt": prompt, "steps": 2 }));
            assert!([200, 202].contains(&answer.status), "{answer:?}");
            let line = server.wait_for_log(&format!("route=\"{path}\""));
            assert!(line.contains("prompt_chars=16"), "{line}");
        }
        let log = server.log();
        let plain = |letter: char| !letter.is_control() && !"\u{202e}\u{2028}".contains(letter);
        assert!(log.chars().all(|letter| plain(letter) || letter == '\n'), "{log:?}");
        log
    };
    let silent = Server::start(&["--log-level", "trace"]);
    let log = ask(&silent);
    assert!(!log.contains("canary"), "{log}");
    let log = ask(&Server::start(&["--log-prompts"]));
    let told = r#"prompt="猫\u{1b}[31m\r\ncanary\u{202e}\u{2028}""#;
    assert_eq!(log.lines().filter(|line| line.contains(told)).count(), 2, "{log}");
    let json = Server::start(&["--log-prompts", "--log", "json"]);
    let body = json!({ "prompt": format!("{prompt}\u{9b}\u{e0041}\u{7f}"), "steps": 1 });
    assert_eq!(json.post("/v1/images/generations", &body).status, 200);
    let line = json.wait_for_log("canary");
    let read: serde_json::Value = serde_json::from_str(&line).expect("an object");
    assert_eq!(read["span"]["prompt"], body["prompt"]);
    let plain =
        |letter: char| !letter.is_control() && !"\u{202e}\u{2028}\u{e0041}".contains(letter);
    assert!(line.chars().all(plain), "{line:?}");
}

#[test]
fn at_debug_every_stage_of_every_step_has_a_line_with_its_time() {
    let server = Server::start(&["--log-level", "hydit=debug"]);
    server.wait_for_log("loaded and warm");
    let before = server.log().matches("stage{name=\"core\"}").count();
    let cat = json!({ "prompt": "猫", "steps": 3, "cache": "off" });
    assert_eq!(server.post("/v1/images/generations", &cat).status, 200);
    server.wait_for_log("answered");
    let log = server.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("stage{name=\"core\"}")).skip(before).collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines.iter().all(|line| line.contains("time.busy=")), "{lines:?}");
    let quiet = Server::start(&[]);
    assert_eq!(quiet.post("/v1/images/generations", &cat).status, 200);
    quiet.wait_for_log("answered");
    assert!(!quiet.log().contains("stage{"), "{}", quiet.log());
}
