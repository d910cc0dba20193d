//! The errors of reading a LoRA.

use std::io;
use std::path::PathBuf;

/// The reason why a LoRA cannot be used, in a line that names its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading a file failed.
    #[error("cannot read the LoRA {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// The content of a file cannot be used.
    #[error("cannot use the LoRA {path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The tensor or field, what is wrong with it, and what to do.
        problem: String,
    },
}

/// A `Result` with the [`enum@Error`] of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A name out of a file, short and without control characters.
pub(crate) fn shown(name: &str) -> String {
    const MOST: usize = 120;
    let short: String = name.chars().take(MOST).flat_map(char::escape_debug).collect();
    if name.chars().count() > MOST { format!("`{short}...`") } else { format!("`{short}`") }
}
