//! Images of another size, with the pixels that Pillow's `Image.resize` gives by its Lanczos filter,
//! as diffusers resizes what a picture is made from.
//!
//! Follows `Resample.c` of Pillow: rows first, then columns, each pass in integers with 22 bits
//! behind the point, rounded to 8 bits in between.

use std::f64::consts::PI;

/// Bits behind the point of a weight.
const BITS: u32 = 32 - 8 - 2;
/// Pixels to both sides that the filter reaches, where nothing is made smaller.
const REACH: f64 = 3.0;

/// The pixels that make one of the resized: the first, and the weight of each.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes `pixels`, `[height, width, channels]` of `from` = (width, height), to `to`.
///
/// # Panics
/// When there are not that many pixels, or a side is 0.
#[track_caller]
pub fn resize(pixels: &[u8], channels: usize, from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    assert_eq!(pixels.len(), from.0 * from.1 * channels, "pixels of {from:?}");
    assert!(from.0 * from.1 * to.0 * to.1 > 0, "an image without pixels");
    let mut pixels = pixels.to_vec();
    if from.0 != to.0 {
        let taps = taps(from.0, to.0);
        let rows = pixels.chunks(from.0 * channels);
        pixels = rows.flat_map(|row| along(row, channels, &taps)).collect();
    }
    if from.1 != to.1 {
        // A column of rows is like a row of pixels with very many channels.
        pixels = along(&pixels, to.0 * channels, &taps(from.1, to.1));
    }
    pixels
}

/// One value of each channel for each of `taps`.
fn along(values: &[u8], channels: usize, taps: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * channels);
    let mut sums = vec![0i32; channels];
    for Taps { first, weights } in taps {
        sums.fill(1 << (BITS - 1));
        for (values, weight) in values[first * channels..].chunks(channels).zip(weights) {
            sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += i32::from(value) * weight);
        }
        out.extend(sums.iter().map(|sum| (sum >> BITS).clamp(0, 255) as u8));
    }
    out
}

/// The taps of each of `to` pixels in a line of `from`.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let spread = scale.max(1.0);
    let reach = REACH * spread;
    let tap = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weight = |at: usize| lanczos((at as f64 - centre + 0.5) * (1.0 / spread));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(tap).collect()
}

fn lanczos(x: f64) -> f64 {
    if (-REACH..REACH).contains(&x) { sinc(x) * sinc(x / REACH) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
