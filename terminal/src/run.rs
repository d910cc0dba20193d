//! A program from its arguments to its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Error;
use clap::Parser;

use crate::{OutputError, note};

/// The exit code when standard output was closed: what a shell tells of a program that the signal
/// SIGPIPE has ended. Not 0, since the rest was not done.
const CLOSED: u8 = 128 + 13;

/// Runs `command` on the arguments of the process. An error is printed with its causes, and the
/// exit code tells of it: 2 of wrong arguments, 1 of any other.
pub fn run<C: Parser>(command: impl FnOnce(C) -> Result<(), Error>) -> ExitCode {
    let done = match C::try_parse() {
        Ok(parsed) => command(parsed),
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        Err(help) => print(&help),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OutputError::Closed))) {
        return ExitCode::from(CLOSED);
    }
    note(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}

/// Prints help or the version.
fn print(help: &clap::Error) -> Result<(), Error> {
    help.print().and_then(|()| io::stdout().flush()).map_err(OutputError::from)?;
    Ok(())
}
