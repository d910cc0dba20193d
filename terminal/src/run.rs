//! A program from its arguments to its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Error;
use clap::Parser;

use crate::number::with_numbers;
use crate::{OutputError, environment, note, plain, text};

/// The exit code when standard output was closed: what a shell tells of a program that the signal
/// SIGPIPE has ended. Not 0, since the rest was not done.
const CLOSED: u8 = 128 + 13;
/// Most characters of a line of an error: what it is about comes first, what is wrong last.
const MOST: usize = 2000;

/// What the arguments ask for and cannot be had, with the exit code of wrong arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongArguments(pub String);

/// Runs `command` on the arguments of the process. An error is printed with its causes, and the
/// exit code tells of it: 2 of wrong arguments, 1 of any other.
pub fn run<C: Parser>(command: impl FnOnce(C) -> Result<(), Error>) -> ExitCode {
    let done = match parse() {
        Ok(parsed) => command(parsed),
        Err(error) if error.use_stderr() => {
            usage(&error);
            return ExitCode::from(2);
        }
        Err(help) => print(&help),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OutputError::Closed))) {
        return ExitCode::from(CLOSED);
    }
    // A list of ours is indented; any other line break belongs to what is quoted.
    let told = format!("error: {error:#}");
    let lines = told.trim_end().split("\n  ").map(|line| text::without_middle(line, MOST));
    note(lines.collect::<Vec<_>>().join("\n  "));
    if error.is::<WrongArguments>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The arguments.
fn parse<C: Parser>() -> Result<C, clap::Error> {
    let command = with_numbers(C::command());
    let matches = environment::without_unusable(command.clone()).try_get_matches()?;
    environment::check(&command, &matches)?;
    C::from_arg_matches(&matches)
}

/// Prints help or the version.
fn print(help: &clap::Error) -> Result<(), Error> {
    help.print().and_then(|()| io::stdout().flush()).map_err(OutputError::from)?;
    Ok(())
}

/// Prints why the arguments are wrong, in colours unless it quotes what a terminal obeys.
fn usage(error: &clap::Error) {
    let rendered = error.render().to_string();
    if plain(&rendered) == rendered {
        let _ = error.print();
    } else {
        note(rendered);
    }
}
