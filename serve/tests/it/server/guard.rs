//! Who may ask the server: keys, host names, pages of other sites; what an answer carries.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{Request, header};

use super::harness::{Answer, Server, agent};

const KEY: &str = "0123456789abcdef-Mary";
const HEALTH: [&str; 4] = ["/health", "/ready", "/v2/health/live", "/v2/health/ready"];
/// A lent image, whose address is a secret of its own.
const LENT: &str = "/v1/pictures/x/x";

/// Whether `path` needs no key.
fn is_open(path: &str) -> bool {
    HEALTH.contains(&path) || path == LENT
}

/// Asks with these header fields and no body.
fn ask(server: &Server, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(server.at(path));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let response = agent().run(request);
    Answer::of(response.unwrap_or_else(|error| panic!("{method} {path}: {error}")))
}

/// Methods and paths of everything that is served.
fn routes(server: &Server) -> Vec<(String, String)> {
    let bearer = format!("Bearer {KEY}");
    let document = ask(server, "GET", "/openapi.json", &[("authorization", &bearer)]).json();
    let mut routes = vec![("GET".to_string(), "/openapi.json".to_string())];
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let path = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        for method in operations.as_object().expect("operations").keys() {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    routes
}

#[test]
fn every_route_asks_for_the_right_key_but_those_of_health() {
    let server = Server::start(&["--api-key", &format!("mary={KEY}")]);
    let wrong_case = format!("Bearer {}", KEY.to_lowercase());
    let longer = format!("Bearer {KEY}x");
    let basic = format!("Basic {KEY}");
    let right = format!("Bearer {KEY}");
    let lower_scheme = format!("bearer {KEY}");
    let password = format!("Basic {}", BASE64_STANDARD.encode(format!("anyone:{KEY}")));
    let no_colon = format!("Basic {}", BASE64_STANDARD.encode(KEY));
    let in_query = format!("?api_key={KEY}&key={KEY}");
    let refused: [&[(&str, &str)]; 8] = [
        &[],
        &[("authorization", "Bearer 0123456789abcdef-Anna")],
        &[("authorization", &wrong_case)],
        &[("authorization", &longer)],
        &[("authorization", &basic)],
        &[("authorization", &no_colon)],
        &[("authorization", "Bearer ")],
        &[("authorization", &right), ("authorization", &right)],
    ];
    let mut open = Vec::new();
    let routes = routes(&server);
    assert!(routes.len() >= 5, "{routes:?}");
    for (method, path) in &routes {
        for fields in refused {
            let answer = ask(&server, method, path, fields);
            if answer.status != 401 {
                open.push(path.as_str());
                continue;
            }
            let ours = !["/v2", "/sdapi", "/controlnet"].iter().any(|of| path.starts_with(of));
            match ours {
                false => assert!(answer.json()["error"].is_string(), "{method} {path}: {answer:?}"),
                true => assert_eq!(answer.code(), "invalid_api_key"),
            }
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let answer = ask(&server, method, &format!("{path}{in_query}"), &[]);
        assert!(answer.status == 401 || is_open(path), "{method} {path}");
        for scheme in [&right, &lower_scheme, &password] {
            let answer = ask(&server, method, path, &[("authorization", scheme)]);
            assert!(![401, 403].contains(&answer.status), "{method} {path}: {answer:?}");
        }
    }
    open.dedup();
    let unlisted: Vec<_> = open.iter().filter(|path| !is_open(path)).collect();
    assert!(unlisted.is_empty(), "open without a key: {unlisted:?}");
    assert!(open.contains(&"/health") && open.contains(&"/ready"), "{open:?}");
    // What is not there is not told to strangers, and no spelling of an open path opens another.
    for path in [
        "/nowhere",
        "/health/",
        "//health",
        "/health/../metrics",
        "/%6detrics",
        "/v1/pictures",
        "/v1/pictures/x",
        "/v1/pictures/x/x/x",
    ] {
        assert_eq!(ask(&server, "GET", path, &[]).status, 401, "{path}");
    }
    assert_eq!(ask(&server, "OPTIONS", "/metrics", &[]).status, 401);
}

#[test]
fn several_keys_are_each_of_their_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    let lines: Vec<String> = (0..50).map(|n| format!("owner-{n}=0123456789abcdef-{n}")).collect();
    std::fs::write(&keys, lines.join("\n")).expect("a file");
    let server = Server::start(&["--api-keys-file", keys.to_str().expect("a plain path")]);
    for n in [0, 17, 49] {
        let bearer = format!("Bearer 0123456789abcdef-{n}");
        let id = format!("of-{n}");
        let fields = [("authorization", bearer.as_str()), ("x-request-id", &id)];
        assert_eq!(ask(&server, "GET", "/version", &fields).status, 200);
        let line = server.wait_for_log(&format!("id={id} "));
        assert!(line.contains(&format!("client=\"owner-{n}\"")), "{line}");
    }
}

#[test]
fn without_keys_nobody_is_asked_for_one() {
    let server = Server::start(&[]);
    for fields in [&[][..], &[("authorization", "Bearer anything")]] {
        assert_eq!(ask(&server, "GET", "/metrics", fields).status, 200);
    }
}

#[test]
fn only_known_host_names_are_served() {
    let server = Server::start(&["--allowed-host", "Pictures.example"]);
    let raw = |host: &str| {
        let ask = format!("GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        server.raw(ask.as_bytes())[9..12].to_string()
    };
    let good = ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:80", "10.1.2.3"];
    let names = ["pictures.example", "pictures.example:443", "pictures.example.", "localhost.:80"];
    for host in good.into_iter().chain(names) {
        assert_eq!(raw(host), "200", "{host}");
    }
    for host in [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x:y",
        "user@localhost",
        "localhost..",
        "localhost evil.example",
        "pictures.example/",
        "\u{fc}",
    ] {
        assert_eq!(raw(host), "421", "{host}");
    }
    for target in ["http://evil.example/version", "http://u@localhost/version"] {
        let ask = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(server.raw(ask.as_bytes()).starts_with("HTTP/1.1 421 "), "{target}");
    }
    let answer = ask(&server, "GET", "/version", &[("host", "evil.example:80")]);
    assert_eq!(answer.code(), "unknown_host");
    let told = answer.json()["error"]["message"].to_string();
    assert!(told.contains("evil.example") && told.contains("--allowed-host"), "{told}");
    let long = format!("{}.example", "x".repeat(9000));
    let told = ask(&server, "GET", "/version", &[("host", &long)]).text();
    assert!(told.len() < 500, "{told}");
    let any = Server::start(&["--allowed-host", "*"]);
    assert_eq!(ask(&any, "GET", "/version", &[("host", "evil.example")]).status, 200);
}

#[test]
fn a_request_has_one_host_and_health_checks_have_any() {
    let server = Server::start(&[]);
    let raw = |request: &str| server.raw(request.as_bytes())[..12].to_string();
    for path in HEALTH {
        for hosts in ["Host: evil.example", "Host: hydit:8080", "Host:"] {
            let ask = format!("GET {path} HTTP/1.1\r\n{hosts}\r\nConnection: close\r\n\r\n");
            assert_eq!(raw(&ask), "HTTP/1.1 200", "{path} {hosts}");
        }
        // As haproxy's check asks.
        assert_eq!(raw(&format!("GET {path} HTTP/1.0\r\n\r\n")), "HTTP/1.0 200", "{path}");
    }
    assert_eq!(raw("GET /version HTTP/1.0\r\n\r\n"), "HTTP/1.0 421");
    for path in ["/health", "/version", "/nowhere"] {
        for hosts in [
            "X: y",
            "Host: localhost\r\nHost: localhost",
            "Host: localhost\r\nX: y\r\nhost: evil.example",
            "Host: evil.example\r\nHost: localhost",
        ] {
            let ask = format!("GET {path} HTTP/1.1\r\n{hosts}\r\nConnection: close\r\n\r\n");
            let answer = server.raw(ask.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path} {hosts}: {answer}");
            assert!(answer.contains("bad_host"), "{answer}");
        }
    }
}

#[test]
fn a_request_is_framed_by_a_length_or_in_chunks_and_nothing_else() {
    let server = Server::start(&[]);
    let inner = "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let ask = |fields: &str, body: &str| {
        let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n";
        server.raw(format!("{head}{fields}\r\n\r\n{body}{inner}").as_bytes())
    };
    for coding in [
        "gzip, chunked",
        "identity, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "x, chunked",
    ] {
        let answer = ask(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 501 "), "{coding}: {answer}");
        assert!(answer.contains("transfer_encoding"), "{coding}: {answer}");
        assert!(!answer.contains("hydit-serve"), "{coding}: what follows is not answered");
    }
    for coding in ["gzip", "identity", "xchunked", "chunked, gzip", "chunked;x", ""] {
        let answer = ask(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{coding}: {answer}");
        assert!(!answer.contains("hydit-serve"), "{coding}: what follows is not answered");
    }
    // By the length the second request is part of the body; in chunks it is not.
    for fields in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: CHUNKED",
        "Content-Length: 200\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 200",
    ] {
        let answer = ask(fields, "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 415 "), "{fields}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{fields}: {answer}");
        assert!(!answer.contains("hydit-serve"), "{fields}: what follows is not answered");
    }
    for lengths in ["1\r\nContent-Length: 2", "0, 5", "+5", "-1", "0x5", "5 5", ""] {
        let answer = ask(&format!("Content-Length: {lengths}"), "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
        assert!(!answer.contains("hydit-serve"), "{lengths}: what follows is not answered");
    }
    let answer = ask("Content-Length: 0", "");
    assert!(answer.contains("HTTP/1.1 200 ") && answer.contains("hydit-serve"), "{answer}");
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let server = Server::start(&[]);
    let paths = ["/health", "/nowhere", "/version", "/v1/models", "/ready", "/v2", "/health"];
    let mut asks: Vec<String> =
        paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).to_vec();
    asks.push("GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_string());
    asks.push("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string());
    let answer = server.raw(asks.concat().as_bytes());
    let answers = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    let statuses: Vec<&str> = answers.collect();
    assert_eq!(statuses, ["200", "404", "200", "200", "200", "200", "200", "404"], "{answer}");
}

#[test]
fn a_target_is_a_path_or_refused() {
    let server = Server::start(&["--api-key", KEY]);
    let raw = |line: &str| {
        let fields = "Host: localhost\r\nConnection: close\r\n\r\n";
        server.raw(format!("{line} HTTP/1.1\r\n{fields}").as_bytes())[9..12].to_string()
    };
    for line in [
        "GET /health",
        "GET http://localhost/health",
        "GET /health?x",
        "GET /health#x",
        "GET http://localhost",
    ] {
        assert_eq!(raw(line), "200", "{line}");
    }
    for line in [
        "OPTIONS *",
        "CONNECT localhost:80",
        "GET /health/../version",
        "GET /health%2f..%2fversion",
        "GET /health;/version",
        "GET /version",
        "GET http://localhost/version",
        "GET /%68ealth",
        "GET //version",
        "GET /v1/../version",
        "GET /version%00",
        "GET /version%0d%0aX:y",
        "get /health2",
    ] {
        assert_eq!(raw(line), "401", "{line}");
    }
    assert_eq!(raw("GET version"), "421", "which is a host's name in this place");
    for line in ["GET \\version", "GET /ver sion", "GET", "GET /a\u{1}"] {
        assert_eq!(raw(line), "400", "{line}");
    }
}

#[test]
fn pages_of_other_sites_may_neither_read_nor_ask() {
    let server = Server::start(&["--cors-origin", "https://good.example"]);
    let post = |origin: &str| ask(&server, "POST", "/nowhere", &[("origin", origin)]);
    assert_eq!(post("https://evil.example").code(), "unknown_origin");
    assert_eq!(post("null").status, 403);
    assert_eq!(post("https://good.example").status, 404);
    assert_eq!(post(&server.url).status, 404);

    let get = |origin: &str| ask(&server, "GET", "/health", &[("origin", origin)]);
    assert_eq!(get("https://evil.example").header("access-control-allow-origin"), "");
    let good = get("https://good.example");
    assert_eq!(good.header("access-control-allow-origin"), "https://good.example");

    let preflight = |origin: &str| {
        let fields = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        ask(&server, "OPTIONS", "/v1/models", &fields)
    };
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), "");
    let good = preflight("https://good.example");
    assert_eq!(good.header("access-control-allow-origin"), "https://good.example");
    assert_eq!(good.header("access-control-allow-headers"), "authorization,content-type");

    let closed = Server::start(&[]);
    let answer = ask(&closed, "GET", "/health", &[("origin", "https://good.example")]);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn every_answer_has_the_name_of_its_request() {
    let server = Server::start(&[]);
    let id = |given: &str| {
        let answer = ask(&server, "GET", "/health", &[("x-request-id", given)]);
        answer.header("x-request-id").to_string()
    };
    let longest = "a".repeat(64);
    for given in ["abc", "A-1_b.c", longest.as_str()] {
        assert_eq!(id(given), given);
    }
    let longer = "a".repeat(65);
    for given in ["", "a b", "a\tb", "ü", "a;b", longer.as_str()] {
        let own = id(given);
        assert_eq!(own.len(), 32, "{given}: {own}");
        assert!(own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    }
    let answer = ask(&server, "GET", "/nowhere", &[("host", "evil.example")]);
    assert_eq!((answer.status, answer.header("x-request-id").len()), (421, 32));
    assert!(answer.headers.get(header::SERVER).is_none());
}
