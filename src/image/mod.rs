//! Pictures on the host: from the decoder's numbers to 8-bit RGB, to PNG files and back.
//!
//! [`Image`] is the picture; `file` writes and reads PNG files with text chunks, [`encode`] makes
//! the files of all formats. [`Decoded`] is an image of strangers, which [`resize`] brings to size.

mod canny;
mod decode;
mod encode;
mod error;
mod file;
mod resize;

pub use canny::canny;
pub use decode::Decoded;
pub use encode::{Format, encode};
pub use error::ImageError;
pub use file::{Texts, decode_png, decode_texts, encode_png, read_png, read_texts, write_png};
pub use resize::{Filter, resize, resize_part};

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue of each pixel, row by row from the top: `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Image {
    /// The picture of one decoder output `[3, height, width]` with values in [-1, 1].
    ///
    /// Follows diffusers' `VaeImageProcessor.postprocess` (`image_processor.py`): x / 2 + 0.5,
    /// clamped to [0, 1], times 255, halves to even.
    ///
    /// # Errors
    /// [`ImageError::NotFinite`] when a value is infinite or not a number, which diffusers would paint black.
    ///
    /// # Panics
    /// When `pixels` does not hold `3 * height * width` values.
    #[track_caller]
    pub fn from_decoder(pixels: &[f32], width: usize, height: usize) -> Result<Self, ImageError> {
        let plane = width * height;
        assert_eq!(pixels.len(), 3 * plane, "decoder output for {width} x {height}");
        if let Some(first) = pixels.iter().position(|x| !x.is_finite()) {
            let count = pixels.iter().filter(|x| !x.is_finite()).count();
            return Err(ImageError::NotFinite {
                count,
                total: pixels.len(),
                channel: first / plane,
                row: first % plane / width,
                column: first % width,
            });
        }
        let byte = |x: f32| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let (red, rest) = pixels.split_at(plane);
        let (green, blue) = rest.split_at(plane);
        let channels = red.iter().zip(green).zip(blue);
        let rgb = channels.flat_map(|((r, g), b)| [byte(*r), byte(*g), byte(*b)]).collect();
        Ok(Self { width, height, rgb })
    }

    /// Pictures of one height in a row, from left to right.
    ///
    /// # Errors
    /// [`ImageError::Sizes`] when the heights differ.
    ///
    /// # Panics
    /// Without any picture.
    #[track_caller]
    pub fn side_by_side(images: &[Self]) -> Result<Self, ImageError> {
        let first = images.first().expect("at least one picture");
        if let Some(other) = images.iter().find(|image| image.height != first.height) {
            return Err(ImageError::sizes(first, other));
        }
        let width = images.iter().map(|image| image.width).sum();
        let mut rgb = Vec::with_capacity(3 * width * first.height);
        for row in 0..first.height {
            for image in images {
                rgb.extend_from_slice(&image.rgb[row * 3 * image.width..][..3 * image.width]);
            }
        }
        Ok(Self { width, height: first.height, rgb })
    }

    /// Pictures of one width in a column, from top to bottom.
    ///
    /// # Errors
    /// [`ImageError::Sizes`] when the widths differ.
    ///
    /// # Panics
    /// Without any picture.
    #[track_caller]
    pub fn stacked(images: &[Self]) -> Result<Self, ImageError> {
        let first = images.first().expect("at least one picture");
        if let Some(other) = images.iter().find(|image| image.width != first.width) {
            return Err(ImageError::sizes(first, other));
        }
        let rgb: Vec<u8> = images.iter().flat_map(|image| image.rgb.iter().copied()).collect();
        let height = images.iter().map(|image| image.height).sum();
        Ok(Self { width: first.width, height, rgb })
    }
}
