//! The port of gRPC, as one sees it who does not speak gRPC, or nothing at all. Triton's client is in
//! `tests/clients`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;

use super::harness::{PATIENCE, Server, command, model};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame of HTTP/2 without settings, which a client sends first.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn server() -> Server {
    Server::start(&["--grpc-listen", "127.0.0.1:0", "--header-timeout", "1s"])
}

fn connect(server: &Server) -> TcpStream {
    let out = server.out();
    let address = out.lines().find_map(|line| line.strip_prefix("listening on grpc://"));
    let stream = TcpStream::connect(address.expect("its address")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What the server sends until it closes the connection.
fn answer(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => bytes,
    }
}

#[test]
fn who_speaks_no_http_2_in_time_is_cut_off() {
    let server = server();
    for said in [&b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], b"PRI *", b""] {
        let begun = Instant::now();
        let mut stream = connect(&server);
        stream.write_all(said).expect("sent");
        assert_eq!(answer(stream), b"", "{}", said.escape_ascii());
        assert!(begun.elapsed() < PATIENCE, "{}", said.escape_ascii());
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn who_falls_silent_is_cut_off_and_the_others_are_let_go_at_the_end() {
    let mut server = server();
    let mut stream = connect(&server);
    stream.write_all(&[PREFACE, SETTINGS].concat()).expect("sent");
    // Nobody answers its pings.
    assert!(!answer(stream).is_empty(), "its settings");

    let mut stream = connect(&server);
    stream.write_all(&[PREFACE, SETTINGS].concat()).expect("sent");
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).expect("its settings");
    assert_eq!(settings[3], 4, "the type of a frame of settings");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).and_then(|status| status.code()), Some(0));
    assert!(answer(stream).windows(9).any(|frame| frame[3] == 7), "a frame that says good-bye");
}

/// What a server says that shall listen there and does not start.
fn refusal(address: &str) -> String {
    let (folder, model) = (tempfile::tempdir().expect("a folder"), model().to_string_lossy());
    let data = folder.path().to_string_lossy();
    let own = ["--listen", "127.0.0.1:0", "--model", &model, "--data-dir", &data];
    let flags = [&own[..], &["--grpc-listen", address]].concat();
    let ended = command(&flags).output().expect("it runs");
    assert!(!ended.status.success());
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn a_port_beyond_this_machine_wants_keys() {
    let told = refusal("0.0.0.0:0");
    assert!(told.contains("--grpc-listen") && told.contains("no API key is set"), "{told}");
}

#[test]
fn one_address_serves_one_protocol() {
    let server = server();
    let taken = server.at("").trim_start_matches("http://").to_string();
    let told = refusal(&taken);
    assert!(told.contains(&format!("--grpc-listen {taken}: cannot listen")), "{told}");
}
