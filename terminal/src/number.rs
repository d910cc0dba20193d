//! Numbers as values of flags: a wrong one is told with what it may be.

use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;

use clap::builder::ValueParser;
use clap::{Arg, Command, value_parser};

/// `command`, of which every value may be written as a negative number, so that it is told what a
/// value must be, not that `-1` is no flag.
pub fn with_numbers(command: Command) -> Command {
    command.mut_args(with_number).mut_subcommands(with_numbers)
}

fn with_number(argument: Arg) -> Arg {
    if !argument.get_action().takes_values() || argument.is_positional() {
        return argument;
    }
    let kind = argument.get_value_parser().type_id();
    let of_kind = |parser: ValueParser| parser.type_id() == kind;
    let argument = argument.allow_negative_numbers(true);
    // Instead of clap's own, whose words for a wrong number are Rust's.
    if of_kind(value_parser!(usize).into()) {
        argument.value_parser(whole::<usize>)
    } else if of_kind(value_parser!(u32).into()) {
        argument.value_parser(whole::<u32>)
    } else if of_kind(value_parser!(NonZeroUsize).into()) {
        argument.value_parser(whole::<NonZeroUsize>)
    } else if of_kind(value_parser!(NonZeroU32).into()) {
        argument.value_parser(whole::<NonZeroU32>)
    } else {
        argument
    }
}

/// Reads a whole number, as every flag of a common type does by itself.
///
/// # Errors
/// Says what `text` must be instead.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| {
        let lowest = if "0".parse::<T>().is_ok() { 0 } else { 1 };
        let is_positive = text.trim_start_matches('0').parse::<f64>().is_ok_and(|n| n >= 1.0);
        if is_positive && text.bytes().all(|byte| byte.is_ascii_digit()) {
            "too large".to_string()
        } else {
            format!("expected a whole number of {lowest} or more")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_is_told_with_what_it_may_be() {
        assert_eq!(whole("7"), Ok(7usize));
        for text in ["-1", "1.5", "1e3", "", " 1", "seven"] {
            assert_eq!(whole::<u32>(text), Err("expected a whole number of 0 or more".into()));
        }
        for text in ["0", "-3"] {
            let refused = whole::<NonZeroU32>(text);
            assert_eq!(refused, Err("expected a whole number of 1 or more".into()));
        }
        assert_eq!(whole::<u32>("4294967296"), Err("too large".into()));
    }
}
