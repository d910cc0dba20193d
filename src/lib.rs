//! hydit: the artifacts of `hydit-export` -> pictures.
//!
//! The life of a request: [`pipeline`] turns the prompts into states of two text encoders; the
//! conditioner, once, into what every step needs; from seeded noise a [`sampler`] goes down the
//! timesteps, at each asking for a prediction: shallow encoder, then the deep core or its kept
//! output, as the plan of [`cache`] says, then shallow decoder; the VAE turns the latents into an
//! [`image`]. [`Pipeline::generate`] is all of that on one screen: read it first.
//!
//! Graphs run on a [`runtime::Backend`]: ONNX Runtime, found on the machine, or tract, built in.
//! [`eval`] measures what a cache costs in quality and gains in time.
#![warn(missing_docs)]

pub mod artifacts;
pub mod cache;
pub mod error;
pub mod eval;
pub mod image;
pub mod pipeline;
pub mod request;
pub mod runtime;
pub mod sampler;
pub mod timing;
pub mod util;

pub use error::{Error, Result};
pub use pipeline::denoise::Step;
pub use pipeline::{Generated, Pipeline};
pub use request::Request;
