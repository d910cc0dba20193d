//! The files that flags name.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hydit::files::{Destination, write_whole};
use hydit::image::read_texts;
use hydit::request::Parameters;
use hydit_terminal::{OutputError, note, put, say};
use rustix::fs::{Access, access, fstat};

/// Reads how the image of a PNG was made.
///
/// # Errors
/// When the file cannot be read or has no parameters in it; the error names it.
pub fn read_parameters(path: &Path) -> Result<Parameters> {
    let texts = read_texts(path)?; // its errors name the file
    Parameters::from_texts(&texts).with_context(|| path.display().to_string())
}

/// A file that a flag wants written. It is checked before any work, and written at its end.
#[derive(Clone, Debug)]
pub struct Output {
    flag: &'static str,
    path: PathBuf,
    to: To,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    /// Standard output: `-`, or another name of it.
    Standard,
    /// A pipe or device.
    Stream(PathBuf),
    /// A regular file, which may not be there yet.
    File(PathBuf),
}

impl Output {
    /// Checks that something can be written at `path`, which `flag` names; `-` is standard output.
    ///
    /// # Errors
    /// When `path` is no file, pipe or device, its folder is missing, or it is write-protected.
    pub fn new(flag: &'static str, path: &Path) -> Result<Output> {
        let to =
            To::of(path).with_context(|| format!("{flag}: cannot write {}", path.display()))?;
        if let To::File(file) = &to {
            let folder = folder_of(file);
            tempfile::tempfile_in(folder).with_context(|| {
                format!(
                    "{flag}: cannot write into {}; choose a folder you may write to",
                    folder.display()
                )
            })?;
        }
        Ok(Output { flag, path: path.to_path_buf(), to })
    }

    /// Gives it back unless it is a terminal.
    ///
    /// # Errors
    /// When it is one, which would take the bytes of an image for text.
    pub fn refuse_terminal(self) -> Result<Output> {
        if self.is_standard() && io::stdout().is_terminal() {
            bail!(
                "{}: standard output is a terminal, which cannot show an image; name a file, or \
                 send it into a pipe",
                self.flag
            );
        }
        Ok(self)
    }

    /// Whether this is standard output, so that nothing else may be written there.
    pub fn is_standard(&self) -> bool {
        self.to == To::Standard
    }

    /// Whether this is a regular file, which has a name of its own and names beside it.
    pub fn is_file(&self) -> bool {
        matches!(self.to, To::File(_))
    }

    /// Whether both are written to the same place.
    pub fn is_same(&self, other: &Output) -> bool {
        match (&self.to, &other.to) {
            (To::File(a), To::File(b)) => {
                a.file_name() == b.file_name()
                    && folder_of(a).canonicalize().ok() == folder_of(b).canonicalize().ok()
            }
            (a, b) => a == b,
        }
    }

    /// The flag that names it.
    pub fn flag(&self) -> &'static str {
        self.flag
    }

    /// The path as the flag has it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `bytes`: a file whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; the error names it.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        if self.is_standard() {
            return Ok(put(bytes)?);
        }
        write_whole(&self.path, bytes).with_context(|| format!("cannot write {self}"))
    }
}

/// Tells `text` to people: on standard output, unless one of the `files` is that.
///
/// # Errors
/// When standard output cannot be written.
pub fn tell<'a>(
    files: impl IntoIterator<Item = &'a Output>,
    text: impl fmt::Display,
) -> Result<(), OutputError> {
    if files.into_iter().any(Output::is_standard) {
        note(text);
        return Ok(());
    }
    say(text)
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Standard => f.write_str("standard output"),
            _ => self.path.display().fmt(f),
        }
    }
}

impl To {
    fn of(path: &Path) -> io::Result<To> {
        let found = fs::metadata(path);
        if path == Path::new("-") || found.as_ref().is_ok_and(is_standard_output) {
            return Ok(To::Standard);
        }
        let destination = Destination::of(path)?;
        if found.is_ok() {
            access(path, Access::WRITE_OK)?; // what is written beside it and renamed would pass
        }
        Ok(match destination {
            Destination::Stream => To::Stream(path.to_path_buf()),
            Destination::File(file) => To::File(file),
        })
    }
}

/// Whether a file is what this process writes to as standard output, under any of its names. What
/// a device such as `/dev/null` is opened as makes no difference.
fn is_standard_output(found: &Metadata) -> bool {
    let device = found.file_type().is_char_device() && !io::stdout().is_terminal();
    !device
        && fstat(io::stdout())
            .is_ok_and(|out| (out.st_dev, out.st_ino) == (found.dev(), found.ino()))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}
