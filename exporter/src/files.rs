//! Files of a checkpoint and of an artifact folder, none of which is trusted.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use hydit_input::file;

use crate::error::{Error, Result};

/// The largest config or manifest that is read; real ones have a few KiB.
const MAX_CONFIG: u64 = 4 << 20;

/// Checks before any work that a folder can be written at `path`: it is one, or nothing yet.
pub(crate) fn check_folder(path: &Path) -> Result<()> {
    let refuse = |what: &str| {
        let message = format!("{} is {what}: choose a new or empty folder", path.display());
        Err(Error::Flag { flag: "out", message })
    };
    if path == Path::new("-") {
        return refuse("standard output, and not a folder");
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse("no folder"),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::writing(path)(error)),
        Err(_) if fs::symlink_metadata(path).is_ok() => refuse("a link to nothing"),
        Err(_) => Ok(()),
    }
}

/// Reads a config or a manifest as text; `hint` says what was expected if it does not exist.
pub(crate) fn read_text(path: &Path, hint: &str) -> Result<String> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_path_buf(), hint: hint.to_string() });
    }
    file::read_text(path, MAX_CONFIG).map_err(Error::reading(path))
}
