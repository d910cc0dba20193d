//! How a picture was made, kept in its PNG so that it can be made again.

use serde::{Deserialize, Serialize};

use super::{ImageError, Texts};
use crate::sampler::{SamplerKind, Spacing};

/// Everything that decides a picture besides the weights, which the manifest's hash names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// What to paint.
    pub prompt: String,
    /// What not to paint.
    pub negative_prompt: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Classifier-free guidance; 1 or less runs without the negative half.
    pub guidance_scale: f32,
    /// Share of the rescaled guided prediction, 0 to 1.
    pub guidance_rescale: f32,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its timestep spacing.
    pub spacing: Spacing,
    /// The seed of this picture's own generator.
    pub seed: u64,
    /// The cache policy as text, such as `off` or `N2-700-50`.
    pub cache_policy: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of the artifacts' manifest, hexadecimal.
    pub manifest_sha256: String,
    /// The version of hydit.
    pub version: String,
}

/// The key of the JSON text.
const KEY: &str = "hydit";

impl Parameters {
    /// The texts for a PNG: `hydit`, JSON that [`Parameters::from_texts`] reads back, and `parameters`, for people and
    /// for the viewers that know the layout of AUTOMATIC1111's web UI.
    pub fn to_texts(&self) -> Texts {
        let json = serde_json::to_string(self).expect("strings and numbers are valid JSON");
        vec![(KEY.to_owned(), json), ("parameters".to_owned(), self.to_readable())]
    }

    /// Reads the `hydit` text back.
    ///
    /// # Errors
    /// [`ImageError::NoParameters`] when there is none, [`ImageError::Parameters`] when a field is missing or wrong.
    pub fn from_texts(texts: &[(String, String)]) -> Result<Self, ImageError> {
        let (_, json) = texts.iter().find(|(key, _)| key == KEY).ok_or(ImageError::NoParameters)?;
        Ok(serde_json::from_str(json)?)
    }

    fn to_readable(&self) -> String {
        let hash = self.manifest_sha256.get(..10).unwrap_or(&self.manifest_sha256);
        let mut text = format!("{}\n", self.prompt);
        if !self.negative_prompt.is_empty() {
            text += &format!("Negative prompt: {}\n", self.negative_prompt);
        }
        text += &format!(
            "Steps: {}, Sampler: {}, Schedule type: {}, CFG scale: {}, CFG rescale: {}, Seed: {}, Size: {}x{}, Model \
             hash: {hash}, Model: {}, Cache policy: {}, Version: hydit {}",
            self.steps,
            self.sampler,
            self.spacing,
            self.guidance_scale,
            self.guidance_rescale,
            self.seed,
            self.width,
            self.height,
            self.model,
            self.cache_policy,
            self.version,
        );
        text.replace('\0', " ") // PNG texts cannot hold it; the JSON writes it as an escape
    }
}
