//! Images that strangers made, of whatever kind: as they are meant to be seen.

use std::io::Cursor;
use std::path::Path;

use hydit_input::file;
use hydit_input::guard::guarded;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits, RgbImage};
use sha2::{Digest, Sha256};

use super::file::{MAX_CHUNKS, MAX_FILE, MAX_PIXELS, at};
use super::{Image, ImageError};
use crate::util::hex;

/// A PNG, JPEG or WebP that was read, turned upright as its EXIF says.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    image: DynamicImage,
    sha256: String,
}

impl Decoded {
    /// Decodes the bytes of a file. Nothing is set aside before its size is known and allowed.
    ///
    /// # Errors
    /// [`ImageError::Kind`], [`ImageError::Animated`], [`ImageError::TooLarge`], or
    /// [`ImageError::Broken`] where it is cut off or damaged.
    pub fn new(bytes: &[u8]) -> Result<Decoded, ImageError> {
        let image = guarded("the image decoder", || decode(bytes))??;
        Ok(Decoded { image, sha256: hex(&Sha256::digest(bytes)) })
    }

    /// As [`Decoded::new`], from a file.
    ///
    /// # Errors
    /// Also when the file cannot be read; with the path.
    pub fn read(path: &Path) -> Result<Decoded, ImageError> {
        let read = || Decoded::new(&file::read(path, MAX_FILE)?);
        read().map_err(|e| at(path, e))
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.image.width() as usize
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.image.height() as usize
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether it can have transparent pixels.
    pub fn has_alpha(&self) -> bool {
        self.image.color().has_alpha()
    }

    /// Its colours in 8 bits, laid on white where it is transparent.
    pub fn on_white(&self) -> Image {
        let (width, height) = (self.width(), self.height());
        if !self.has_alpha() {
            return Image { width, height, rgb: self.image.to_rgb8().into_raw() };
        }
        let on_white = |value: u8, alpha: u8| {
            let (value, alpha) = (u32::from(value), u32::from(alpha));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        let rgba = self.image.to_rgba8().into_raw();
        let (pixels, _) = rgba.as_chunks::<4>();
        let rgb = pixels.iter().flat_map(|&[r, g, b, a]| [r, g, b].map(|value| on_white(value, a)));
        Image { width, height, rgb: rgb.collect() }
    }

    /// How transparent each pixel is, row by row: 255 where nothing is seen of it.
    pub fn transparency(&self) -> Vec<u8> {
        self.image.to_luma_alpha8().pixels().map(|pixel| 255 - pixel.0[1]).collect()
    }
}

impl From<&Image> for Decoded {
    /// The image as a file would have it, whose name is the hash of its pixels.
    fn from(image: &Image) -> Decoded {
        let (width, height) = (image.width as u32, image.height as u32);
        let pixels = RgbImage::from_raw(width, height, image.rgb.clone());
        let pixels = pixels.expect("an image has its pixels");
        Decoded { image: pixels.into(), sha256: hex(&Sha256::digest(&image.rgb)) }
    }
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let file = Cursor::new(bytes);
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(MAX_CHUNKS as u64);
            let decoder = PngDecoder::with_limits(file, limits).map_err(ImageError::Broken)?;
            let animated = decoder.is_apng().map_err(ImageError::Broken)?;
            still(decoder, animated)
        }
        Ok(ImageFormat::Jpeg) if !is_whole_jpeg(bytes) => Err(ImageError::Cut),
        Ok(ImageFormat::Jpeg) => still(JpegDecoder::new(file).map_err(ImageError::Broken)?, false),
        Ok(ImageFormat::WebP) => {
            let decoder = WebPDecoder::new(file).map_err(ImageError::Broken)?;
            let animated = decoder.has_animation();
            still(decoder, animated)
        }
        _ => Err(ImageError::Kind),
    }
}

/// The image of a decoder that has read its header, turned upright.
fn still(mut decoder: impl ImageDecoder, animated: bool) -> Result<DynamicImage, ImageError> {
    let (width, height) = decoder.dimensions();
    if width as usize * height as usize > MAX_PIXELS {
        return Err(ImageError::TooLarge { width, height, max: MAX_PIXELS });
    }
    if animated {
        return Err(ImageError::Animated);
    }
    let orientation = decoder.orientation().map_err(ImageError::Broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(ImageError::Broken)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether a JPEG has its end: of one that was cut off, decoders paint the rest grey.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    let mut rest = bytes;
    // A marker is 0xff and a byte; all but a few have a segment behind them, with its length first.
    while let Some(at) = rest.windows(2).position(|two| two[0] == 0xff && is_marker(two[1])) {
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        match marker {
            END => return true,
            START => {}
            _ => {
                let Some(length) = rest.first_chunk().map(|two| u16::from_be_bytes(*two)) else {
                    return false;
                };
                rest = rest.get(usize::from(length)..).unwrap_or_default();
            }
        }
    }
    false
}

/// Whether a byte behind 0xff makes a marker: else it is a part of the pixels, or filling.
fn is_marker(byte: u8) -> bool {
    !matches!(byte, 0x00 | 0xd0..=0xd7 | 0xff)
}
