//! LoRAs, ControlNets and an image prompt, for the commands that draw or plan new pictures. `generate`,
//! which can also draw one again, reads each by itself.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use hydit::Request;
use hydit_graphs::Manifest;

use super::control::ControlFlags;
use super::flags::LoraFlags;
use super::image_prompt::ImagePromptFlags;

/// What a picture is drawn with beside the model and the prompt.
#[derive(Args)]
pub struct NetFlags {
    #[command(flatten)]
    loras: LoraFlags,
    #[command(flatten)]
    controls: ControlFlags,
    #[command(flatten)]
    image_prompt: ImagePromptFlags,
}

impl NetFlags {
    /// The folder of the LoRAs.
    pub fn lora_dir(&self) -> Option<&Path> {
        self.loras.lora_dir.as_deref()
    }

    /// Gives `request`, whose size is that of the picture, what the flags name.
    ///
    /// # Errors
    /// When a file cannot be read, or the model of `manifest` can draw nothing of that size or has no
    /// image prompts.
    pub fn set(&self, request: &mut Request, manifest: &Manifest) -> Result<()> {
        request.check_size(manifest)?;
        self.loras.set(request);
        self.controls.read(None)?.set(request);
        request.image_prompt = self.image_prompt.read(manifest, None)?;
        Ok(())
    }
}
