//! `hydit-serve info`: how an image was made.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hydit_terminal::{in_a_line, say};
use serde_json::Value;

use super::files::read_parameters;

/// Most characters of a value that are shown: more than any prompt that is drawn.
const MOST: usize = 5000;

#[derive(Args)]
pub struct Info {
    /// A PNG of hydit-serve generate.
    png: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the fields of an object, a line each; `above` is the name of a field that it is in.
fn print(above: &str, object: &Value) -> Result<()> {
    for (name, value) in object.as_object().into_iter().flatten() {
        let name = format!("{above}{}", name.replace('_', " "));
        if value.is_object() {
            print(&format!("{name} "), value)?;
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        say(format_args!("{name:17} {}", in_a_line(&value, MOST)))?;
    }
    Ok(())
}

impl Info {
    pub fn run(self) -> Result<()> {
        // Through text, in which numbers have as many digits as they need.
        let parameters = serde_json::to_string(&read_parameters(&self.png)?)?;
        let parameters: Value = serde_json::from_str(&parameters)?;
        if self.json {
            return Ok(say(format_args!("{parameters:#}"))?);
        }
        print("", &parameters)
    }
}
