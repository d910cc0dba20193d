//! Hunyuan-DiT text-to-image with Skip-Cache: from an artifact folder of `hydit-export` to images.
//!
//! ```
//! use hydit::image::write_png;
//! use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
//! use hydit::{Pipeline, Request};
//!
//! # let folder = tempfile::tempdir()?;
//! # let (model, picture) = (folder.path().join("emoji"), folder.path().join("cat.png"));
//! # hydit_export::export(&hydit_export::Options::new("models/emoji", &model), &mut ())?;
//! let options = RuntimeOptions { backend: BackendChoice::Tract, ..Default::default() };
//! let mut pipeline = Pipeline::load(&model, Backend::open(&options)?)?;
//! let request = Request {
//!     steps: 4,
//!     cache_policy: "N2-1000-0".parse()?, // run the deep core at every second step
//!     ..Request::new(pipeline.manifest(), "a cat")?
//! };
//! let request = request.check(pipeline.artifacts())?;
//! let made = pipeline.generate(&request, &mut |step| println!("{} done", step.index + 1))?;
//! write_png(&picture, &made.images[0], &[])?;
//! # assert!(picture.exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The life of a request: [`pipeline`] turns the prompts into states of two text encoders; the
//! conditioner, once, into what every step needs; from seeded noise a [`sampler`] goes down the
//! timesteps, at each asking for a prediction: shallow encoder, then the deep core or its kept
//! output, as the plan of [`cache`] says, then shallow decoder; the VAE turns the latents into an
//! [`image`]. [`Pipeline::generate`] is all of that on one screen: read it first.
//!
//! Graphs run on a [`runtime::Backend`]: ONNX Runtime, found on the machine, or tract, built in.
//! [`eval`] measures what a cache costs in quality and gains in time.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

pub mod artifacts;
pub mod cache;
pub mod calibrations;
pub mod class_label;
pub mod control;
pub mod engines;
pub mod error;
pub mod eval;
pub mod files;
pub mod guidance;
pub mod image;
pub mod image_prompt;
pub mod init_image;
pub mod lora;
pub mod pipeline;
pub mod request;
pub mod runtime;
pub mod sampler;
pub mod timing;
pub mod util;

pub use control::Control;
pub use error::{Error, Result};
pub use image_prompt::ImagePrompt;
pub use init_image::InitImage;
pub use pipeline::denoise::Step;
pub use pipeline::{Generated, Pipeline};
pub use request::{CheckedRequest, Request};
