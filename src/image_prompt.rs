//! An image beside the prompt: what the picture shall look like, by an IP-Adapter.
//!
//! Follows `CLIPImageProcessor` of transformers (`models/clip/image_processing_pil_clip.py`).

use std::sync::Arc;

use hydit_graphs::Manifest;
use hydit_graphs::config::{ImageProcessor, IpAdapterConfig};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{Decoded, Filter, Image, resize_part};

/// The field of a request.
const FIELD: &str = "image_prompt";

/// Weight where a request names none: that of Tencent's code.
pub const WEIGHT: f32 = 1.0;
/// Largest weight.
pub const MAX_WEIGHT: f32 = 10.0;

/// An image prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagePrompt {
    /// The factor of what the image adds to the attention to the text, 0 to 10.
    pub weight: f32,
    /// SHA-256 of the image's file, hexadecimal.
    pub sha256: String,
    /// The image as the encoder sees it, a square. Absent where only the parameters of a picture are
    /// known.
    #[serde(skip)]
    pixels: Option<Arc<Image>>,
}

impl ImagePrompt {
    /// `image` for the model of `manifest`: what is transparent is laid on white, and resized and cut
    /// as the image encoder wants.
    ///
    /// # Errors
    /// [`Error::Request`] when the model takes no image prompts.
    pub fn new(manifest: &Manifest, image: &Decoded, weight: f32) -> Result<ImagePrompt> {
        Ok(ImagePrompt::of(adapter(manifest)?, image, weight))
    }

    /// As [`ImagePrompt::new`], for a model with the IP-Adapter of `config`.
    pub fn of(config: &IpAdapterConfig, image: &Decoded, weight: f32) -> ImagePrompt {
        let IpAdapterConfig { image_encoder, image_processor, .. } = config;
        let pixels = square(&image.on_white(), image_processor, image_encoder.image_size);
        let sha256 = image.sha256().to_string();
        ImagePrompt { weight, sha256, pixels: Some(Arc::new(pixels)) }
    }

    /// Checks that the model of `manifest` takes image prompts.
    ///
    /// # Errors
    /// [`Error::Request`] when it takes none.
    pub fn check_model(manifest: &Manifest) -> Result<()> {
        adapter(manifest).map(drop)
    }

    /// The image as the encoder of `config` reads it: `[3, size, size]`, normalised.
    ///
    /// # Panics
    /// When only its hash is known: [`Request::check`](crate::Request::check) refuses that.
    #[track_caller]
    pub fn pixel_values(&self, config: &IpAdapterConfig) -> Vec<f32> {
        let ImageProcessor { image_mean, image_std, .. } = &config.image_processor;
        let image = self.pixels.as_deref().expect("a checked request has its image");
        let (pixels, _) = image.rgb.as_chunks::<3>();
        let plane = |channel: usize| {
            let (mean, std) = (image_mean[channel], image_std[channel]);
            // The number from 0 to 1 is rounded once, as NumPy does it.
            let scaled = |value: u8| (f64::from(value) * (1.0 / 255.0)) as f32;
            let normalised = move |value: u8| (scaled(value) - mean) / std;
            pixels.iter().map(move |pixel| normalised(pixel[channel]))
        };
        (0..3).flat_map(plane).collect()
    }

    /// Checks that the model of `manifest` can draw with it.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<()> {
        let refuse = |message: String| Err(Error::Request { field: FIELD, message });
        let size = adapter(manifest)?.image_encoder.image_size;
        if !(0.0..=MAX_WEIGHT).contains(&self.weight) {
            return refuse(format!("weight {}: expected 0 to {MAX_WEIGHT}", self.weight));
        }
        match &self.pixels {
            None => {
                refuse("only the hash of the image is known: give the image itself".to_string())
            }
            Some(pixels) if (pixels.width, pixels.height) != (size, size) => {
                refuse("it was resized for another model".to_string())
            }
            Some(_) => Ok(()),
        }
    }
}

fn adapter(manifest: &Manifest) -> Result<&IpAdapterConfig> {
    manifest.ip_adapter.as_ref().ok_or_else(|| Error::Request {
        field: FIELD,
        message: "the model was exported without an IP-Adapter: export it again with hydit-export \
                  --ip-adapter"
            .to_string(),
    })
}

/// `image` as a square of `size`: stretched, or the middle of it after its shorter side was brought to
/// the length that `processor` says.
fn square(image: &Image, processor: &ImageProcessor, size: usize) -> Image {
    let from = (image.width, image.height);
    let to = match processor.shortest_edge {
        None => (size, size),
        Some(edge) => {
            let long =
                |long: usize, short: usize| (edge as f64 * long as f64 / short as f64) as usize;
            match from {
                (width, height) if width <= height => (edge, long(height, width)),
                (width, height) => (long(width, height), edge),
            }
        }
    };
    let middle = |side: usize| {
        let start = (side - size) / 2;
        start..start + size
    };
    let part = (middle(to.0), middle(to.1));
    let rgb = resize_part(&image.rgb, 3, from, to, Filter::Bicubic, part);
    Image { width: size, height: size, rgb }
}
