//! The command line of `hydit-export`.

pub mod flags;
pub mod progress;
