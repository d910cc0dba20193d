//! Licence and notice files of a checkpoint, which go where its weights go.

use std::fs;
use std::path::Path;

use hydit_input::file;

use crate::error::{Error, Result};
use crate::writer::Folder;

/// The largest licence that is copied; real ones have some 20 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// Copies the licence and notice files of `roots`, each with its prefix before their names, and says
/// that the weights there were converted.
pub(crate) fn copy<'a>(
    roots: impl Iterator<Item = (&'a Path, &'static str)>,
    folder: &mut Folder,
) -> Result<()> {
    for (root, prefix) in roots {
        copy_from(root, prefix, folder)?;
    }
    let notice = concat!(
        "The weights in this folder were converted to ONNX by hydit-export ",
        env!("CARGO_PKG_VERSION"),
        ", without changing what they compute.\nThey are a derivative of the checkpoint they were \
         read from, and its licence applies to them.\n"
    );
    folder.write_bytes("CONVERTED.txt", notice)
}

fn copy_from(root: &Path, prefix: &str, folder: &mut Folder) -> Result<()> {
    let entries = fs::read_dir(root).map_err(Error::reading(root))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        let upper = name.to_uppercase();
        if upper.starts_with("LICENSE") || upper.starts_with("NOTICE") {
            let path = root.join(&name);
            check_inside(root, &path)?;
            let text = file::read(&path, MAX_BYTES).map_err(Error::reading(&path))?;
            folder.write_bytes(&format!("{prefix}{name}"), text)?;
        }
    }
    Ok(())
}

/// Checks that `path` is no link out of the checkpoint `root`: what is copied is given away with
/// the export. In the Hugging Face cache all files of a snapshot are links to the blobs beside it.
pub(crate) fn check_inside(root: &Path, path: &Path) -> Result<()> {
    if !path.is_symlink() {
        return Ok(());
    }
    let target = path.canonicalize().map_err(Error::reading(path))?;
    let root = root.canonicalize().map_err(Error::reading(root))?;
    let snapshots = root.parent().filter(|folder| folder.ends_with("snapshots"));
    let blobs = snapshots.map(|folder| folder.with_file_name("blobs"));
    if target.starts_with(&root) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(());
    }
    let message = format!(
        "it would be copied, and is a link to {}, outside of the checkpoint: put the file itself there",
        target.display()
    );
    Err(Error::content(path)(message))
}
