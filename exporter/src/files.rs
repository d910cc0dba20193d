//! Bounded reading of files, none of which is trusted.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// The largest config or manifest that is read; real ones have a few KiB.
const MAX_CONFIG: u64 = 4 << 20;

/// Reads a config or a manifest as text; `hint` says what was expected if it does not exist.
pub(crate) fn read_text(path: &Path, hint: &str) -> Result<String> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_path_buf(), hint: hint.to_string() });
    }
    check_size(path, MAX_CONFIG)?;
    fs::read_to_string(path).map_err(Error::reading(path))
}

/// Checks that a file has at most `max` bytes.
pub(crate) fn check_size(path: &Path, max: u64) -> Result<()> {
    let size = fs::metadata(path).map_err(Error::reading(path))?.len();
    if size > max {
        let message = format!("{size} bytes; expected at most {max}");
        return Err(Error::content(path)(message));
    }
    Ok(())
}
