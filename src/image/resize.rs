//! Images of another size, with the pixels that Pillow's `Image.resize` gives: by its Lanczos filter,
//! as diffusers resizes what a picture is made from, or by its bicubic one, as CLIP reads images.
//!
//! Follows `Resample.c` of Pillow up to version 12: rows first, then columns, each pass in integers
//! with 22 bits behind the point, rounded to 8 bits in between. Pillow 13 begins with the columns for
//! some sizes, where a pixel of its images may be another by a few of 255.

use std::f64::consts::PI;
use std::ops::Range;

/// Bits behind the point of a weight.
const BITS: u32 = 32 - 8 - 2;

/// A filter of Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Of three lobes.
    Lanczos,
    /// The cubic convolution with a = -0.5.
    Bicubic,
}

/// The pixels that make one of the resized: the first, and the weight of each.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes `pixels`, `[height, width, channels]` of `from` = (width, height), to `to` by Lanczos.
///
/// # Panics
/// When there are not that many pixels, or a side is 0.
#[track_caller]
pub fn resize(pixels: &[u8], channels: usize, from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    resize_part(pixels, channels, from, to, Filter::Lanczos, (0..to.0, 0..to.1))
}

/// The columns and rows `part` of `pixels`, `[height, width, channels]` of `from` = (width, height),
/// resized to `to`. It takes the memory of the part, not that of the whole.
///
/// # Panics
/// When there are not that many pixels, or a side is 0.
#[track_caller]
pub fn resize_part(
    pixels: &[u8],
    channels: usize,
    from: (usize, usize),
    to: (usize, usize),
    filter: Filter,
    part: (Range<usize>, Range<usize>),
) -> Vec<u8> {
    assert_eq!(pixels.len(), from.0 * from.1 * channels, "pixels of {from:?}");
    assert!(from.0 * from.1 * to.0 * to.1 > 0, "an image without pixels");
    let mut pixels = pixels.to_vec();
    let (columns, rows) = part;
    let width = columns.len();
    if (from.0, 0..from.0) != (to.0, columns.clone()) {
        let taps = filter.taps(from.0, to.0, columns);
        let rows = pixels.chunks(from.0 * channels);
        pixels = rows.flat_map(|row| along(row, channels, &taps)).collect();
    }
    if (from.1, 0..from.1) != (to.1, rows.clone()) {
        // A column of rows is like a row of pixels with very many channels.
        pixels = along(&pixels, width * channels, &filter.taps(from.1, to.1, rows));
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

impl Filter {
    /// Pixels to both sides that it reaches, where nothing is made smaller.
    fn reach(self) -> f64 {
        match self {
            Filter::Lanczos => 3.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The weight of a pixel at a distance.
    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Lanczos => lanczos(x, self.reach()),
            Filter::Bicubic => bicubic(x.abs()),
        }
    }

    /// The taps of the pixels `part` of a line of `from` that becomes one of `to`.
    fn taps(self, from: usize, to: usize, part: Range<usize>) -> Vec<Taps> {
        if from == to {
            // Pillow leaves such a line as it is.
            return part.map(|first| Taps { first, weights: vec![1 << BITS] }).collect();
        }
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let reach = self.reach() * spread;
        let tap = |pixel: usize| {
            let centre = (pixel as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weight = |at: usize| self.weight((at as f64 - centre + 0.5) * (1.0 / spread));
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
            Taps { first, weights: weights.into_iter().map(fixed).collect() }
        };
        part.map(tap).collect()
    }
}

fn lanczos(x: f64, reach: f64) -> f64 {
    if (-reach..reach).contains(&x) { sinc(x) * sinc(x / reach) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// The weight at the distance `x`, 0 or more.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
