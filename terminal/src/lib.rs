//! How the programs speak to people, and nothing else does: `println!` panics when nobody reads.
//!
//! [`run`] is what `main` of a program calls. A command writes its results with [`say`] or
//! [`put`], to standard output, and remarks with [`note`], to standard error. What they write may
//! quote file names, prompts and tensors of strangers, so it is [`plain`] text: a terminal obeys
//! nothing in it.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod about;
mod environment;
mod number;
mod run;
mod text;

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

pub use about::{About, VERSION};
pub use number::whole;
pub use run::{WrongArguments, run};
pub use text::{in_a_line, is_obeyed, plain};

/// Why standard output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has seen enough. That is no failure to tell of: [`run`] ends quietly.
    #[error("standard output was closed")]
    Closed,
    /// The system refuses, as on a full disk.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> OutputError {
        match error.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Write(error),
        }
    }
}

/// Writes a line, or the lines of `text`, to standard output.
///
/// # Errors
/// [`OutputError`].
pub fn say(text: impl Display) -> Result<(), OutputError> {
    write_all(line(&text.to_string()).as_bytes())
}

/// Writes the content of a file to standard output: as it is, but on a terminal as [`plain`] text.
///
/// # Errors
/// [`OutputError`].
pub fn put(bytes: &[u8]) -> Result<(), OutputError> {
    if io::stdout().is_terminal() { say(String::from_utf8_lossy(bytes)) } else { write_all(bytes) }
}

/// Writes a line, or the lines of `text`, to standard error, where nobody has to read it.
pub fn note(text: impl Display) {
    let _ = io::stderr().write_all(line(&text.to_string()).as_bytes());
}

fn write_all(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// `text` as it is printed: plain, with a line break at its end.
fn line(text: &str) -> String {
    let mut line = plain(text).into_owned();
    if !line.ends_with('\n') {
        line.push('\n');
    }
    line
}
