//! hydit: the artifacts of `hydit-export` -> pictures.
//!
//! The life of a request: [`text`] turns the prompts into states of two text encoders; the
//! conditioner, once, into what every step needs; from seeded noise ([`noise`]) a [`sampler`] walks
//! down the timesteps, at each asking [`dit`] for a prediction: shallow encoder, then the deep core
//! or its kept output, as the plan of [`cache`] says, then shallow decoder; the VAE turns the
//! latents into an [`image`]. [`Pipeline::generate`] is all of that on one screen: read it first.
//!
//! Graphs run on a [`runtime::Backend`]: ONNX Runtime, found on the machine, or tract, built in.
#![warn(missing_docs)]

pub mod artifacts;
pub mod batch;
pub mod cache;
pub mod calibrate;
pub mod denoise;
pub mod dit;
pub mod error;
pub mod evaluate;
pub mod feature;
pub mod file;
pub mod guidance;
pub mod image;
pub mod machine;
mod made;
pub mod noise;
pub mod part;
pub mod pipeline;
pub mod preview;
pub mod probe;
pub mod report;
pub mod request;
pub mod rope;
pub mod runtime;
pub mod sampler;
pub mod server;
pub mod statistics;
pub mod text;
pub mod verify;

pub use denoise::Step;
pub use error::{Error, Result};
pub use pipeline::{Generated, Pipeline};
pub use request::Request;
