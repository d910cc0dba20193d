//! The image that a picture is made from: its flags, and the files that they name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use hydit::image::{Decoded, Image};
use hydit::init_image::{InitImage, Mask};
use hydit::request::Parameters;
use hydit::{Request, artifacts::Artifacts};
use hydit_terminal::note;

/// What to make a picture from besides the prompt.
#[derive(Args)]
pub struct InitFlags {
    /// Image to make the picture from: PNG, JPEG or WebP. It is laid on white where it is
    /// transparent, and stretched to the picture's size; without --image-size that is its own, cut
    /// down to multiples of 16.
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// Image that is white or transparent where --init-image is painted anew; the rest stays, as
    /// far as the image's encoder keeps it.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Share of the steps that are taken, above 0 to 1: the more, the less is left of the image
    /// [default: 0.8, with a mask 1].
    #[arg(long, value_name = "SHARE")]
    strength: Option<f64>,
}

/// The files of the flags, read.
pub struct InitFiles {
    image: Decoded,
    mask: Option<Decoded>,
    strength: Option<f64>,
    gives_size: bool,
}

impl InitFlags {
    /// Reads the files. An image whose parameters are `from` needs those that it was made from.
    ///
    /// # Errors
    /// When a file cannot be read, or one is missing.
    pub fn read(&self, from: Option<&Parameters>) -> Result<Option<InitFiles>> {
        let known = from.and_then(|from| from.request.init_image.as_ref());
        let Some(image) = &self.init_image else {
            return match (known, &self.mask, self.strength) {
                (Some(known), ..) => bail!(
                    "--from: the image was made from another, with the SHA-256 {}, which is not in \
                     it: name that with --init-image",
                    known.sha256
                ),
                (None, Some(_), _) => bail!("--mask: there is no --init-image to paint in"),
                (None, None, Some(_)) => bail!("--strength: there is no --init-image to change"),
                (None, None, None) => Ok(None),
            };
        };
        let image = decode("--init-image", image)?;
        let mask = self.mask.as_deref().map(|mask| decode("--mask", mask)).transpose()?;
        if let Some(known) = known {
            match (&known.mask_sha256, &mask) {
                (Some(known), None) => bail!(
                    "--from: the image was made with a mask, with the SHA-256 {known}: name it with \
                     --mask"
                ),
                (Some(known), Some(mask)) => tell_change("--mask", known, mask),
                (None, _) => {}
            }
            tell_change("--init-image", &known.sha256, &image);
        }
        let strength = self.strength.or(known.map(|known| known.strength));
        Ok(Some(InitFiles { image, mask, strength, gives_size: true }))
    }

    /// As [`read`](InitFlags::read), for a plan: it is the same whatever the image shows, so that a
    /// strength alone will do.
    ///
    /// # Errors
    /// Likewise.
    pub fn read_for_plan(&self) -> Result<Option<InitFiles>> {
        match (&self.init_image, &self.mask, self.strength) {
            (None, None, Some(strength)) => Ok(Some(InitFiles::any(strength))),
            _ => self.read(None),
        }
    }
}

impl InitFiles {
    fn any(strength: f64) -> InitFiles {
        let white = Image { width: 1, height: 1, rgb: vec![255; 3] };
        let (image, strength) = (Decoded::from(&white), Some(strength));
        InitFiles { image, mask: None, strength, gives_size: false }
    }

    /// Gives `request` the size of the image, if it has one of its own.
    pub fn set_size(&self, request: &mut Request, artifacts: &Artifacts) {
        if !self.gives_size {
            return;
        }
        let size = InitImage::size(&artifacts.manifest, &self.image);
        let own = (self.image.width(), self.image.height());
        if size != own {
            note(format_args!(
                "note: the image is {}x{}; the picture gets {}x{}",
                own.1, own.0, size.1, size.0
            ));
        }
        (request.width, request.height) = size;
    }

    /// The image for a picture of the size of `request`, whose sides are checked before.
    pub fn fit(&self, request: &Request) -> InitImage {
        let mask = self.mask.as_ref().map(Mask::White);
        InitImage::new(&self.image, mask, self.strength, (request.width, request.height))
    }
}

fn decode(flag: &str, path: &Path) -> Result<Decoded> {
    Decoded::read(path).with_context(|| flag.to_string())
}

fn tell_change(flag: &str, known: &str, file: &Decoded) {
    if file.sha256() != known {
        note(format_args!("note: {flag} is another file than the image of --from was made with"));
    }
}
