//! Files that are opened and read only if they are files, and not larger than expected.
//!
//! Links are followed, as the folders of the Hugging Face cache consist of them. The errors are
//! those of the system, or say in the same place what is wrong; whoever asked names the file.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The most bytes of a Git LFS pointer, by its specification.
const LFS_BYTES: u64 = 1024;

/// What is wrong with a Git LFS pointer, and what to do.
const LFS_POINTER: &str = "a Git LFS pointer and not the file itself: get it with `git lfs pull`, or \
    download the file by itself";

/// Opens a regular file for reading; never waits, as opening a named pipe would.
///
/// # Errors
/// It is something else, or cannot be opened.
pub fn open(path: &Path) -> Result<File> {
    // Looked at before too, since opening is itself an act on some devices.
    check_regular(fs::metadata(path)?.file_type())?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check_regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Checks that `file` is no Git LFS pointer, which a clone without Git LFS has in place of every
/// large file.
///
/// # Errors
/// It is one, or cannot be read.
pub fn check_whole(file: &File) -> Result<()> {
    const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut bytes = [0; BEGINNING.len()];
    if file.metadata()?.len() > LFS_BYTES {
        return Ok(());
    }
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) if bytes == *BEGINNING => Err(Error::new(ErrorKind::InvalidData, LFS_POINTER)),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(()),
    }
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// It is something else, larger, a Git LFS pointer, or cannot be read.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    check_whole(&file)?;
    let size = file.metadata()?.len();
    let too_large = |size: u64| {
        Err(Error::new(ErrorKind::FileTooLarge, format!("{size} bytes; expected at most {max}")))
    };
    if size > max {
        return too_large(size);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // It may grow, or have no size, as the files of /proc.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { too_large(max + 1) } else { Ok(bytes) }
}

/// Reads a regular file of at most `max` bytes as text.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> Result<String> {
    String::from_utf8(read(path, max)?).map_err(|error| {
        let bytes = error.as_bytes();
        let valid = &bytes[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        Error::new(ErrorKind::InvalidData, format!("not text: line {line} is not UTF-8"))
    })
}

fn check_regular(found: FileType) -> Result<()> {
    let what = if found.is_file() {
        return Ok(());
    } else if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("{what}; expected a regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_none_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").expect("written");
        symlink("file", path("link")).expect("a link");
        symlink("link", path("link-to-link")).expect("a link");
        for name in ["file", "link", "link-to-link"] {
            assert_eq!(read_text(&path(name), 4).expect("it is read"), "text", "{name}");
        }
        mkfifoat(CWD, path("pipe"), Mode::from(0o600)).expect("a pipe");
        let _socket = UnixListener::bind(path("socket")).expect("a socket");
        symlink("pipe", path("link-to-pipe")).expect("a link");
        for (what, expected) in [
            (path("pipe"), "a named pipe; expected a regular file"),
            (path("link-to-pipe"), "a named pipe"),
            (path("socket"), "a socket"),
            (path("."), "a folder"),
            ("/dev/zero".into(), "a device"),
        ] {
            let error = read(&what, 10).expect_err("a refusal").to_string();
            assert!(error.starts_with(expected), "{}: {error}", what.display());
        }
        symlink("circle", path("circle")).expect("a link");
        assert!(read(&path("circle"), 10).is_err());
    }

    #[test]
    fn a_pointer_of_git_lfs_is_not_taken_for_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let pointer =
            "version https://git-lfs.github.com/spec/v1\noid sha256:2f7b\nsize 14544096\n";
        fs::write(&path, pointer).expect("written");
        let error = read_text(&path, 1000).expect_err("a refusal").to_string();
        assert_eq!(error, LFS_POINTER);
    }

    #[test]
    fn no_more_is_read_than_expected() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "12345").expect("written");
        assert_eq!(read(&path, 5).expect("it is read"), b"12345");
        let error = read(&path, 4).expect_err("a refusal").to_string();
        assert_eq!(error, "5 bytes; expected at most 4");
        // A file without a size of its own.
        let error = read(Path::new("/proc/self/maps"), 9).expect_err("a refusal").to_string();
        assert_eq!(error, "10 bytes; expected at most 9");
        fs::write(&path, b"a\nb\n\xff").expect("written");
        let error = read_text(&path, 5).expect_err("a refusal").to_string();
        assert_eq!(error, "not text: line 3 is not UTF-8");
    }
}
