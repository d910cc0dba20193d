//! Images as files of several formats, in memory.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use super::{Image, ImageError, encode_png};

/// The format of an image file.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Format {
    /// Lossless; the only format whose files carry texts.
    #[default]
    Png,
    /// Lossy.
    Jpeg,
    /// Lossless, smaller than PNG.
    Webp,
}

impl Format {
    /// Every ending that [`Format::of`] knows, for messages.
    pub const ENDINGS: &str = ".png, .jpg, .jpeg or .webp";

    /// The format that the ending of a file's name asks for: PNG where it has none.
    pub fn of(path: &Path) -> Option<Format> {
        let Some(ending) = path.extension() else { return Some(Format::Png) };
        match ending.to_ascii_lowercase().to_str()? {
            "png" => Some(Format::Png),
            "jpg" | "jpeg" => Some(Format::Jpeg),
            "webp" => Some(Format::Webp),
            _ => None,
        }
    }

    /// Most pixels of a row or column of an image.
    pub fn max_side(self) -> usize {
        match self {
            Format::Png => i32::MAX as usize,
            Format::Jpeg => 65_535,
            Format::Webp => 16_384,
        }
    }

    /// The media type of its files.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
        }
    }
}

/// The file of `image` in `format`. `quality` is that of a JPEG, 0 to 100; `texts` go into a PNG.
///
/// # Errors
/// When a text holds a zero character, or the encoder does not take an image of this size.
pub fn encode(
    image: &Image,
    format: Format,
    quality: u8,
    texts: &[(String, String)],
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width as u32, image.height as u32);
    let rgb = ExtendedColorType::Rgb8;
    match format {
        Format::Png => return encode_png(image, texts),
        Format::Jpeg => JpegEncoder::new_with_quality(&mut bytes, quality.max(1))
            .write_image(&image.rgb, width, height, rgb)?,
        Format::Webp => {
            WebPEncoder::new_lossless(&mut bytes).write_image(&image.rgb, width, height, rgb)?;
        }
    }
    Ok(bytes)
}
