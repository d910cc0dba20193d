//! Files that are written where somebody has said: whole or not at all, and never in place of what
//! is no file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// How many links lead from one to the next at most: as many as Linux follows.
const MAX_LINKS: usize = 40;

/// What is written to at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A regular file, or nothing yet, at this path, which is no symbolic link.
    File(PathBuf),
    /// A pipe or a device such as `/dev/null`, which takes bytes and stays what it is.
    Stream,
}

impl Destination {
    /// Where `path` leads. Symbolic links are followed, also to a file that is not there yet.
    ///
    /// # Errors
    /// When it is a folder, a socket or a disk, or cannot be reached.
    pub fn of(path: &Path) -> Result<Destination> {
        let no_file = |what| Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}")));
        let found = match fs::metadata(path) {
            Ok(found) => Some(found.file_type()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match found {
            Some(kind) if kind.is_char_device() || kind.is_fifo() => Ok(Destination::Stream),
            Some(kind) if kind.is_dir() => no_file("a folder; name a file in it"),
            Some(kind) if kind.is_socket() => no_file("a socket; name a file"),
            Some(kind) if !kind.is_file() => no_file("a disk; name a file"),
            found => {
                let file = without_links(path)?;
                let name = file.file_name().unwrap_or_default();
                if !file.as_os_str().as_bytes().ends_with(name.as_bytes()) {
                    return no_file("the name of a folder; name a file in it"); // `cats/`
                }
                // `/dev/fd/3` may be a link to the name of a file that has none any more.
                let nameless = found.is_some() && fs::symlink_metadata(&file).is_err();
                if nameless { Ok(Destination::Stream) } else { Ok(Destination::File(file)) }
            }
        }
    }
}

fn without_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => {
                path.pop();
                path.push(target);
            }
            Err(_) => return Ok(path), // no link, or nothing there
        }
    }
    Err(Error::new(ErrorKind::InvalidInput, "too many symbolic links in a row"))
}

/// Writes `bytes` to where `path` leads, as [`Destination::of`] says. A file is written beside its
/// place, synced and renamed, so that it never holds half of them, not even after a power loss; it keeps
/// its permissions.
///
/// # Errors
/// When it is no file, pipe or device, or cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    match Destination::of(path)? {
        Destination::Stream => {
            OpenOptions::new().write(true).truncate(true).open(path)?.write_all(bytes)
        }
        Destination::File(file) => replace(&file, bytes),
    }
}

/// Writes `bytes` to a new file at `path`, whole or not at all, as [`write_whole`].
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] where something is there already, which stays as it is; also when it
/// cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let (mut file, folder) = beside(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A file without a name of its own yet in the folder of `path`, and that folder.
fn beside(path: &Path) -> Result<(NamedTempFile, &Path)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        // Temporary files are private by default; this one has the permissions of any new file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    Ok((file, folder))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let (mut file, folder) = beside(path)?;
    if let Ok(old) = fs::metadata(path) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    // Else a power loss could leave the new name to a file without its bytes.
    file.as_file().sync_all()?;
    match file.persist(path) {
        // The new file is in its place, whatever becomes of the sync.
        Ok(_) => {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        }
        // A file that is mounted by itself, as into a container, cannot be replaced.
        Err(error) if error.error.kind() == ErrorKind::ResourceBusy => fs::write(path, bytes),
        Err(error) => Err(error.error),
    }
}
