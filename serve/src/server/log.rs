//! Log lines: `tracing`, as text or JSON, on standard error.

use std::io::{self, Write};
use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::text::is_plain;

/// Tells of every message that an agent sends, which the line of its request does as well.
const QUIET: &str = "rmcp=error";

/// How log lines look.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, an object a line.
    Json,
}

/// The filter that `level` asks for: a level, or directives of `tracing-subscriber`.
///
/// # Errors
/// When it is neither.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    const EXPECTED: &str = "expected error, warn, info, debug or trace";
    // A word alone would be taken for a part of the program, of which nothing is logged.
    let words = level.split(',').filter(|directive| !directive.contains(['=', '[']));
    for word in words {
        word.parse::<LevelFilter>().map_err(|_| format!("{word:?} is no level; {EXPECTED}"))?;
    }
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"));
    filter.map_err(|error| format!("{error}; {EXPECTED}"))
}

/// Starts the log of this process, panics included.
///
/// # Errors
/// When `level` is wrong, or the process has a log already.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    // At debug every span has a line with the time it took: the stages of every step are spans.
    let debug = filter.max_level_hint() >= Some(LevelFilter::DEBUG);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(if debug { FmtSpan::CLOSE } else { FmtSpan::NONE })
        // What cannot be logged, as where standard error is closed, would be a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => {
            let log = log.with_writer(|| Escaped(std::io::stderr()));
            log.json().flatten_event(true).with_current_span(true).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string);
        tracing::error!(place, "panic: {}", message.escape_debug());
    }));
    Ok(())
}

/// Lines of JSON in which letters that do not show themselves are written as JSON may write them:
/// of those only the controls of ASCII are so by themselves.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(lines);
        let mut plain = String::with_capacity(text.len());
        for letter in text.chars() {
            if letter == '\n' || is_plain(letter) {
                plain.push(letter);
            } else {
                let units = letter.encode_utf16(&mut [0; 2]).to_vec();
                plain.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
        self.0.write_all(plain.as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Puts the length of a prompt on the request's log lines, and its text if `with_text`.
pub fn prompt(prompt: &str, with_text: bool) {
    let span = tracing::Span::current();
    span.record("prompt_chars", prompt.chars().count());
    if with_text {
        span.record("prompt", prompt);
    }
}
