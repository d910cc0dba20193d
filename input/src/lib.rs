//! Input that nobody vouches for: how `hydit-export` and `hydit-serve` read files.
#![warn(missing_docs)]

pub mod file;
