//! The HTTP server: [`run`] is its whole life. Read this first.
//!
//! [`settings`] says what was asked for. [`engine`] draws: a bounded queue, and threads that own the
//! models. [`jobs`] are requests that outlive their connection and the process. [`http`] is what
//! clients see: OpenAI's images API, jobs, the Open Inference Protocol, and what operators need.

pub mod engine;
pub mod http;
pub mod jobs;
pub mod log;
pub mod metrics;
pub mod settings;

use settings::Settings;

/// Serves until it is told to stop.
///
/// # Errors
/// When a model, the data folder or the address cannot be used.
pub fn run(settings: Settings) -> crate::Result<()> {
    let _ = settings;
    todo!()
}
