//! The files of images that come with a request, and what a picture is made from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use hydit::image::{Decoded, ImageError};
use hydit::init_image::{InitImage, Mask};
use hydit::util::error_chain;
use hydit_graphs::Manifest;

use super::control::FIELD;

/// Files that a request has brought along.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The image that a picture is made from.
    pub image: Option<Bytes>,
    /// An image that is transparent where that is painted anew.
    pub mask: Option<Bytes>,
    /// Whether the mask is white there as well.
    pub is_white: bool,
    /// The images of ControlNets, in the order of these.
    pub controls: Vec<Bytes>,
    /// The image beside the prompt.
    pub image_prompt: Option<Bytes>,
}

/// To be held while an image is decoded: one of the most pixels takes half a gigabyte.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FileError {
    /// The field that the file came in.
    pub field: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The images of a request, decoded.
#[derive(Default)]
pub struct Images {
    /// What a picture is made from.
    pub init: Option<InitImages>,
    /// The image beside the prompt.
    pub prompt: Option<Decoded>,
}

/// What a picture is made from, decoded.
pub struct InitImages {
    image: Decoded,
    mask: Option<Decoded>,
    is_white: bool,
}

impl Files {
    /// The files: the image, the mask, those of ControlNets, that of the prompt.
    pub fn bytes(&self) -> Vec<Bytes> {
        let made_from = self.image.iter().chain(&self.mask);
        made_from.chain(&self.controls).chain(&self.image_prompt).cloned().collect()
    }

    /// Checks that they have no more than `most` bytes together.
    ///
    /// # Errors
    /// They have more.
    pub fn check_bytes(&self, most: usize) -> Result<(), FileError> {
        let bytes = self.bytes().iter().map(Bytes::len).sum::<usize>();
        if bytes <= most {
            return Ok(());
        }
        let field = match (&self.image, &self.image_prompt) {
            (Some(_), _) => "image",
            (None, Some(_)) => "image_prompt",
            (None, None) => FIELD,
        };
        let message = format!("{bytes} bytes, all files together; at most {most} are taken");
        Err(FileError { field, message })
    }

    /// Decodes what a picture is made from, and the image beside the prompt.
    ///
    /// # Errors
    /// A file is no image that is read, or there is a mask that says nothing.
    pub fn decode(&self) -> Result<Images, FileError> {
        let refuse = |field, message: String| Err(FileError { field, message });
        if self.image.is_none() && self.mask.is_some() {
            return refuse("mask", "there is no image to paint in".to_string());
        }
        let _one_at_a_time = one_at_a_time();
        let decoded = |field, file: &Option<Bytes>| {
            let told = |error: ImageError| FileError { field, message: error_chain(&error) };
            file.as_ref().map(|file| Decoded::new(file).map_err(told)).transpose()
        };
        let (image, mask) = (decoded("image", &self.image)?, decoded("mask", &self.mask)?);
        if mask.as_ref().is_some_and(|mask| !self.is_white && !mask.has_alpha()) {
            let why = "it has no transparency, which says what is painted anew";
            return refuse("mask", why.to_string());
        }
        let init = image.map(|image| InitImages { image, mask, is_white: self.is_white });
        Ok(Images { init, prompt: decoded("image_prompt", &self.image_prompt)? })
    }
}

impl InitImages {
    /// The size of a picture that is not asked for in another: (width, height).
    pub fn size(&self, manifest: &Manifest) -> (usize, usize) {
        InitImage::size(manifest, &self.image)
    }

    /// What a picture of `size` = (width, height) is made from.
    pub fn fit(&self, strength: Option<f64>, size: (usize, usize)) -> InitImage {
        let kind = if self.is_white { Mask::White } else { Mask::Transparent };
        let mask = self.mask.as_ref().map(kind);
        InitImage::new(&self.image, mask, strength, size)
    }
}
