//! Files of weights, mapped into memory: safetensors, and what `torch.save` writes.
//!
//! Nothing in them is trusted: sizes are checked before use. Tensors stay where they are in the
//! file until they are written.

mod find;
mod foreign;
mod pickle;
mod safetensors;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use hydit_input::file;
use memmap2::{Mmap, UncheckedAdvice};

pub(crate) use self::find::{find, is_weights};
pub(crate) use self::view::View;
use crate::error::{Error, Result};

/// A file of weights.
pub(crate) struct WeightsFile {
    /// Where it is.
    pub path: PathBuf,
    /// All tensors, by the names that they have in the file.
    pub tensors: BTreeMap<String, View>,
    map: Mmap,
}

impl WeightsFile {
    /// Maps the file at `path` and reads where its tensors are.
    ///
    /// # Errors
    /// It cannot be read, is of another kind, or damaged.
    pub fn open(path: &Path) -> Result<WeightsFile> {
        let map = map(path)?;
        let tensors = match foreign::kind(&map) {
            Some(what) => Err(what),
            None if pickle::is_one(&map) => pickle::tensors(&map),
            None => safetensors::tensors(&map),
        };
        let tensors = tensors.map_err(Error::content(path))?;
        Ok(WeightsFile { path: path.to_path_buf(), tensors, map })
    }

    /// The elements that `views` show, one after the other, little-endian.
    pub fn bytes(&self, views: &[View]) -> std::borrow::Cow<'_, [u8]> {
        view::gather(&self.map, views)
    }

    /// Gives the memory of `view` back; reading it again reads the file again. So an export needs
    /// the memory of one tensor, not that of the checkpoint.
    pub fn release(&self, view: &View) {
        let extent = view.extent();
        // SAFETY: the mapping is shared with the file and never written, so pages that are dropped
        // come back with the same bytes.
        #[allow(unsafe_code)]
        let advised = unsafe {
            let advice = UncheckedAdvice::DontNeed;
            self.map.unchecked_advise_range(advice, extent.start, extent.len())
        };
        drop(advised); // advice only: an export works without it
    }
}

/// Number of bytes of an element.
pub(crate) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Maps a file for reading.
fn map(path: &Path) -> Result<Mmap> {
    let file = file::open(path).map_err(Error::reading(path))?;
    file::check_whole(&file).map_err(Error::reading(path))?;
    // SAFETY: the mapping is read-only and private to this process. Like every reader of mapped
    // weights we rely on nobody truncating the file during the export; the writer never writes
    // into a checkpoint's folder.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(Error::reading(path))
}
