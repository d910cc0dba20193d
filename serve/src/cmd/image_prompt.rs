//! The image beside the prompt: its flag, and the file that it names.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use hydit::image::Decoded;
use hydit::image_prompt::{ImagePrompt, WEIGHT};
use hydit::request::Parameters;
use hydit_graphs::Manifest;
use hydit_terminal::note;

use super::flags::split_weight;

/// An image to show the model beside the prompt.
#[derive(Args)]
pub struct ImagePromptFlags {
    /// Image that the picture shall be like, beside what the prompt says: PNG, JPEG or WebP, with its
    /// weight after a colon if that is not 1. The model must have been exported with --ip-adapter.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    image_prompt: Option<WeightedFile>,
}

/// A file, and the weight behind its last colon.
#[derive(Clone)]
struct WeightedFile {
    path: PathBuf,
    weight: Option<f32>,
}

impl FromStr for WeightedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<WeightedFile, String> {
        match split_weight(text) {
            ("", _) => Err("no file before the weight".to_string()),
            (path, weight) => Ok(WeightedFile { path: path.into(), weight }),
        }
    }
}

impl ImagePromptFlags {
    /// Reads the file for the model of `manifest`. An image whose parameters are `from` needs the one
    /// that it was drawn with.
    ///
    /// # Errors
    /// When the file cannot be read or is missing, or the model takes no image prompts.
    pub fn read(
        &self,
        manifest: &Manifest,
        from: Option<&Parameters>,
    ) -> Result<Option<ImagePrompt>> {
        let known = from.and_then(|from| from.request.image_prompt.as_ref());
        let Some(WeightedFile { path, weight }) = &self.image_prompt else {
            return match known {
                None => Ok(None),
                Some(known) => bail!(
                    "--from: the image was drawn with an image prompt, with the SHA-256 {}, which is \
                     not in it: name that with --image-prompt",
                    known.sha256
                ),
            };
        };
        let image = Decoded::read(path).context("--image-prompt")?;
        if known.is_some_and(|known| known.sha256 != image.sha256()) {
            note(format_args!(
                "note: --image-prompt is another file than the image of --from was drawn with"
            ));
        }
        let weight = weight.or(known.map(|known| known.weight)).unwrap_or(WEIGHT);
        Ok(Some(ImagePrompt::new(manifest, &image, weight)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_what_follows_the_last_colon_if_it_is_a_number() {
        for (text, path, weight) in [
            ("fox.png", "fox.png", None),
            ("fox.png:0.7", "fox.png", Some(0.7)),
            ("C:fox.png:-2", "C:fox.png", Some(-2.0)),
            ("a:b.png", "a:b.png", None),
        ] {
            let file: WeightedFile = text.parse().expect("a file");
            assert_eq!((file.path.to_str(), file.weight), (Some(path), weight), "{text}");
        }
        assert!(":1".parse::<WeightedFile>().is_err() && "".parse::<WeightedFile>().is_err());
    }
}
