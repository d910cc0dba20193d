//! What can go wrong between an artifact folder and a picture.

use std::path::PathBuf;

use hydit_graphs::manifest::ManifestError;

use crate::cache::PolicyError;
use crate::image::ImageError;
use crate::runtime::RuntimeError;
use crate::sampler::SamplerError;

/// Errors of loading artifacts and of a request. Every one names the file, graph or field.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    #[error("{path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Artifact { path: PathBuf, message: String },
    #[error("{path}")]
    Manifest { path: PathBuf, source: ManifestError },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("{field}: {message}")]
    Request { field: &'static str, message: String },
    #[error("the prompt cannot be tokenized: {0}")]
    Tokenizer(String),
    #[error(
        "step {step} of {steps}: the prediction is not finite; with an fp16 export try --dtype fp32"
    )]
    NotFinite { step: usize, steps: usize },
}

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;
