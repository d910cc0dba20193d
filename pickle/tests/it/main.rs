//! Checkpoints as torch writes them, and as nobody should.

mod archives;
mod build;
mod goldens;
mod instructions;
mod memory;
mod mutants;
mod strangers;

use hydit_pickle::{Error, read};

/// What is read, and a part of what the message must say.
pub type Case = (&'static str, Vec<u8>, &'static str);

/// Reads each file; all must be refused, in one line, within the bound on memory.
pub fn refuse(cases: &[Case]) {
    let mut problems = Vec::new();
    for (what, file, expected) in cases {
        let (result, peak) = memory::measured(|| read(file).map(|value| format!("{value:?}")));
        let problem = match result.map_err(|error: Error| error.to_string()) {
            Ok(value) => format!("read as {value}"),
            Err(message) if !message.contains(expected) || message.contains('\n') => {
                format!("`{expected}` is not in, or several lines: {message}")
            }
            Err(_) if peak > memory::BOUND => format!("{peak} bytes were allocated"),
            Err(_) => continue,
        };
        problems.push(format!("{what}: {problem}"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
