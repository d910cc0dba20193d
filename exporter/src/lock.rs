//! A locked file, which keeps a second export out of a folder.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// The file that an export holds locked in an artifact folder.
pub(crate) const LOCK: &str = ".hydit-export-lock";

/// The locked file of a folder. With it goes the folder, if it was made here and is empty.
pub(crate) struct Lock {
    file: File,
    folder: PathBuf,
    made: bool,
}

impl Lock {
    /// Makes `folder` if there is none, and locks it.
    ///
    /// # Errors
    /// Another export holds it locked, or it cannot be written to.
    pub fn of(folder: &Path) -> Result<Lock> {
        let path = folder.join(LOCK);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        loop {
            let made = !folder.exists();
            fs::create_dir_all(folder).map_err(Error::writing(folder))?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).custom_flags(flags);
            let file = match options.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // see below
                opened => opened.map_err(Error::writing(folder))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy(folder)),
                Err(TryLockError::Error(error)) => return Err(Error::writing(path)(error)),
            }
            let lock = Lock { file, folder: folder.to_path_buf(), made };
            // An export that has ended in between has taken the file or the folder with it.
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
    }

    /// Leaves the folder where it is in the end.
    pub fn keep_folder(&mut self) {
        self.made = false;
    }

    /// Says that the folders of two locks have changed places.
    pub fn exchange_folders(&mut self, other: &mut Lock) {
        std::mem::swap(&mut self.folder, &mut other.folder);
    }

    /// Whether the file of this name in the folder is still the one that is locked.
    fn is_in_place(&self) -> bool {
        let found = fs::symlink_metadata(self.folder.join(LOCK));
        let same = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        found.ok().zip(self.file.metadata().ok()).is_some_and(|(a, b)| same(a, b))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(self.folder.join(LOCK));
        }
        if self.made {
            let _ = fs::remove_dir(&self.folder); // fails if something is in it, as it should
        }
    }
}

fn busy(folder: &Path) -> Error {
    let message = format!(
        "another export is writing to {}: wait for its end, or choose another folder",
        folder.display()
    );
    Error::Flag { flag: "out", message }
}
