//! The ControlNets that a request asks for, as clients name them.

use axum::body::Bytes;
use hydit::Control;
use hydit::control::Preprocess;
use hydit::image::Decoded;
use hydit::util::error_chain;
use serde::Deserialize;

use super::init_image::{FileError, one_at_a_time};

/// The field.
pub const FIELD: &str = "control";

/// A ControlNet of a request.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct ControlField {
    /// Its name in the export.
    pub name: String,
    /// File of the image that it reads, in base64; not where the files of a form are meant.
    pub image: Option<String>,
    pub weight: Option<f32>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    /// What is made of the image before.
    pub preprocess: Option<Preprocess>,
}

impl ControlField {
    /// The net with the image `file`, for a picture of `size` = (width, height).
    ///
    /// # Errors
    /// The file is no image that is read.
    pub fn fit(&self, file: &Bytes, size: (usize, usize)) -> Result<Control, FileError> {
        let _one_at_a_time = one_at_a_time();
        let image = Decoded::new(file).map_err(|error| {
            let message = format!("the image of {}: {}", self.name, error_chain(&error));
            FileError { field: FIELD, message }
        })?;
        let preprocess = self.preprocess.unwrap_or_default();
        let plain = Control::new(&self.name, &image, preprocess, size);
        Ok(Control {
            weight: self.weight.unwrap_or(plain.weight),
            start: self.start.unwrap_or(plain.start),
            end: self.end.unwrap_or(plain.end),
            ..plain
        })
    }

    /// What asks for the stored `control` again.
    pub fn of(control: &Control) -> ControlField {
        ControlField {
            name: control.name.clone(),
            image: None,
            weight: Some(control.weight),
            start: Some(control.start),
            end: Some(control.end),
            preprocess: Some(control.preprocess),
        }
    }
}
