//! Pictures made larger and smaller, by whole factors only, so that they stay crisp.

use hydit::image::Image;

/// Every pixel as a square of `factor` by `factor`.
pub fn enlarge(image: &Image, factor: usize) -> Image {
    let (width, height) = (factor * image.width, factor * image.height);
    sample(width, height, |x, y| pixel(image, x / factor, y / factor))
}

/// Every square of `factor` by `factor` pixels as its mean; what is left over at the ends is cut.
pub fn shrink(image: &Image, factor: usize) -> Image {
    let (width, height) = (image.width / factor, image.height / factor);
    sample(width, height, |x, y| {
        let mut sums = [0; 3];
        for i in 0..factor * factor {
            let of = pixel(image, factor * x + i % factor, factor * y + i / factor);
            sums.iter_mut().zip(of).for_each(|(sum, value)| *sum += usize::from(value));
        }
        sums.map(|sum| (sum as f64 / (factor * factor) as f64).round() as u8)
    })
}

fn sample(width: usize, height: usize, of: impl Fn(usize, usize) -> [u8; 3]) -> Image {
    let pixels = (0..width * height).flat_map(|i| of(i % width, i / width));
    Image { width, height, rgb: pixels.collect() }
}

fn pixel(image: &Image, x: usize, y: usize) -> [u8; 3] {
    let at = 3 * (y * image.width + x);
    [image.rgb[at], image.rgb[at + 1], image.rgb[at + 2]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_enlarged_shrinks_to_itself() {
        let image = Image { width: 3, height: 2, rgb: (0..18).map(|v| 14 * v).collect() };
        let large = enlarge(&image, 4);
        assert_eq!((large.width, large.height), (12, 8));
        assert_eq!(shrink(&large, 4), image);
        assert_eq!(shrink(&image, 2).rgb, [84, 98, 112], "the mean of four pixels");
    }
}
