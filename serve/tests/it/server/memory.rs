//! The memory that large images take.

use serde_json::json;

use super::harness::Server;

const MIB: u64 = 1 << 20;

/// Bytes of a field of `/proc/PID/status`.
fn bytes(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid));
    let status = status.expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kibibytes: u64 = line.trim_end_matches("kB").trim().parse().expect("a number");
    kibibytes << 10
}

/// An image of 1024x1024 took 3.1 GB at its peak when the decoder's attention held all scores at
/// once (1 GB, and a softmax of as much), and the arenas of its graphs stayed.
#[test]
fn a_large_image_takes_little_memory_and_gives_it_back() {
    let server = Server::start(&[]);
    let draw = |size: &str| {
        let body = json!({ "prompt": "a cat", "size": size, "steps": 1, "seed": 1 });
        assert_eq!(server.post("/v1/images/generations", &body).status, 200);
    };
    draw("256x256");
    let before = bytes(&server, "VmRSS:");
    draw("1024x1024");
    let (peak, after) = (bytes(&server, "VmHWM:"), bytes(&server, "VmRSS:"));
    eprintln!("before {}, peak {}, after {} MiB", before / MIB, peak / MIB, after / MIB);
    assert!(peak < 1200 * MIB, "{} MiB", peak / MIB);
    assert!(after < before + 200 * MIB, "{} MiB more", (after - before) / MIB);
}
