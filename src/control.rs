//! What a picture is steered by besides its prompt: images that ControlNets read, such as edges.
//!
//! Follows diffusers' `HunyuanDiTControlNetPipeline`, and its `StableDiffusionControlNetPipeline`
//! where a net counts for a part of the steps.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use hydit_graphs::Manifest;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use crate::error::{Error, Result};
use crate::image::{Decoded, Image, canny, resize};
use crate::init_image::planes;

/// The field of a request.
const FIELD: &str = "controls";

/// Most ControlNets of one request.
pub const MOST: usize = 8;

/// Largest weight of a ControlNet. Weights that draw well are from 0.5 to 1.
pub const MAX_WEIGHT: f32 = 10.0;

/// What is made of an image before a net reads it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Display, EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Preprocess {
    /// Nothing: it is what the net was trained on.
    #[default]
    None,
    /// The edges of a photo, by [`canny`].
    Canny,
}

impl Preprocess {
    fn is_none(&self) -> bool {
        *self == Preprocess::None
    }

    fn of(self, image: Image) -> Image {
        match self {
            Preprocess::None => image,
            Preprocess::Canny => canny(&image),
        }
    }
}

/// A ControlNet of a request, and the image that it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Its name in the export.
    pub name: String,
    /// The factor of what it adds, 0 to 10; diffusers' `controlnet_conditioning_scale`.
    #[serde(default = "one")]
    pub weight: f32,
    /// Share of the steps before which it does not count, 0 to 1; diffusers'
    /// `control_guidance_start`.
    #[serde(default)]
    pub start: f64,
    /// Share of the steps after which it does not count any more; diffusers'
    /// `control_guidance_end`.
    #[serde(default = "whole")]
    pub end: f64,
    /// What was made of the image.
    #[serde(default, skip_serializing_if = "Preprocess::is_none")]
    pub preprocess: Preprocess,
    /// SHA-256 of the image's file, hexadecimal.
    pub sha256: String,
    /// What the net reads, in the size of the picture; absent where only the parameters of one are known.
    #[serde(skip)]
    pub image: Option<Arc<Image>>,
}

fn one() -> f32 {
    1.0
}

fn whole() -> f64 {
    1.0
}

impl Control {
    /// The net `name`, which reads what `preprocess` makes of `image`, for a picture of `size` =
    /// (width, height), to which the image is stretched by Pillow's Lanczos filter before.
    pub fn new(
        name: &str,
        image: &Decoded,
        preprocess: Preprocess,
        size: (usize, usize),
    ) -> Control {
        let shown = image.on_white();
        let rgb = resize(&shown.rgb, 3, (shown.width, shown.height), size);
        let fitted = Image { width: size.0, height: size.1, rgb };
        Control {
            name: name.to_string(),
            weight: one(),
            start: 0.0,
            end: whole(),
            preprocess,
            sha256: image.sha256().to_string(),
            image: Some(Arc::new(preprocess.of(fitted))),
        }
    }

    /// The image as the image encoder reads it: `[3, height, width]` from -1 to 1.
    ///
    /// # Panics
    /// When only its hash is known: [`Request::check`](crate::Request::check) refuses that.
    #[track_caller]
    pub(crate) fn planes(&self) -> Vec<f32> {
        planes(self.image.as_deref().expect("a checked request has its images"))
    }

    /// At which of `steps` steps it counts: those that lie in its share whole.
    pub(crate) fn steps(&self, steps: usize) -> Range<usize> {
        let share = |step: usize| step as f64 / steps as f64;
        let first = (0..steps).find(|step| share(*step) >= self.start).unwrap_or(steps);
        let last = (first..steps).take_while(|step| share(step + 1) <= self.end).count();
        first..first + last
    }

    /// Checks that the model of `manifest` has the net, and that a picture of `size` = (width,
    /// height), of which `steps` steps are taken, can be drawn with it.
    fn check(&self, manifest: &Manifest, size: (usize, usize), steps: usize) -> Result<()> {
        let Control { name, weight, start, end, .. } = self;
        let refuse = |message: String| Err(Error::Request { field: FIELD, message });
        if manifest.controls.iter().all(|net| net.name != *name) {
            let names: Vec<&str> = manifest.controls.iter().map(|net| &net.name[..]).collect();
            let name: String = name.chars().take(60).collect();
            return refuse(match names.is_empty() {
                true => "the model was exported without ControlNets: export it again with \
                         hydit-export --control NAME=PATH"
                    .to_string(),
                false => format!("there is no ControlNet {name:?}; there is {}", names.join(", ")),
            });
        }
        if !(0.0..=MAX_WEIGHT).contains(weight) {
            return refuse(format!("{name}: weight {weight}; expected 0 to {MAX_WEIGHT}"));
        }
        if !(0.0 <= *start && start < end && *end <= 1.0) {
            let expected = "expected shares of the steps, the start below the end, from 0 to 1";
            return refuse(format!("{name}: start {start}, end {end}; {expected}"));
        }
        if self.steps(steps).is_empty() {
            return refuse(format!(
                "{name}: no step of {steps} lies between {start} and {end}: widen them"
            ));
        }
        match &self.image {
            None => refuse(format!("{name}: only the hash of its image is known: give the image")),
            Some(image) if (image.width, image.height) != size => {
                refuse(format!("{name}: its image was resized for a picture of another size"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// `name`, with the weight if it is not 1, and the shares of the steps if these are not all.
impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Control { name, weight, start, end, .. } = self;
        f.write_str(name)?;
        match (*weight, *start, *end) {
            (1.0, 0.0, 1.0) => Ok(()),
            (_, 0.0, 1.0) => write!(f, ":{weight}"),
            _ => write!(f, ":{weight}:{start}-{end}"),
        }
    }
}

/// Checks all ControlNets of a request.
pub(crate) fn check(
    controls: &[Control],
    manifest: &Manifest,
    size: (usize, usize),
    steps: usize,
) -> Result<()> {
    if controls.len() > MOST {
        let message = format!("{} ControlNets; at most {MOST}", controls.len());
        return Err(Error::Request { field: FIELD, message });
    }
    controls.iter().try_for_each(|control| control.check(manifest, size, steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_diffusers() {
        // keeps = 1 - (i / n < start or (i + 1) / n > end)
        for (start, end, steps, expected) in [
            (0.0, 1.0, 25, 0..25),
            (0.0, 0.5, 25, 0..12),
            (0.2, 0.6, 25, 5..15),
            (0.1, 1.0, 10, 1..10),
            (0.3, 0.7, 10, 3..7),
            (0.95, 1.0, 10, 10..10),
            (0.0, 0.05, 10, 0..0),
        ] {
            let white = Image { width: 1, height: 1, rgb: vec![255; 3] };
            let control = Control::new("canny", &Decoded::from(&white), Preprocess::None, (16, 16));
            let control = Control { start, end, ..control };
            assert_eq!(control.steps(steps), expected, "{start} {end} {steps}");
        }
    }
}
