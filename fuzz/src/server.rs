//! What a client sends, to a whole server on a loopback port. It drains, so that it reads and checks
//! everything and draws nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use hydit_serve::server::settings::{Connections, Settings};
use hydit_serve::server::{App, Clock, Listeners, serve};
use hydit_testing::emoji;

use crate::scratch::Scratch;

/// How long the server waits for the rest of a request that has none.
const REST: Duration = Duration::from_millis(30);

/// Longest wait for an answer: a server that gives none hangs.
const PATIENCE: Duration = Duration::from_secs(20);

static SERVER: LazyLock<SocketAddr> = LazyLock::new(serving);

/// Starts the server, so that the first input need not wait for it.
pub fn start() {
    LazyLock::force(&SERVER);
}

/// The address of a server that lives as long as the process.
fn serving() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let folder = Scratch::new();
            let settings = Settings {
                models: vec![("emoji".to_string(), emoji::artifacts())],
                data_dir: folder.path().join("data"),
                ..Settings::default()
            };
            let settings = Settings {
                connections: Connections {
                    header_timeout: REST,
                    body_timeout: REST,
                    ..settings.connections
                },
                ..settings
            };
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let listener = listener.expect("a port");
            let address = listener.local_addr().expect("an address");
            let app = App::open(settings, Clock::system()).expect("it starts");
            app.scheduler.started().await.expect("it warms up");
            app.scheduler.drain();
            tell.send(address).expect("it waits");
            let listeners = Listeners { http: vec![listener], ..Listeners::default() };
            serve(listeners, app, std::future::pending()).await.expect("it serves");
        });
    });
    told.recv().expect("a server")
}

/// The bytes of a connection, from the first of the request's head on.
pub fn http(bytes: &[u8]) {
    let answer = exchange(bytes);
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
}

/// The body of an inference request of the Open Inference Protocol: two bytes with the length of
/// its JSON, the JSON, and binary tensors.
pub fn oip(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return };
    let head = format!(
        "POST /v2/models/emoji/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\nInference-Header-Content-Length: {}\r\n\r\n",
        body.len(),
        usize::from(u16::from_be_bytes(*length)).min(body.len()),
    );
    http(&[head.as_bytes(), body].concat());
}

/// Sends `bytes`; what comes back until the server closes the connection.
fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(*SERVER).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = Vec::new();
    // A server may refuse and close before it has read everything.
    let _ = stream.write_all(bytes);
    if let Err(error) = stream.read_to_end(&mut answer) {
        let hung =
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!hung, "no answer in {PATIENCE:?}");
    }
    answer
}
