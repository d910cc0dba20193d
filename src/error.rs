//! What can go wrong between an artifact folder and an image.

use std::path::PathBuf;

use hydit_graphs::manifest::ManifestError;
use hydit_input::tokenizer::TokenizerError;

use crate::cache::PolicyError;
use crate::image::ImageError;
use crate::runtime::RuntimeError;
use crate::sampler::SamplerError;

/// An error of loading artifacts or of a request. Each names the file, graph or field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file, or the folder it was to be written to.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of an artifact folder is missing, was changed, or is of no use here.
    #[error("{path}: {message}")]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// A manifest is not understood, or of another version.
    #[error("cannot use the manifest {path}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The backend failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An image failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The sampler cannot do what a request asks for.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The cache policy cannot do what a request asks for.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A field of a request is out of range.
    #[error("{field}: {message}")]
    Request {
        /// The field, by its name in [`Request`](crate::Request).
        field: &'static str,
        /// What it is, and what it may be.
        message: String,
    },
    /// A LoRA that a request names cannot be used with the model.
    #[error(
        "the LoRA {name:?} cannot be used; slots take LoRAs of attention alone, others are merged by hydit-export --lora"
    )]
    Lora {
        /// Name of the LoRA.
        name: String,
        /// What is wrong with its file.
        source: hydit_lora::Error,
    },
    /// A prompt cannot be tokenized.
    #[error("cannot tokenize the prompt")]
    Tokenizer(#[source] TokenizerError),
    /// The decisions of a request are not known before it is drawn.
    #[error(
        "{policy} decides while the picture is drawn: generate shows what it did; a plan needs \
         another cache policy, such as N3 or auto:35dB"
    )]
    Reactive {
        /// The policy.
        policy: String,
    },
    /// The latents of an image hold infinities or NaN.
    #[error("the image encoder's output is not finite; with an fp16 export try --dtype fp32")]
    NotEncoded,
    /// A prediction holds infinities or NaN.
    #[error(
        "step {step} of {steps}: the prediction is not finite; with an fp16 export try --dtype fp32"
    )]
    NotFinite {
        /// Which step, counted from 1.
        step: usize,
        /// The number of steps of the request.
        steps: usize,
    },
}

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;
