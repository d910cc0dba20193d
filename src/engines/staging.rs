//! Where new engines are written, and how they take the place of older ones: the new folder lies
//! beside, and the two are exchanged in one step. A process that is killed leaves the older engines or
//! the new ones, and a hidden folder that the next one removes.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::cache::TIMES;
use super::manifest::{FILE, has_key};
use crate::error::{Error, Result};

/// A folder beside that of engines, which nobody else writes to.
pub struct Staging {
    folder: PathBuf,
    new: PathBuf,
    /// Of the new folder.
    _lock: File,
}

impl Staging {
    /// Makes the folder for what shall take the place of `folder`.
    ///
    /// # Errors
    /// `folder` has files that are no engines, someone else compiles into it, or the folder around it
    /// cannot be written.
    pub fn begin(folder: &Path) -> Result<Staging> {
        let refuse = |message: &str| {
            Err(Error::Artifact { path: folder.to_owned(), message: message.to_string() })
        };
        let writing = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        // Where it leads, if it is a link: that is the folder that is exchanged.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let Some(name) = folder.file_name() else {
            return refuse("expected the name of a folder");
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".hydit-compile");
        let new = folder.with_file_name(hidden);
        check_replaceable(&folder)?;
        let around = new.parent().filter(|path| !path.as_os_str().is_empty());
        fs::create_dir_all(around.unwrap_or(Path::new("."))).map_err(writing(&new))?;
        if let Err(error) = fs::create_dir(&new)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(writing(&new)(error));
        }
        let lock = File::open(&new).map_err(writing(&new))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return refuse("another hydit-serve compiles into it: wait for its end");
            }
            Err(TryLockError::Error(error)) => return Err(writing(&new)(error)),
        }
        let staging = Staging { folder, new, _lock: lock };
        // What was left by one that was killed.
        clear(&staging.new).map_err(writing(&staging.new))?;
        Ok(staging)
    }

    /// The folder to write to.
    pub fn place(&self) -> &Path {
        &self.new
    }

    /// Puts what was written in the place of the older engines, which are removed.
    ///
    /// # Errors
    /// It cannot be moved there; then the older engines stay.
    pub fn put_in_place(self) -> Result<()> {
        let Staging { folder, new, .. } = &self;
        let sync = |path: &Path| File::open(path).and_then(|folder| folder.sync_all());
        let put = sync(new).and_then(|()| match folder.exists() {
            true => {
                check_replaceable(folder).map_err(io::Error::other)?;
                Ok(renameat_with(CWD, new, CWD, folder, RenameFlags::EXCHANGE)?)
            }
            false => fs::rename(new, folder),
        });
        put.map_err(|source| Error::Write { path: folder.clone(), source })?;
        // They are in their place, whatever becomes of the sync.
        let around = folder.parent().filter(|path| !path.as_os_str().is_empty());
        let _ = sync(around.unwrap_or(Path::new(".")));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What was not put in its place, or what was there before.
        let _ = fs::remove_dir_all(&self.new);
    }
}

/// Checks that `folder` is not there, or holds engines and nothing else.
fn check_replaceable(folder: &Path) -> Result<()> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read(error)),
    };
    for entry in entries {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(is_ours);
        if !ours || !entry.file_type().map_err(read)?.is_file() {
            let message = format!(
                "it holds {}, which is no engine: choose a new or empty folder",
                name.to_string_lossy().escape_debug()
            );
            return Err(Error::Artifact { path: folder.to_owned(), message });
        }
    }
    Ok(())
}

/// Whether a file of this name is of engines: the manifest, TensorRT's times of kernels, or a name with a
/// key in it.
fn is_ours(name: &str) -> bool {
    name == FILE || name.ends_with(TIMES) || has_key(name)
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("a name")
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn new_engines_take_the_place_of_older_ones_whole_or_not_at_all() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("engines");
        for name in ["a-0123456789abcdef.onnx", "b-0123456789abcdef_P.bin"] {
            let staging = Staging::begin(&folder).expect("a staging folder");
            let message = Staging::begin(&folder).err().expect("a refusal").to_string();
            assert!(message.contains("another hydit-serve compiles into it"), "{message}");
            fs::write(staging.place().join(name), "new").expect("written");
            fs::write(staging.place().join(FILE), "new").expect("written");
            staging.put_in_place().expect("moved");
            assert_eq!(files(&folder), [name, FILE]);
            assert_eq!(files(root.path()), ["engines"]);
        }
        let before = files(&folder);
        let staging = Staging::begin(&folder).expect("a staging folder");
        fs::write(staging.place().join("c-0123456789abcdef.onnx"), "half").expect("written");
        // As a process that is killed.
        let left = staging.place().to_owned();
        std::mem::forget(staging);
        assert_eq!(files(&folder), before);
        assert_eq!(files(&left).len(), 1);
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed() {
        let root = tempfile::tempdir().expect("a folder");
        let left = root.path().join(".engines.hydit-compile");
        fs::create_dir_all(left.join("inner")).expect("a folder");
        fs::write(left.join("half.onnx"), "half").expect("written");
        let staging = Staging::begin(&root.path().join("engines")).expect("a staging folder");
        assert_eq!(files(staging.place()), Vec::<String>::new());
        drop(staging);
        assert_eq!(files(root.path()), Vec::<String>::new());
    }

    #[test]
    fn a_folder_of_other_files_is_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        for name in
            ["notes.txt", "a-0123456789abcde.onnx", "0123456789abcdef.onnx", "manifest.yaml"]
        {
            let folder = root.path().join("engines");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(name), "mine").expect("written");
            let message = Staging::begin(&folder).err().expect("a refusal").to_string();
            assert!(message.contains(&format!("it holds {name}, which is no engine")), "{message}");
            assert_eq!(fs::read_to_string(folder.join(name)).expect("there"), "mine");
            fs::remove_dir_all(&folder).expect("removed");
        }
        assert_eq!(files(root.path()), Vec::<String>::new());
    }
}
