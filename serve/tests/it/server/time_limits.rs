//! Limits of time, on a clock that the tests move.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hydit_serve::server::ServeError;
use hydit_serve::server::settings::{Connections, Settings};
use tokio::task::yield_now;
use tokio::time::advance;

use super::harness::{PATIENCE, until};
use super::in_process::{Served, StoppedClock, beside, settings};

const SECOND: Duration = Duration::from_secs(1);
const HEADER: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(20);

async fn start() -> (StoppedClock, Served) {
    let connections =
        Connections { header_timeout: HEADER, body_timeout: BODY, ..settings().connections };
    let server = Served::start(Settings { connections, drain_timeout: DRAIN, ..settings() });
    (StoppedClock::stop(), server.await)
}

/// A connection on which `bytes` were sent. The server has them once it has answered a later one.
fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("it reads");
    stream
}

/// What is sent until the connection is closed.
fn rest(mut stream: TcpStream) -> String {
    stream.set_nonblocking(false).expect("a setting");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is not closed"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a setting");
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Lets so many seconds pass, with a byte in each of them.
async fn trickle(server: &Served, stream: &TcpStream, seconds: u32) {
    for _ in 0..seconds {
        let mut stream = stream.try_clone().expect("a handle");
        beside(move || stream.write_all(b"x")).await.expect("it is open");
        advance(SECOND).await;
        server.get("/health").await;
    }
}

#[tokio::test]
async fn silent_slow_and_idle_connections_are_closed_when_their_time_is_over() {
    let (_stopped, server) = start().await;
    let asks: [&[u8]; 4] = [
        b"",
        b"GET /health HTT",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    let address = server.address;
    let mut streams = beside(move || asks.map(|ask| send(address, ask))).await;
    assert_eq!(server.get("/health").await.status, 200);
    let mut answered = streams[3].try_clone().expect("a handle");
    let answer = beside(move || {
        let mut answer = [0; 512];
        let length = answered.read(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    });
    assert!(answer.await.ends_with(r#"{"status":"ok"}"#));

    advance(HEADER - SECOND).await;
    assert_eq!(server.get("/health").await.status, 200, "what is due has been done by now");
    for (index, stream) in streams.iter_mut().enumerate() {
        assert!(is_open(stream), "{index}");
    }
    advance(2 * SECOND).await;
    let answers = beside(move || streams.map(rest)).await;
    assert_eq!(answers[0], "", "nothing was begun");
    assert_eq!(answers[3], "", "nothing was begun again");
}

#[tokio::test]
async fn a_header_that_trickles_has_no_more_time_than_another() {
    let (_stopped, server) = start().await;
    let address = server.address;
    let ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let stream = beside(move || send(address, ask)).await;
    server.get("/health").await;
    trickle(&server, &stream, 9).await;
    assert!(is_open(&stream));
    advance(2 * SECOND).await;
    beside(move || rest(stream)).await;
}

#[tokio::test]
async fn a_body_has_its_time_however_it_comes() {
    let (_stopped, server) = start().await;
    let address = server.address;
    let ask = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nslow";
    let [stops, trickles] = beside(move || [(); 2].map(|()| send(address, ask))).await;
    server.get("/health").await;
    trickle(&server, &trickles, 29).await;
    assert!(is_open(&stops) && is_open(&trickles));
    advance(2 * SECOND).await;
    for stream in [stops, trickles] {
        let answer = beside(move || rest(stream)).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("body_timeout"), "{answer}");
    }
}

#[tokio::test]
async fn what_runs_is_cut_off_when_the_time_to_drain_is_over() {
    let (_stopped, server) = start().await;
    let address = server.address;
    let ask = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab";
    let running = beside(move || send(address, ask)).await;
    server.get("/health").await;
    let ended = server.shut_down();
    let refused = move || TcpStream::connect(address).is_err();
    beside(move || until("new connections are taken", refused)).await;
    advance(DRAIN - SECOND).await;
    assert!(is_open(&running) && !ended.is_finished());
    // The time to drain ends, then a last moment begins and ends. The server takes note of the one
    // before it begins the other, so time passes in small pieces.
    for _ in 0..20 {
        advance(SECOND / 4).await;
        yield_now().await;
    }
    assert!(ended.is_finished());
    let ended = ended.await.expect("no panic");
    let cut_off = ServeError::CutOff { timeout: DRAIN, connections: 1 };
    assert_eq!(ended.map_err(|error| error.to_string()), Err(cut_off.to_string()));
}
