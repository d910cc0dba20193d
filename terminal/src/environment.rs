//! Flags that have an environment variable: what is odd about its value is told by its name.
//!
//! clap reads the variables, but tells of a wrong one as of a flag that nobody has given, and it
//! takes an empty one, as Compose files make them of what is not set, for a value.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Error};

/// `command`, which reads no variable that is empty or wrong.
pub fn without_unusable(command: Command) -> Command {
    let command = command.mut_args(|argument| match variable(&argument) {
        Some((_, value)) if value.is_empty() || wrong(&argument, &value).is_some() => {
            argument.env(Resettable::Reset)
        }
        _ => argument,
    });
    command.mut_subcommands(without_unusable)
}

/// Checks the variables of the subcommand that `matches` names, where no flag has overruled them.
///
/// # Errors
/// The first that is wrong. An empty one counts as not set, unless it would be a secret.
pub fn check(command: &Command, matches: &ArgMatches) -> Result<(), Error> {
    for argument in command.get_arguments() {
        let given = matches.value_source(argument.get_id().as_str());
        let Some((name, value)) = variable(argument) else { continue };
        if given == Some(ValueSource::CommandLine) {
            continue;
        }
        if let Some(why) = wrong(argument, &value) {
            let name = name.to_string_lossy();
            return Err(Error::raw(ErrorKind::InvalidValue, format!("{name}: {why}\n")));
        }
    }
    match matches.subcommand() {
        Some((name, matches)) => {
            check(command.find_subcommand(name).expect("clap has found it"), matches)
        }
        None => Ok(()),
    }
}

fn variable(argument: &Arg) -> Option<(OsString, OsString)> {
    let name = argument.get_env()?;
    Some((name.to_os_string(), env::var_os(name)?))
}

/// What is wrong with `value`, which the variable of `argument` has, and what to do.
fn wrong(argument: &Arg, value: &OsStr) -> Option<String> {
    let secret = argument.is_hide_env_values_set();
    let Some(text) = value.to_str() else { return Some("its value is not UTF-8".to_string()) };
    if text.is_empty() {
        let why = "it is empty, which would let anyone in; give it a value, or unset it";
        return secret.then(|| why.to_string());
    }
    if text.len() > 1 && ["\"", "'"].iter().any(|q| text.starts_with(q) && text.ends_with(q)) {
        return Some(
            "its value is in quotes, which are taken as part of it; omit them".to_string(),
        );
    }
    if text != text.trim() {
        return Some("its value begins or ends with white space; omit it".to_string());
    }
    if text.contains(char::is_control) {
        return Some("its value has a control character in it, as of a line break".to_string());
    }
    let alone = Command::new("variable").arg(argument.clone().env(Resettable::Reset));
    let mut flag = OsString::from(format!("--{}=", argument.get_long()?));
    flag.push(value);
    let refused = alone.try_get_matches_from([OsStr::new(""), &flag]).err()?.to_string();
    // Without its usage, on one line.
    let reason = refused.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(if secret { "its value cannot be read".to_string() } else { reason })
}
