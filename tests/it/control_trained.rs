//! The trained ControlNet of `models/emoji-canny`: pictures follow their edges, cached or not.

use std::collections::BTreeSet;
use std::fs;

use hydit::control::Preprocess;
use hydit::eval::statistics::mean;
use hydit::image::{Decoded, Image, canny};
use hydit::runtime::BackendChoice;
use hydit::timing::Stage;
use hydit::{Control, Pipeline, Request};
use hydit_testing::emoji;

use crate::control::draw;

/// What is drawn for its edges, and another subject, which is asked for.
const PAIRS: [(&str, &str); 4] = [
    ("a rocket on a white background", "a panda on a red background"),
    ("a fox on a white background", "a strawberry on a cyan background"),
    ("a guitar on a white background", "a snowman on a blue background"),
    ("an octopus on a white background", "a pizza on a green background"),
];

/// Pixels by which an edge may be off.
const NEAR: usize = 1;

fn request(pipeline: &Pipeline, prompt: &str) -> Request {
    let request = Request::new(pipeline.manifest(), prompt).expect("the defaults are right");
    Request { steps: 25, sampler: "dpmms".parse().expect("a sampler"), ..request }
}

/// `image` the other way round, as the model has never drawn it.
fn mirrored(image: &Image) -> Image {
    let row = |row: &[u8]| row.chunks(3).rev().flatten().copied().collect::<Vec<u8>>();
    let rgb = image.rgb.chunks(3 * image.width).flat_map(row).collect();
    Image { rgb, ..image.clone() }
}

/// Where `edges` has a line at most `by` pixels away.
fn lines(edges: &Image, by: usize) -> Vec<bool> {
    let (width, height) = (edges.width, edges.height);
    let around = |at: usize, end: usize| at.saturating_sub(by)..(at + by + 1).min(end);
    let line = |x: usize, y: usize| edges.rgb[3 * (y * width + x)] > 0;
    let near = |i: usize| {
        let (x, y) = (i % width, i / width);
        around(y, height).any(|y| around(x, width).any(|x| line(x, y)))
    };
    (0..width * height).map(near).collect()
}

/// How much of each other's lines two maps meet, 0 to 1: the harmonic mean of both shares.
fn met(one: &Image, other: &Image) -> f64 {
    let share = |of: &Image, near: &Image| {
        let (of, near) = (lines(of, 0), lines(near, NEAR));
        let both = of.iter().zip(&near).filter(|(of, near)| **of && **near).count();
        both as f64 / of.iter().filter(|of| **of).count() as f64
    };
    let (a, b) = (share(one, other), share(other, one));
    2.0 * a * b / (a + b)
}

#[test]
fn pictures_follow_their_edges_whatever_is_asked_for() {
    let mut pipeline = emoji::pipeline(&emoji::canny(), BackendChoice::Ort);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (shown, asked) in PAIRS {
        let photo = request(&pipeline, shown);
        let photo = mirrored(&draw(&mut pipeline, &photo).images[0]);
        let plain = request(&pipeline, asked);
        let size = (plain.width, plain.height);
        let control = Control::new("canny", &Decoded::from(&photo), Preprocess::Canny, size);
        let steered = Request { controls: vec![control], ..plain.clone() };
        let [ours, theirs] = [&steered, &plain].map(|request| {
            let made = draw(&mut pipeline, request);
            met(&canny(&photo), &canny(&made.images[0]))
        });
        println!("edges of {shown}, {asked}: {ours:.2} met, without {theirs:.2}");
        with.push(ours);
        without.push(theirs);
    }
    let (with, without) = (mean(&with), mean(&without));
    assert!(with >= 0.5, "{with:.2} of the lines are met");
    assert!(without <= 0.4, "{without:.2} are met without the net: this test shows nothing");
}

/// The blocks of which a graph of the net has weights.
fn blocks(part: &str) -> BTreeSet<usize> {
    let file = emoji::canny().join(format!("control-canny-{part}.onnx"));
    let graph = fs::read(file).expect("a graph");
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    String::from_utf8_lossy(&graph).split("blocks.").skip(1).filter_map(number).collect()
}

#[test]
fn a_step_that_reuses_the_core_runs_one_block_of_the_net() {
    let mut pipeline = emoji::pipeline(&emoji::canny(), BackendChoice::Ort);
    let photo = request(&pipeline, PAIRS[0].0);
    let photo = draw(&mut pipeline, &photo).images.remove(0);
    let plain = request(&pipeline, PAIRS[0].1);
    let size = (plain.width, plain.height);
    let control = Control::new("canny", &Decoded::from(&photo), Preprocess::Canny, size);
    let cache_policy = "N3".parse().expect("a policy");
    let steered = Request { controls: vec![control], cache_policy, ..plain.clone() };
    let made = draw(&mut pipeline, &steered);
    let (steps, refreshes) = (plain.steps, made.timings.calls(Stage::Core));
    assert!(refreshes < steps);
    // Its encoder at every step, its core at refreshes.
    assert_eq!(made.timings.calls(Stage::ControlNets), steps + refreshes);
    let [encoder, core] = ["encoder", "core"].map(blocks);
    assert_eq!((encoder.len(), core.len()), (1, 4), "{encoder:?} {core:?}");
}
