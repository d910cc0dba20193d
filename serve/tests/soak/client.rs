//! Requests for pictures, and what came of them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::image::{Image, decode_png};
use serde_json::{Value, json};

use crate::harness::Answer;

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

/// The median; the slice is put in order.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The number in an environment variable.
pub fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// Numbers that look random.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}
