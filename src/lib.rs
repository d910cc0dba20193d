//! hydit: artifacts -> images.
#![warn(missing_docs)]

pub mod cache;
pub mod image;
pub mod noise;
pub mod rope;
pub mod sampler;
