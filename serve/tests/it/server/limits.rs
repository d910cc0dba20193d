//! Connections and requests within their limits, but for those of time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::harness::{Answer, PATIENCE, Server, agent, until};

fn request(path: &str, more: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n{body}").into_bytes()
}

/// Status, and the word for programs in the body.
fn told(answer: &str) -> (&str, String) {
    let status = answer.get(9..12).unwrap_or("none");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let error: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    (status, error["error"]["code"].as_str().unwrap_or("none").to_string())
}

#[test]
fn bodies_are_bounded_in_bytes_and_read_as_they_are() {
    // A byte of an image may take four in base64.
    let server = Server::start(&["--max-body", "1020B", "--max-image", "1B"]);
    let small = "x".repeat(1 << 10);
    let large = "x".repeat((1 << 10) + 1);
    let length = |body: &str| format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n";
    let chunks = "100\r\n".to_string() + &"x".repeat(256) + "\r\n";
    let many = chunks.repeat(5) + "0\r\n\r\n";
    let few = chunks.repeat(4) + "0\r\n\r\n";
    let cases = [
        (request("/v1/jobs", &length(&small), &small), ("415", "unsupported_content_type")),
        (request("/v1/jobs", &length(&large), &large), ("413", "body_too_large")),
        (request("/v1/jobs", "Content-Length: 99999999999\r\n", ""), ("413", "body_too_large")),
        (request("/v1/jobs", chunked, &few), ("415", "unsupported_content_type")),
        (request("/v1/jobs", chunked, &many), ("413", "body_too_large")),
        (request("/v1/jobs", chunked, "zz\r\n"), ("400", "body_broken")),
        (
            request(
                "/v1/jobs",
                "Content-Encoding: gzip\r\nContent-Length: 0\r\nConnection: close\r\n",
                "",
            ),
            ("415", "content_encoding"),
        ),
    ];
    for (request, (status, code)) in cases {
        let answer = server.raw(&request);
        assert_eq!(told(&answer), (status, code.to_string()), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[test]
fn where_nothing_is_that_is_told_whatever_the_body() {
    let server = Server::start(&["--max-body", "1KiB", "--body-timeout", "500ms"]);
    for (path, words) in [
        ("/nowhere", "there is no such path"),
        ("/v1/images/variations", "send the image to /v1/images/edits"),
        ("/v1/images/variations?x", "send the image to /v1/images/edits"),
    ] {
        for more in ["Content-Length: 20000000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let answer = server.raw(&request(path, more, "begun"));
            assert_eq!(told(&answer), ("404", "not_found".to_string()), "{answer}");
            assert!(answer.contains(words), "{answer}");
            assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
}

#[test]
fn a_client_that_is_refused_while_it_sends_gets_its_answer() {
    let key = ["--api-key", "0123456789abcdef"];
    let server = Server::start(
        &[&key[..], &["--allowed-host", "example.org", "--max-image", "1B"]].concat(),
    );
    let large = "x".repeat(12 << 20);
    let ask = |line: &str, fields: &str| {
        let length = format!("Content-Length: {}\r\n", large.len());
        server.raw(format!("{line} HTTP/1.1\r\n{fields}{length}\r\n{large}").as_bytes())
    };
    let host = "Host: localhost\r\n";
    let key = "Authorization: Bearer 0123456789abcdef\r\n";
    for (line, fields, status) in [
        ("POST /v1/jobs", format!("{host}{key}"), "413"),
        ("POST /v1/images/edits", format!("{host}{key}"), "413"),
        ("POST /v1/images/variations", format!("{host}{key}"), "404"),
        ("DELETE /v1/jobs", format!("{host}{key}"), "413"),
        ("POST /v1/jobs", host.to_string(), "401"),
        ("POST /v1/jobs", format!("Host: evil.example\r\n{key}"), "421"),
        ("POST /v1/jobs", format!("{host}{host}{key}"), "400"),
        ("POST /v1/jobs", format!("{host}{key}Content-Encoding: gzip\r\n"), "415"),
        ("POST /v1/jobs", format!("{host}{key}Origin: https://evil.example\r\n"), "403"),
    ] {
        let answer = ask(line, &fields);
        assert_eq!(told(&answer).0, status, "{line} {fields}: {answer}");
        assert!(answer.ends_with('}'), "{line} {fields}: {answer}");
    }
    // Who waits to be asked for the body is not.
    let more = format!("{key}Content-Length: 20000000\r\nExpect: 100-continue\r\n");
    let answer = server.raw(&request("/v1/jobs", &more, ""));
    assert_eq!(told(&answer).0, "413", "{answer}");
}

#[test]
fn headers_are_bounded_in_bytes_and_number() {
    let server = Server::start(&[]);
    let get = |more: &str| {
        let request =
            format!("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
        server.raw(request.as_bytes())
    };
    assert!(get(&format!("X-A: {}\r\n", "a".repeat(15 << 10))).starts_with("HTTP/1.1 200 "));
    assert!(get(&format!("X-A: {}\r\n", "a".repeat(17 << 10))).starts_with("HTTP/1.1 431 "));
    assert!(get(&"X-A: a\r\n".repeat(60)).starts_with("HTTP/1.1 200 "));
    assert!(get(&"X-A: a\r\n".repeat(65)).starts_with("HTTP/1.1 431 "));
    let path = "a".repeat(17 << 10);
    let answer = server.raw(format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn many_silent_and_slow_connections_harm_nobody_and_leave_nothing() {
    let server = Server::start(&["--header-timeout", "1s"]);
    let asks: [&[u8]; 4] = [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX-Slow: "];
    let mut opened: Vec<TcpStream> = Vec::new();
    for ask in asks.into_iter().cycle().take(50) {
        let mut stream = server.connect();
        stream.write_all(ask).expect("it reads");
        opened.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(server.get("/health").status, 200);
    }
    for (index, mut stream) in opened.into_iter().enumerate() {
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{index}"),
        }
    }
    until("connections are counted that are gone", || server.metric("hydit_connections") == 1.0);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let server = Server::start(&["--write-timeout", "500ms"]);
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let start = Instant::now();
    // Asks without reading until nothing goes out any more, then until the connection is gone.
    loop {
        match stream.write(&ask) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(start.elapsed() < PATIENCE, "it is still connected");
    }
}

#[test]
fn a_connection_too_many_is_closed_and_its_place_comes_back() {
    let server = Server::start(&["--max-connections", "3"]);
    let first: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    let mut fourth = server.connect();
    let closed = fourth.read(&mut [0]);
    assert!(closed.is_ok_and(|bytes| bytes == 0), "it is not closed");
    for mut stream in first {
        let ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    until("no place comes back", || agent().get(server.at("/health")).call().is_ok());
}

#[test]
fn unknown_paths_and_methods_are_told_in_our_words() {
    let server = Server::start(&[]);
    let nowhere = server.get("/v1/nowhere");
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "not_found"));
    let wrong = server.delete("/health");
    assert_eq!((wrong.status, wrong.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), "GET,HEAD");
    for answer in [&nowhere, &wrong] {
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let head = Answer::of(agent().head(server.at("/health")).call().expect("it answers"));
    assert_eq!((head.status, head.body.len()), (200, 0));
}
