//! What a picture is made from besides its prompt: an image, how much of it is changed, and where.
//!
//! Follows diffusers' `StableDiffusionImg2ImgPipeline`, and with a mask its
//! `StableDiffusionInpaintPipeline` for models that are not trained for masks.

use std::sync::Arc;

use hydit_graphs::Manifest;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{Decoded, Image, resize};

/// Strength where a request names none: diffusers' for image to image.
pub const STRENGTH: f64 = 0.8;
/// The same with a mask: diffusers' for inpainting.
pub const STRENGTH_IN_MASK: f64 = 1.0;

/// The image that a picture is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitImage {
    /// Share of the steps that are taken, above 0 and up to 1: the more, the less is left of the
    /// image.
    pub strength: f64,
    /// SHA-256 of the image's file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the mask's file, where only a part is painted anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_sha256: Option<String>,
    /// Absent where only the parameters of a picture are known.
    #[serde(skip)]
    pixels: Option<Arc<Pixels>>,
}

/// What a picture is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// The image in the size of the picture.
    pub image: Image,
    /// Whether each pixel is painted anew, row by row; all are where there is no mask.
    pub repaint: Option<Vec<bool>>,
}

/// Which part of an image is painted anew.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Where this image is white, or transparent.
    White(&'a Decoded),
    /// Where this image is transparent, as OpenAI's clients mean it.
    Transparent(&'a Decoded),
}

impl Mask<'_> {
    fn file(&self) -> &Decoded {
        match self {
            Mask::White(file) | Mask::Transparent(file) => file,
        }
    }

    /// Whether each pixel is painted anew, in a picture of `size` = (width, height).
    fn repaint(&self, size: (usize, usize)) -> Vec<bool> {
        let (file, values) = match self {
            Mask::White(file) => (file, grey(&file.on_white())),
            Mask::Transparent(file) => (file, file.transparency()),
        };
        let resized = resize(&values, 1, (file.width(), file.height()), size);
        resized.into_iter().map(|value| value >= 128).collect()
    }
}

impl InitImage {
    /// `image` for a picture of `size` = (width, height), to which it and the mask are stretched by
    /// Pillow's Lanczos filter.
    pub fn new(
        image: &Decoded,
        mask: Option<Mask<'_>>,
        strength: Option<f64>,
        size: (usize, usize),
    ) -> InitImage {
        let usual = if mask.is_some() { STRENGTH_IN_MASK } else { STRENGTH };
        let shown = image.on_white();
        let rgb = resize(&shown.rgb, 3, (shown.width, shown.height), size);
        let pixels = Pixels {
            image: Image { width: size.0, height: size.1, rgb },
            repaint: mask.map(|mask| mask.repaint(size)),
        };
        InitImage {
            strength: strength.unwrap_or(usual),
            sha256: image.sha256().to_string(),
            mask_sha256: mask.map(|mask| mask.file().sha256().to_string()),
            pixels: Some(Arc::new(pixels)),
        }
    }

    /// The largest size, (width, height), that a picture of the model can have and `image` fills: its
    /// own, cut down to whole units.
    pub fn size(manifest: &Manifest, image: &Decoded) -> (usize, usize) {
        let unit = manifest.picture_unit();
        let cut = |side: usize| (side / unit * unit).max(unit);
        (cut(image.width()), cut(image.height()))
    }

    /// The image in the size of the picture.
    ///
    /// # Panics
    /// When only its hash is known: [`Request::check`](crate::Request::check) refuses that.
    #[track_caller]
    pub fn pixels(&self) -> &Pixels {
        self.pixels.as_deref().expect("a checked request has its image")
    }

    /// The first of `steps` steps that is taken.
    ///
    /// # Errors
    /// [`Error::Request`] when it is none, or the strength is out of range.
    pub fn first_step(&self, steps: usize) -> Result<usize> {
        let strength = self.strength;
        let refuse = |message| Err(Error::Request { field: "strength", message });
        if !(strength > 0.0 && strength <= 1.0) {
            return refuse(format!("{strength}; expected more than 0, up to 1"));
        }
        match (steps as f64 * strength) as usize {
            0 => refuse(format!(
                "{strength} of {steps} steps is none; expected at least {}",
                (1000.0 / steps as f64).ceil() / 1000.0
            )),
            taken => Ok(steps - taken.min(steps)),
        }
    }

    /// Checks that a picture of `size` = (width, height) can be made from it by the model of
    /// `manifest`.
    pub(crate) fn check(&self, manifest: &Manifest, size: (usize, usize)) -> Result<()> {
        let refuse = |message: &str| {
            Err(Error::Request { field: "init_image", message: message.to_string() })
        };
        if !manifest.has_image_encoder() {
            return refuse(
                "the model was exported without its image encoder: export it again with \
                 hydit-export --image-to-image",
            );
        }
        match &self.pixels {
            None => refuse("only the hash of the image is known: give the image itself"),
            Some(pixels) if (pixels.image.width, pixels.image.height) != size => {
                refuse("it was resized for a picture of another size")
            }
            Some(_) => Ok(()),
        }
    }
}

impl Pixels {
    /// The image as the encoder reads it: `[3, height, width]` from -1 to 1.
    pub fn planes(&self) -> Vec<f32> {
        planes(&self.image)
    }

    /// Whether each place of the latents is painted anew, where one stands for `factor` x `factor`
    /// pixels: as the first of them is, by `interpolate` of PyTorch.
    pub fn repaint_latents(&self, factor: usize) -> Option<Vec<bool>> {
        let repaint = self.repaint.as_ref()?;
        let rows = repaint.chunks(self.image.width).step_by(factor);
        Some(rows.flat_map(|row| row.iter().copied().step_by(factor)).collect())
    }
}

/// `image` as the image encoder reads it: `[3, height, width]` from -1 to 1.
pub(crate) fn planes(image: &Image) -> Vec<f32> {
    let (pixels, _) = image.rgb.as_chunks::<3>();
    let plane = |channel: usize| pixels.iter().map(move |pixel| pixel[channel]);
    (0..3).flat_map(plane).map(|value| 2.0 * (f32::from(value) / 255.0) - 1.0).collect()
}

/// The brightness of each pixel, as Pillow's `convert("L")` gives it.
fn grey(image: &Image) -> Vec<u8> {
    let (pixels, _) = image.rgb.as_chunks::<3>();
    let grey = |&[r, g, b]: &[u8; 3]| {
        let sum = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471;
        ((sum + 0x8000) >> 16) as u8
    };
    pixels.iter().map(grey).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(strength: f64) -> InitImage {
        let white = Image { width: 1, height: 1, rgb: vec![255; 3] };
        InitImage::new(&Decoded::from(&white), None, Some(strength), (16, 16))
    }

    #[test]
    fn the_first_step_is_that_of_diffusers() {
        // int(steps * strength) in Python, whose products are not always what they seem.
        for (strength, steps, first) in [
            (1.0, 25, 0),
            (0.6, 25, 10),
            (0.7, 10, 3),
            (0.29, 100, 72),
            (0.5, 25, 13),
            (0.04, 25, 24),
        ] {
            assert_eq!(of(strength).first_step(steps).expect("some steps"), first, "{strength}");
        }
        for (strength, words) in [
            (0.0399, "0.0399 of 25 steps is none; expected at least 0.04"),
            (0.0, "expected more than 0"),
            (1.01, "expected more than 0"),
            (f64::NAN, "expected more than 0"),
        ] {
            let error = of(strength).first_step(25).expect_err("a refusal").to_string();
            assert!(error.starts_with("strength: ") && error.contains(words), "{error}");
        }
    }
}
