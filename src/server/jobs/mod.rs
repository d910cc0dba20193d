//! Requests that outlive their connection and the process.

/// All jobs.
pub struct Jobs {}
