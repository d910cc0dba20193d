//! How a picture was made, as texts of its PNG.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::control::Control;
use crate::image::{ImageError, Texts};
use crate::image_prompt::ImagePrompt;
use crate::lora::LoraChoice;

/// How a picture was made, kept in its PNG so that it can be made again: everything that decides a
/// picture besides the weights, which the manifest's hash names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// The request for this picture alone: its seed is that of the picture's own generator.
    #[serde(flatten)]
    pub request: Request,
    /// The model's name.
    pub model: String,
    /// SHA-256 of the artifacts' manifest, hexadecimal.
    pub manifest_sha256: String,
    /// The version of hydit.
    pub version: String,
    /// Which of `prompt` and `negative_prompt` were longer than the text encoders read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// The key of the JSON text.
const KEY: &str = "hydit";

impl Parameters {
    /// The texts for a PNG: `hydit`, JSON that [`Parameters::from_texts`] reads back, and
    /// `parameters`, for people and for the viewers that know the layout of AUTOMATIC1111's web UI.
    pub fn to_texts(&self) -> Texts {
        let json = serde_json::to_string(self).expect("strings and numbers are valid JSON");
        vec![(KEY.to_owned(), json), ("parameters".to_owned(), self.to_readable())]
    }

    /// Reads the `hydit` text back.
    ///
    /// # Errors
    /// [`ImageError::NoParameters`] when there is none, [`ImageError::Parameters`] when a field is missing or wrong.
    pub fn from_texts(texts: &[(String, String)]) -> std::result::Result<Self, ImageError> {
        let (_, json) = texts.iter().find(|(key, _)| key == KEY).ok_or(ImageError::NoParameters)?;
        Ok(serde_json::from_str(json)?)
    }

    fn to_readable(&self) -> String {
        let request = &self.request;
        let hash = self.manifest_sha256.get(..10).unwrap_or(&self.manifest_sha256);
        let mut text = format!("{}\n", request.prompt);
        if !request.negative_prompt.is_empty() {
            text += &format!("Negative prompt: {}\n", request.negative_prompt);
        }
        text += &format!(
            "Steps: {}, Sampler: {}, Schedule type: {}, CFG scale: {}, CFG rescale: {}, Seed: {}, Size: {}x{}, Model \
             hash: {hash}, Model: {}, Cache policy: {}, Version: hydit {}",
            request.steps,
            request.sampler,
            request.spacing,
            request.guidance_scale,
            request.guidance_rescale,
            request.seed,
            request.width,
            request.height,
            self.model,
            request.cache_policy,
            self.version,
        );
        if !request.guidance_interval.is_whole() {
            text += &format!(", CFG interval: {}", request.guidance_interval);
        }
        if request.perturbed() {
            text += &format!(", PAG scale: {}", request.pag_scale);
        }
        if request.pag_adaptive_scale > 0.0 {
            text += &format!(", PAG adaptive scale: {}", request.pag_adaptive_scale);
        }
        if !request.loras.is_empty() {
            let lora = |lora: &LoraChoice| format!("{}:{}", lora.name, lora.weight);
            let loras: Vec<String> = request.loras.iter().map(lora).collect();
            text += &format!(", LoRA: {}", loras.join(" "));
        }
        if !request.controls.is_empty() {
            let control = |control: &Control| format!("{}:{}", control.name, control.weight);
            let controls: Vec<String> = request.controls.iter().map(control).collect();
            text += &format!(", ControlNet: {}", controls.join(" "));
        }
        if let Some(ImagePrompt { weight, sha256, .. }) = &request.image_prompt {
            let short = sha256.get(..10).unwrap_or(sha256);
            text += &format!(", Image prompt: {short}:{weight}");
        }
        if let Some(init_image) = &request.init_image {
            text += &format!(", Denoising strength: {}", init_image.strength);
        }
        if !self.truncated.is_empty() {
            text += &format!(", Truncated: {}", self.truncated.join(" and "));
        }
        text.replace('\0', " ") // PNG texts cannot hold it; the JSON writes it as an escape
    }
}
