//! hydit: artifacts -> images.
#![warn(missing_docs)]

pub mod runtime;
