//! Hunyuan-DiT, its two text encoders and its image decoder as ONNX graphs.
//!
//! Three nouns: a [`Graph`] is built from [`Var`]s, which read like the reference's tensors, and
//! [`Weights`], which name tensors of the checkpoint; it is finished into a [`GraphDef`]. Building
//! needs a config only, no file and no runtime, so a graph is a pure function. What is written to
//! disk about an export is the [`Manifest`].
//!
//! Read [`hunyuan_dit`] first, then [`mod@nn`] (numerics) and [`mod@model`] (bytes).
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bert;
mod builder;
pub mod config;
mod dim;
mod embedders;
pub mod feature;
pub mod hunyuan_dit;
pub mod manifest;
pub mod model;
pub mod nn;
pub mod onnx;
mod ops;
pub mod probe;
pub mod scheduler;
pub mod t5;
mod target;
mod tensor;
pub mod vae;
pub mod variant;
pub mod yaml;

pub use builder::{Graph, GraphDef, Scope, Var, Weights};
pub use dim::{Cost, Dim, Sizes, Symbol};
pub use manifest::Manifest;
pub use target::{Form, Precision, Target};
pub use tensor::{DType, Initializer, Source, TensorSpec, Transform};
