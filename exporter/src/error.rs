//! What can be wrong with a checkpoint or an export.

use std::path::PathBuf;

use hydit_graphs::config::ConfigError;

/// Errors of reading a checkpoint and writing artifacts. Every one names the file or tensor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    #[error("{path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: not found; {mend}")]
    Missing { path: PathBuf, mend: String },
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("{path}")]
    Config { path: PathBuf, source: ConfigError },
    #[error("{0}")]
    Disagree(String),
    #[error("--{flag}: {message}")]
    Flag { flag: &'static str, message: String },
    #[error("{0}")]
    Tensors(crate::checkpoint::Report),
    /// Replaced by the reason before anyone sees it.
    #[error("writing has stopped")]
    Stopped,
    #[error("tensor `{name}` of {component}: {message}")]
    Values { component: &'static str, name: String, message: String },
}

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds the path to an I/O error.
pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    |source| Error::Io { path, source }
}
