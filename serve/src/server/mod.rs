//! The HTTP server: [`serve()`] is its whole life. Read this first.
//!
//! [`settings`] says how it is configured. [`scheduler`] draws: a bounded queue, and threads that
//! own the models. [`jobs`] are requests that outlive their connection and the process. `http` is
//! what clients see: OpenAI's images API, jobs, the Open Inference Protocol, and what operators
//! need. [`run()`] is the server as a process, with signals and standard output.

mod app;
mod clock;
mod control;
mod error;
mod figures;
mod http;
mod init_image;
pub mod jobs;
mod leave;
pub mod log;
mod metrics;
mod output;
mod run;
pub mod scheduler;
mod serve;
pub mod settings;
mod signals;
mod spawn;
mod text;
mod told;

pub use app::App;
pub use clock::{Clock, Time};
pub use error::ServeError;
pub use figures::Figures;
pub use leave::leave;
pub use output::Output;
pub use run::run;
pub use serve::{Listeners, serve};
pub use told::Told;
