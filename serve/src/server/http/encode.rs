//! Pictures as bytes: PNG, JPEG, lossless WebP.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use crate::server::metrics;
use hydit::artifacts::Artifacts;
use hydit::image::{Image, ImageError, Texts, encode_png};
use hydit::request::Request;
use hydit::timing::Stage;

/// The format of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lossless; the only one that carries parameters.
    #[default]
    Png,
    /// Lossy.
    Jpeg,
    /// Lossless, smaller than PNG.
    Webp,
}

/// How pictures are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// In which format.
    pub format: Format,
    /// Of a JPEG, 0 to 100.
    pub quality: u8,
    /// Whether a PNG carries its parameters.
    pub metadata: bool,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Png, Format::Jpeg, Format::Webp];

    /// As a media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
        }
    }
}

impl Output {
    /// The files of `images`, the pictures of `request` by the model of `artifacts`.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn encode(
        self,
        images: &[Image],
        artifacts: &Artifacts,
        request: &Request,
    ) -> hydit::Result<Vec<Vec<u8>>> {
        let began = Instant::now();
        let encode = |(index, image)| {
            let texts = match self.metadata {
                true => request.parameters(artifacts, index).to_texts(),
                false => Texts::new(),
            };
            self.bytes(image, &texts)
        };
        let files = images.iter().enumerate().map(encode).collect();
        metrics::stage(Stage::Png, began.elapsed());
        files
    }

    /// The bytes of a picture on the way to the one asked for, which carries nothing.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn encode_bare(self, image: &Image) -> hydit::Result<Vec<u8>> {
        self.bytes(image, &[])
    }

    fn bytes(self, image: &Image, texts: &[(String, String)]) -> hydit::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (width, height) = (image.width as u32, image.height as u32);
        let rgb = ExtendedColorType::Rgb8;
        match self.format {
            Format::Png => return Ok(encode_png(image, texts)?),
            Format::Jpeg => JpegEncoder::new_with_quality(&mut bytes, self.quality.max(1))
                .write_image(&image.rgb, width, height, rgb),
            Format::Webp => {
                WebPEncoder::new_lossless(&mut bytes).write_image(&image.rgb, width, height, rgb)
            }
        }
        .map_err(ImageError::from)?;
        Ok(bytes)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::Webp => "webp",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let found = Format::ALL.into_iter().find(|format| format.to_string() == name);
        found.ok_or_else(|| "expected png, jpeg or webp".to_string())
    }
}
