//! What an export that was killed has left, cleaned up by the next one into the same folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hydit_graphs::{manifest, parse_yaml};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::files::read_text;
use crate::lock::LOCK;
use crate::staging::{INSIDE, PREFIX, REPLACED, UNFINISHED};

/// Cleans up the artifact folder `out` and the folder `beside` it; whether there was something in
/// `out`. Whoever calls holds the lock of `out`.
///
/// # Errors
/// A file cannot be removed, or is not of an export.
pub(crate) fn clean_up(out: &Path, beside: Option<&Path>) -> Result<bool> {
    if let Some(beside) = beside {
        clean_up_beside(out, beside)?;
    }
    let inside = out.join(INSIDE);
    let mut left = inside.is_dir();
    if left {
        remove_unfinished(&inside, out).map_err(Error::writing(&inside))?;
    }
    for entry in fs::read_dir(out).map_err(Error::reading(out))? {
        let entry = entry.map_err(Error::reading(out))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(PREFIX) && name != LOCK;
        if ours && entry.file_type().is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(entry.path()).map_err(Error::writing(entry.path()))?;
            left = true;
        }
    }
    Ok(left)
}

/// Removes the folder of new files, or of the older export if the two were exchanged already.
fn clean_up_beside(out: &Path, beside: &Path) -> Result<()> {
    let exists = |name: &str| fs::symlink_metadata(beside.join(name)).is_ok();
    let removed = if exists(UNFINISHED) {
        remove_unfinished(beside, out)
    } else if exists(LOCK) {
        let older = [beside, out].map(|folder| files_of_export(folder).unwrap_or_default());
        let ours =
            |name: &str| older.iter().any(|files| files.contains(name)) || name.starts_with(PREFIX);
        give_back(beside, out, &ours)
    } else {
        match fs::remove_dir(beside) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    };
    removed.map_err(|error| {
        let message = format!(
            "{} is in the way of writing {} and cannot be removed ({error}): move it away",
            beside.display(),
            out.display()
        );
        Error::Flag { flag: "out", message }
    })
}

/// Removes a folder of new files. If some of them have been moved to their places already, these
/// are removed, and what they have replaced is put back.
fn remove_unfinished(new: &Path, out: &Path) -> io::Result<()> {
    let replaced = new.join(REPLACED);
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    if exists(&replaced.join(manifest::FILE)) && !exists(&out.join(manifest::FILE)) {
        for name in files_of_export(new).unwrap_or_default() {
            let moved = out.join(&name);
            if !exists(&new.join(&name)) && exists(&moved) {
                fs::remove_file(moved)?;
            }
        }
        let mut names: Vec<_> = fs::read_dir(&replaced)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort_by_key(|name| name == manifest::FILE);
        names.iter().try_for_each(|name| fs::rename(replaced.join(name), out.join(name)))?;
    }
    fs::remove_dir_all(new)
}

/// Removes the folder `old`, which was exchanged for `out`: its files that are `ours`, by name, and
/// links to what is in `out` too. Anything else is moved to `out`.
///
/// # Errors
/// A file cannot be removed or moved; what is left stays.
pub(crate) fn give_back(old: &Path, out: &Path, ours: &dyn Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(old)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(ours);
        if !is_ours || entry.file_type()?.is_dir() {
            give_back_one(&entry.path(), &out.join(name))?;
        } else if name != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    let _ = fs::remove_file(old.join(LOCK)); // the last, since it says whose folder this is
    fs::remove_dir(old)
}

fn give_back_one(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
        Ok(kept) if (kept.dev(), kept.ino()) == (found.dev(), found.ino()) => fs::remove_file(from),
        Ok(kept) if kept.is_dir() && found.is_dir() => {
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                give_back_one(&entry.path(), &to.join(entry.file_name()))?;
            }
            fs::remove_dir(from)
        }
        Ok(_) => Err(io::Error::other(format!("{} is there already", to.display()))),
    }
}

/// The names of the files of the export in `folder` with the manifest, of whatever version that is;
/// `None` without one that can be read.
pub(crate) fn files_of_export(folder: &Path) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Files {
        files: BTreeMap<String, IgnoredAny>,
    }
    let text = read_text(&folder.join(manifest::FILE), "").ok()?;
    let Files { files } = parse_yaml(&text).ok()?;
    let plain = files.into_keys().filter(|name| manifest::is_plain(name));
    Some(plain.chain([manifest::FILE.to_string()]).collect())
}
