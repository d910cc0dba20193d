//! Log lines: `tracing`, as text or JSON, on standard error.

use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::settings::{LogFormat, Settings};

/// What `level` lets through: a level, or directives.
///
/// # Errors
/// When it is neither.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level)
        .map_err(|error| format!("{error}; expected error, warn, info, debug or trace"))
}

/// Starts the log of this process, panics included.
///
/// # Errors
/// When the level is none.
pub fn start(settings: &Settings) -> Result<(), String> {
    let filter = filter(&settings.log_level)?;
    // At debug every span has a line with the time it took: the stages of every step are spans.
    let spans = match filter.max_level_hint() >= Some(LevelFilter::DEBUG) {
        true => FmtSpan::CLOSE,
        false => FmtSpan::NONE,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(spans)
        .with_writer(std::io::stderr);
    let started = match settings.log {
        LogFormat::Text => log.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).try_init(),
    };
    started.map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string);
        tracing::error!(place, "panic: {}", message.escape_debug());
    }));
    Ok(())
}

/// Puts a prompt's length, and its text if `text` is set, on the request's log lines.
pub fn prompt(prompt: &str, text: bool) {
    let span = tracing::Span::current();
    span.record("prompt_chars", prompt.chars().count());
    if text {
        span.record("prompt", prompt);
    }
}
