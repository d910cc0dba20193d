//! ControlNets of a picture: their flags, and the images that these name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use hydit::control::Preprocess;
use hydit::image::Decoded;
use hydit::request::Parameters;
use hydit::{Control, Request};

use super::flags::split_weight;

/// Which ControlNets steer the picture.
#[derive(Args)]
pub struct ControlFlags {
    /// ControlNet to draw with, by its name in the export, and the image that it reads: PNG, JPEG or
    /// WebP, laid on white and stretched to the picture's size. After a colon its weight, if that is
    /// not 1; after another the shares of the steps between which it counts, such as 0-0.6. Again for
    /// each; they add up. The model must have been exported with --control.
    #[arg(long, value_name = "NAME=FILE[:WEIGHT[:START-END]]")]
    control: Vec<ControlChoice>,
    /// What is made of the images before the ControlNets read them: none, if they are what these were
    /// trained on, or canny, the edges of a photo as cv2.Canny(image, 100, 200) finds them. With the
    /// name of a net before an equals sign for that net alone; again for each [default: none].
    #[arg(long, value_name = "[NAME=]none|canny", requires = "control")]
    control_preprocess: Vec<PreprocessChoice>,
}

/// What is made of the images of a net, or of all.
#[derive(Clone, Debug, PartialEq)]
struct PreprocessChoice {
    net: Option<String>,
    preprocess: Preprocess,
}

impl FromStr for PreprocessChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<PreprocessChoice, String> {
        let (net, name) = match text.split_once('=') {
            Some((net, name)) => (Some(net.to_string()), name),
            None => (None, text),
        };
        let preprocess =
            name.parse().map_err(|_| "expected none or canny, or NAME=canny".to_string())?;
        Ok(PreprocessChoice { net, preprocess })
    }
}

/// A ControlNet, as the flag names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlChoice {
    name: String,
    file: PathBuf,
    weight: f32,
    start: f64,
    end: f64,
    /// What was written.
    text: String,
}

impl FromStr for ControlChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ControlChoice, String> {
        let split =
            text.split_once('=').filter(|(name, rest)| !name.is_empty() && !rest.is_empty());
        let Some((name, mut rest)) = split else {
            return Err("expected NAME=FILE, such as canny=edges.png:0.8".to_string());
        };
        let (mut start, mut end) = (0.0, 1.0);
        if let Some((before, shares)) =
            rest.rsplit_once(':').and_then(|(a, b)| Some((a, range(b)?)))
        {
            if split_weight(before).1.is_none() {
                return Err(format!(
                    "expected a weight before the shares of the steps, such as {name}=FILE:1:{}",
                    &rest[before.len() + 1..]
                ));
            }
            (rest, (start, end)) = (before, shares);
        }
        let (file, weight) = split_weight(rest);
        let weight = weight.unwrap_or(1.0);
        let (name, file, text) = (name.to_string(), PathBuf::from(file), text.to_string());
        Ok(ControlChoice { name, file, weight, start, end, text })
    }
}

/// `0.2-0.8`, two numbers.
fn range(text: &str) -> Option<(f64, f64)> {
    let (start, end) = text.split_once('-')?;
    Some((start.parse().ok()?, end.parse().ok()?))
}

impl fmt::Display for ControlChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// ControlNets with their images, read.
pub struct ControlFiles(Vec<(ControlChoice, Preprocess, Decoded)>);

impl ControlFlags {
    /// What the flags name.
    pub fn choices(&self) -> &[ControlChoice] {
        &self.control
    }

    /// Reads the images. A picture whose parameters are `from` needs those that it was drawn with.
    ///
    /// # Errors
    /// When a file cannot be read, or they are missing.
    pub fn read(&self, from: Option<&Parameters>) -> Result<ControlFiles> {
        if let (true, Some(known)) =
            (self.control.is_empty(), from.and_then(|from| from.request.controls.first()))
        {
            bail!(
                "--from: the image was drawn with the ControlNet {} and an image with the SHA-256 {}, \
                 which is not in it: name both with --control",
                known.name,
                known.sha256
            );
        }
        for PreprocessChoice { net, .. } in &self.control_preprocess {
            if let Some(net) = net
                && self.control.iter().all(|choice| choice.name != *net)
            {
                bail!("--control-preprocess: there is no --control {net}");
            }
        }
        let preprocess = |net: &str| {
            let mut choices = self.control_preprocess.iter().rev();
            let own = choices.clone().find(|choice| choice.net.as_deref() == Some(net));
            let choice = own.or_else(|| choices.find(|choice| choice.net.is_none()));
            choice.map_or(Preprocess::None, |choice| choice.preprocess)
        };
        let read = |choice: &ControlChoice| {
            let image = Decoded::read(&choice.file).context("--control")?;
            Ok((choice.clone(), preprocess(&choice.name), image))
        };
        Ok(ControlFiles(self.control.iter().map(read).collect::<Result<_>>()?))
    }
}

impl ControlFiles {
    /// Gives `request`, whose size is checked before, its ControlNets.
    pub fn set(&self, request: &mut Request) {
        let size = (request.width, request.height);
        let control =
            |(choice, preprocess, image): &(ControlChoice, Preprocess, Decoded)| Control {
                weight: choice.weight,
                start: choice.start,
                end: choice.end,
                ..Control::new(&choice.name, image, *preprocess, size)
            };
        request.controls = self.0.iter().map(control).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_and_shares_follow_the_file() {
        for (text, file, weight, start, end) in [
            ("canny=a.png", "a.png", 1.0, 0.0, 1.0),
            ("canny=a.png:0.8", "a.png", 0.8, 0.0, 1.0),
            ("canny=a.png:0.8:0.1-0.6", "a.png", 0.8, 0.1, 0.6),
            ("canny=c:/a=b.png:2", "c:/a=b.png", 2.0, 0.0, 1.0),
            ("canny=2026-11:a.png", "2026-11:a.png", 1.0, 0.0, 1.0),
        ] {
            let choice: ControlChoice = text.parse().expect(text);
            let found = (&choice.file, choice.weight, choice.start, choice.end);
            assert_eq!(found, (&PathBuf::from(file), weight, start, end), "{text}");
            assert_eq!((choice.name.as_str(), choice.to_string()), ("canny", text.to_string()));
        }
        for text in ["canny", "=a.png", "canny=", "canny=a.png:0-0.5"] {
            assert!(text.parse::<ControlChoice>().is_err(), "{text}");
        }
    }
}
