//! Connections that send nothing, or little by little, and clients that go away.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{IMAGES, median, small};
use crate::harness::{PATIENCE, Server};

const CONNECTIONS: usize = 1000;
/// The header's ten seconds, and one to notice.
const LIMIT: Duration = Duration::from_secs(11);

/// Whether the other side has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a setting");
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {} // a last word, such as 408
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
#[ignore = "minutes: make soak"]
fn a_thousand_idle_and_slow_connections_are_closed_and_harm_nobody() {
    let server = Server::start(&[]);
    let time = || {
        let start = Instant::now();
        assert_eq!(server.post(IMAGES, &small(1, 8)).status, 200);
        start.elapsed().as_secs_f64()
    };
    let mut alone: Vec<f64> = (0..20).map(|_| time()).collect();
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    let start = Instant::now();
    let mut beside = Vec::new();
    let mut last_byte = Instant::now();
    while start.elapsed() < LIMIT {
        // A third say nothing, a third send a header byte by byte, a third stop in the middle of
        // one.
        if last_byte.elapsed() > Duration::from_millis(500) || beside.is_empty() {
            last_byte = Instant::now();
            for (i, stream) in streams.iter_mut().enumerate() {
                let first = beside.is_empty();
                let bytes: &[u8] = match i % 3 {
                    1 if first => b"GET /health HTTP/1.1\r\nx-slow: ",
                    1 => b"a",
                    2 if first => b"GET /health HTTP/1.1\r\nhost: loc",
                    _ => b"",
                };
                let _ = stream.write(bytes); // it may be closed
            }
        }
        beside.push(time());
    }
    let open = streams.iter_mut().filter_map(|stream| (!is_closed(stream)).then_some(())).count();
    let (alone, beside) = (median(&mut alone), median(&mut beside));
    println!(
        "{CONNECTIONS} idle and slow connections: {open} open after {LIMIT:?}; a picture beside them took {:.0} ms, \
         alone {:.0} ms",
        1e3 * beside,
        1e3 * alone
    );
    assert_eq!(open, 0);
    assert!(beside <= 2.0 * alone);
}

/// Steps that run after a client has gone, by the server's own count.
#[test]
#[ignore = "minutes: make soak"]
fn at_most_one_step_runs_after_a_client_has_gone() {
    let server = Server::start(&[]);
    let steps = || server.metric("hydit_steps_total");
    let mut most: f64 = 0.0;
    let mut given_up = 0;
    for i in 0..100 {
        let before = steps();
        let stream = server.send(IMAGES, &small(i, 100));
        let begun = Instant::now();
        let at = loop {
            let now = steps();
            if now > before + (i % 7) as f64 {
                break now;
            }
            assert!(begun.elapsed() < PATIENCE, "it is not drawn");
        };
        drop(stream);
        thread::sleep(Duration::from_millis(100));
        let after = steps() - at;
        given_up += 1;
        most = most.max(after);
        assert!(steps() - before < 100.0, "it was drawn to the end");
    }
    // One that was under way when the count was read, one when the connection closed.
    println!("{given_up} clients went away: at most {most} steps ran after that");
    assert!(most <= 2.0, "{most}");
}
