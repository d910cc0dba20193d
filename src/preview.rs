//! Small pictures of latents on the way, without the image decoder: of each place of the latents the
//! colour that it comes to on average.
//!
//! Every image decoder has its own channels, so the map from channels to colours is fitted, by least
//! squares, to the pictures that the decoder has made, and grows better with each.

use crate::image::Image;

/// Weight of what was learned before a picture.
const MEMORY: f64 = 0.8;

/// An affine map from the channels of a place to red, green and blue in [0, 255].
#[derive(Clone, Debug)]
pub struct Colours {
    channels: usize,
    /// The normal equations: products of channels with channels, then with colours.
    sums: Vec<Vec<f64>>,
    /// Of red, green and blue: a weight for each channel, and what is added.
    weights: [Vec<f64>; 3],
}

impl Colours {
    /// Everything is black until a picture was learned.
    pub fn new(channels: usize) -> Colours {
        let n = channels + 1;
        let weights = [(); 3].map(|()| vec![0.0; n]);
        Colours { channels, sums: vec![vec![0.0; n + 3]; n], weights }
    }

    /// Learns from `latents`, `[channels, h, w]`, and the picture that the decoder made of them.
    ///
    /// # Panics
    /// When the picture is not a whole multiple of the latents.
    #[track_caller]
    pub fn learn(&mut self, latents: &[f32], image: &Image) {
        let places = latents.len() / self.channels;
        let factor = ((image.width * image.height / places) as f64).sqrt() as usize;
        let width = image.width / factor;
        assert_eq!(width * (image.height / factor), places, "places of the latents");
        self.sums.iter_mut().flatten().for_each(|sum| *sum *= MEMORY);
        for place in 0..places {
            let row: Vec<f64> = row(latents, self.channels, place).collect();
            let colour = mean(image, place % width * factor, place / width * factor, factor);
            for (line, own) in self.sums.iter_mut().zip(&row) {
                for (sum, x) in line.iter_mut().zip(row.iter().chain(&colour)) {
                    *sum += own * x / places as f64;
                }
            }
        }
        let n = self.channels + 1;
        let mut normal = self.sums.clone();
        // A little ridge: channels of a plain picture may not tell themselves apart.
        (0..n).for_each(|i| normal[i][i] += 1e-3);
        solve(&mut normal);
        self.weights = [0, 1, 2].map(|colour| normal.iter().map(|line| line[n + colour]).collect());
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
        let mut colours = Colours::new(channels);
        colours.learn(&latents, &image);
        let shown = colours.show(&latents, width, height);
        for (place, found) in shown.rgb.chunks(3).enumerate() {
            let far = found.iter().zip(colour(place)).any(|(a, b)| a.abs_diff(b) > 2);
            assert!(!far, "{found:?} for {:?}", colour(place));
        }
    }
}
