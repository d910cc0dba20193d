//! The prompts of a file.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hydit::CheckedRequest;
use hydit_input::file;
use hydit_terminal::note;

/// The largest file of prompts that is read.
const MAX_BYTES: u64 = 16 << 20;

/// One prompt a line; empty lines and those that begin with # are skipped.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let name = || format!("--prompts: {}", path.display());
    let bytes = file::read(path, MAX_BYTES).with_context(name)?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}'),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            bail!("{}: line {line} is not UTF-8; save the file as UTF-8", name());
        }
    };
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let prompts: Vec<String> = lines.map(str::to_string).collect();
    if prompts.is_empty() {
        bail!("{}: no prompt in it; write one a line", name());
    }
    Ok(prompts)
}

/// Fails if `request` cannot be drawn with one of `prompts`, which stand in what `source` names.
pub fn check(prompts: &[String], source: &str, request: &CheckedRequest) -> Result<()> {
    for prompt in prompts {
        request.with_prompt(prompt).with_context(|| {
            let beginning: String = prompt.chars().take(20).collect();
            format!("{source} \"{beginning}...\"")
        })?;
    }
    Ok(())
}

/// Tells which of the fields `cut` are longer than the text encoders read.
pub fn tell_cut(cut: &[&str]) {
    for field in cut {
        note(format_args!(
            "note: the {field} is longer than the text encoders read; its end has no effect"
        ));
    }
}
