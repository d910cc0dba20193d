//! Requests for pictures, and what came of them.

use std::io::Write;
use std::net::TcpStream;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::image::{Image, decode_png};
use serde_json::{Value, json};

use crate::server::{Answer, Server};

pub const IMAGES: &str = "/v1/images/generations";

/// A request of few steps, told apart by its seed.
pub fn small(seed: usize, steps: usize) -> Value {
    json!({
        "prompt": "蓝色背景上的猫", "seed": seed, "steps": steps, "sampler": "dpmms", "size": "128x128"
    })
}

/// The pictures of an answer.
pub fn pictures(answer: &Answer) -> Vec<Image> {
    let answer = answer.json();
    let data = answer["data"].as_array().expect("pictures");
    let picture = |datum: &Value| {
        let text = datum["b64_json"].as_str().expect("base64");
        let bytes = BASE64_STANDARD.decode(text).expect("base64");
        decode_png(&bytes).expect("a PNG").0
    };
    data.iter().map(picture).collect()
}

/// Sends a request and does not wait for the answer.
pub fn send(server: &Server, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST {IMAGES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .expect("sent");
    stream
}

/// The value of a series, or 0.
pub fn metric(server: &Server, series: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

/// The median; the slice is put in order.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
