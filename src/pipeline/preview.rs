//! Small pictures of latents on the way, without the image decoder: of each place of the latents
//! the colour that it comes to on average.
//!
//! Every image decoder has its own channels, so the map from channels to colours is fitted, by
//! least squares, to pictures that the decoder has made.

use crate::image::Image;
use crate::sampler::TorchGenerator;

/// An affine map from the channels of a place to red, green and blue in [0, 255].
#[derive(Clone, Debug)]
pub struct Colours {
    channels: usize,
    /// Of red, green and blue: a weight for each channel, and what is added.
    weights: [Vec<f64>; 3],
}

impl Colours {
    /// Fits the map to examples: latents, `[channels, h, w]`, and the picture that the decoder made
    /// of them.
    ///
    /// # Panics
    /// When a picture is not a whole multiple of its latents.
    #[track_caller]
    pub fn fit(channels: usize, examples: &[(&[f32], &Image)]) -> Colours {
        let n = channels + 1;
        // The normal equations: products of channels with channels, then with colours.
        let mut sums = vec![vec![0.0; n + 3]; n];
        for (latents, image) in examples {
            let places = latents.len() / channels;
            let factor = ((image.width * image.height / places) as f64).sqrt() as usize;
            let width = image.width / factor;
            assert_eq!(width * (image.height / factor), places, "places of the latents");
            for place in 0..places {
                let row: Vec<f64> = row(latents, channels, place).collect();
                let colour = mean(image, place % width * factor, place / width * factor, factor);
                for (line, own) in sums.iter_mut().zip(&row) {
                    for (sum, x) in line.iter_mut().zip(row.iter().chain(&colour)) {
                        *sum += own * x / places as f64;
                    }
                }
            }
        }
        // A little ridge: channels of a plain picture may not tell themselves apart.
        (0..n).for_each(|i| sums[i][i] += 1e-3);
        solve(&mut sums);
        let weights = [0, 1, 2].map(|colour| sums.iter().map(|line| line[n + colour]).collect());
        Colours { channels, weights }
    }

    /// The small picture of `latents`, `[channels, height, width]`.
    ///
    /// # Panics
    /// When there are not as many.
    #[track_caller]
    pub fn show(&self, latents: &[f32], width: usize, height: usize) -> Image {
        assert_eq!(latents.len(), self.channels * width * height, "{width} x {height} places");
        let colours = |place: usize| {
            self.weights.each_ref().map(|weights| {
                let sum: f64 =
                    row(latents, self.channels, place).zip(weights).map(|(x, w)| x * w).sum();
                sum.round().clamp(0.0, 255.0) as u8
            })
        };
        Image { width, height, rgb: (0..width * height).flat_map(colours).collect() }
    }
}

/// Latents to fit to, `[channels, height, width]`: squares of four by four places, of random
/// colours.
pub fn squares(channels: usize, width: usize, height: usize) -> Vec<f32> {
    let (across, down) = (width.div_ceil(4), height.div_ceil(4));
    let colours = TorchGenerator::new(0).randn(channels * across * down);
    let place = |i: usize| {
        let (x, y, channel) = (i % width, i / width % height, i / (width * height));
        colours[(channel * down + y / 4) * across + x / 4]
    };
    (0..channels * width * height).map(place).collect()
}

/// The channels of a place, and 1.
fn row(latents: &[f32], channels: usize, place: usize) -> impl Iterator<Item = f64> {
    let plane = latents.len() / channels;
    (0..channels).map(move |c| f64::from(latents[c * plane + place])).chain([1.0])
}

/// Mean colour of the square of `side` pixels whose corner is at `x`, `y`.
fn mean(image: &Image, x: usize, y: usize, side: usize) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for row in y..y + side {
        for pixel in image.rgb[3 * (row * image.width + x)..][..3 * side].as_chunks::<3>().0 {
            (0..3).for_each(|c| sum[c] += f64::from(pixel[c]));
        }
    }
    sum.map(|sum| sum / (side * side) as f64)
}

/// Gauss-Jordan on the left square of `lines`; leaves the solutions in the columns to its right.
fn solve(lines: &mut [Vec<f64>]) {
    for i in 0..lines.len() {
        let pivot = lines[i][i]; // positive: the matrix is
        lines[i].iter_mut().for_each(|x| *x /= pivot);
        for j in (0..lines.len()).filter(|&j| j != i) {
            let factor = lines[j][i];
            let (a, b) = if i < j { (i, j) } else { (j, i) };
            let (low, high) = lines.split_at_mut(b);
            let (from, to) = if i < j { (&low[a], &mut high[0]) } else { (&high[0], &mut low[a]) };
            to.iter_mut().zip(from).for_each(|(to, from)| *to -= factor * from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_affine_is_found() {
        let (width, height, channels) = (6, 4, 2);
        let latents: Vec<f32> = (0..channels * width * height).map(|i| (i as f32).sin()).collect();
        let plane = width * height;
        let colour = |p: usize| {
            let (a, b) = (latents[p], latents[plane + p]);
            [100.0 + 50.0 * a, 120.0 - 60.0 * b, 90.0 + 20.0 * a + 30.0 * b]
                .map(|x| x.round() as u8)
        };
        let (wide, high) = (2 * width, 2 * height);
        let rgb =
            (0..wide * high).flat_map(|i| colour(i / wide / 2 * width + i % wide / 2)).collect();
        let image = Image { width: wide, height: high, rgb };
        let shown = Colours::fit(channels, &[(&latents, &image)]).show(&latents, width, height);
        for (place, found) in shown.rgb.chunks(3).enumerate() {
            let far = found.iter().zip(colour(place)).any(|(a, b)| a.abs_diff(b) > 2);
            assert!(!far, "{found:?} for {:?}", colour(place));
        }
    }
}
