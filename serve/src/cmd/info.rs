//! `hydit-serve info`: how an image was made.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hydit_terminal::{in_a_line, say};

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

impl Info {
    pub fn run(self) -> Result<()> {
        let parameters = serde_json::to_value(read_parameters(&self.png)?)?;
        if self.json {
            return Ok(say(format_args!("{parameters:#}"))?);
        }
        for (name, value) in parameters.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            say(format_args!("{:17} {}", name.replace('_', " "), in_a_line(&value, MOST)))?;
        }
        Ok(())
    }
}
