//! The errors of reading a checkpoint and writing an artifact folder.

use std::io;
use std::path::PathBuf;

use crate::report::TensorReport;

/// The reason why a checkpoint cannot be exported, or an artifact folder not be read or written.
/// The message names the file, tensor or flag; the cause, if there is one, is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading a file or folder failed.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// Writing a file or folder failed.
    #[error("cannot write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// A file of the checkpoint cannot be in the artifact folder too.
    #[error(
        "{path} cannot be in {out} too: the two folders must be on one file system, and the file be \
         yours or writable; or export with --weights copy"
    )]
    Link {
        /// The file.
        path: PathBuf,
        /// Where the file was to get a second name.
        out: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// A file or folder does not exist.
    #[error("{path}: not found; {hint}")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What was expected there, or what to do.
        hint: String,
    },
    /// The content of a file cannot be used: it is too large, damaged or not supported.
    #[error("cannot use {path}")]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with the content.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configs of two components contradict each other.
    #[error("configs disagree: {0}")]
    Disagree(String),
    /// A LoRA cannot be used.
    #[error(transparent)]
    Lora(#[from] hydit_lora::Error),
    /// An option has a value that cannot be used.
    #[error("--{flag}: {message}")]
    Flag {
        /// Name of the program's flag for the option.
        flag: &'static str,
        /// What is wrong with the value, and what to use instead.
        message: String,
    },
    /// Tensors of the checkpoint do not fit its configs.
    #[error(transparent)]
    Tensors(#[from] TensorReport),
    /// A tensor has a value that cannot be written.
    #[error("cannot convert tensor `{tensor}` of {component}")]
    Values {
        /// Name of the component: its folder in diffusers' layout, and for a ControlNet its own.
        component: String,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with the value.
        source: ValueError,
    },
}

/// A value of a tensor that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is infinite or not a number.
    #[error("it has the value {0}; the file is damaged or training diverged")]
    NotFinite(f32),
    /// The value is too large for the element type of the graph.
    #[error("it has the value {value}, beyond {dtype}; export with --dtype fp32")]
    TooLarge {
        /// The value that the element type cannot hold.
        value: f32,
        /// Name of the element type.
        dtype: &'static str,
    },
}

/// A `Result` with the [`enum@Error`] of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Turns an I/O error into that of reading `path`.
    pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        |source| Error::Read { path: path.into(), source }
    }

    /// Turns an I/O error into that of writing `path`.
    pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        |source| Error::Write { path: path.into(), source }
    }

    /// Turns a message or an error into that of the content of `path`.
    pub(crate) fn content<E>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        |source| Error::Content { path: path.into(), source: source.into() }
    }
}
