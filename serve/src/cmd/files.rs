//! The files that flags name.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hydit::image::read_png;
use hydit::request::Parameters;

/// Reads how the image of a PNG was made.
///
/// # Errors
/// When the file cannot be read or has no parameters in it; the error names it.
pub fn read_parameters(path: &Path) -> Result<Parameters> {
    let (_, texts) = read_png(path)?; // its errors name the file
    Parameters::from_texts(&texts).with_context(|| path.display().to_string())
}

/// Checks before any work that a file can be written at `path`, which `flag` names.
///
/// # Errors
/// When `path` is a folder, or its folder is missing or write-protected.
pub fn check_writable(flag: &str, path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{flag}: {} is a folder; name a file in it", path.display());
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    tempfile::tempfile_in(folder).with_context(|| {
        format!("{flag}: cannot write into {}; choose a folder you may write to", folder.display())
    })?;
    Ok(())
}
