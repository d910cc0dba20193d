//! Requests that outlive their connection and the process.

mod error;
mod file;
mod record;
mod store;

pub use error::JobsError;
pub use record::{Asked, End, Idempotency, Made, Mark, Picture, Record};
pub use store::{MOST_ENDED, Store, Swept};

/// All jobs.
pub struct Jobs {}
