//! `hydit-serve info`: how an image was made.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::files::read_parameters;

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
            println!("{parameters:#}");
            return Ok(());
        }
        for (name, value) in parameters.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            println!("{:17} {value}", name.replace('_', " "));
        }
        Ok(())
    }
}
