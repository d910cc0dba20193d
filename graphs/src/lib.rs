//! Hunyuan-DiT, its two text encoders and its image decoder as ONNX graphs.
//!
//! Three nouns: a [`Graph`] is built from [`Var`]s, which read like the tensors of the reference,
//! and [`Weights`], which are named as in the checkpoint. [`Graph::finish`] turns it into a
//! [`GraphDef`], which knows its inputs, outputs, weights and costs, and its bytes as an ONNX file.
//!
//! Building needs a config only, no file and no runtime: a graph is a pure function. Here is the
//! deep core of a small transformer of 4 blocks:
//!
//! ```
//! use hydit_graphs::config::HunyuanDitConfig;
//! use hydit_graphs::{Precision, Sizes, hunyuan_dit};
//!
//! let config = HunyuanDitConfig {
//!     num_layers: 4,
//!     hidden_size: 32,
//!     num_attention_heads: 2,
//!     attention_head_dim: 16,
//!     ..HunyuanDitConfig::default()
//! };
//! let core = hunyuan_dit::deep_core(&config, 1, Precision::Fp16);
//!
//! let inputs: Vec<&str> = core.inputs.iter().map(|input| input.name.as_str()).collect();
//! assert_eq!(inputs, ["skip_0", "temb", "text_states", "cos", "sin"]);
//! // It reads blocks 1 and 2 of the checkpoint.
//! let weights: Vec<&str> = core.tensors().map(|(name, _)| name).collect();
//! assert!(weights.contains(&"blocks.1.attn1.to_q.weight"));
//! assert!(!weights.contains(&"blocks.0.attn1.to_q.weight"));
//! // Its cost is a polynomial of the free sizes.
//! let sizes = Sizes { batch: 2, grid_height: 8, grid_width: 8, height: 16, width: 16, ..Sizes::default() };
//! println!("{} MFLOP, {} bytes of ONNX", core.flops.at(&sizes) / 1_000_000, core.encode().len());
//! ```
//!
//! The weights themselves are in a file beside the ONNX file: [`GraphDef::layout`] says which bytes
//! of it hold which tensor. `hydit-export` writes both files, and a [`Manifest`] of all graphs.
//!
//! Read [`hunyuan_dit`] first, then `nn.rs` (numerics) and [`model`] (bytes).
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod arithmetic;
pub mod bert;
pub mod blocks;
mod builder;
pub mod check;
mod component;
pub mod config;
pub mod context;
pub mod control;
mod dim;
pub mod dit;
mod embedders;
pub mod hunyuan_dit;
pub mod image_encoder;
mod in_place;
mod interface;
pub mod ip_adapter;
pub mod lora;
pub mod manifest;
pub mod model;
mod moves;
mod names;
pub mod naming;
mod nn;
pub mod onnx;
mod ops;
mod options;
pub mod pag;
pub mod sampler;
pub mod scheduler;
pub mod single;
pub mod t5;
mod tensor;
pub mod timesteps;
pub mod vae;
pub mod variant;
mod yaml;

pub use builder::{Graph, GraphDef, Scope, Var, Weights};
pub use component::Component;
pub use dim::{Cost, Dim, ParseDimError, Sizes, Symbol};
pub use in_place::Place;
pub use manifest::Manifest;
pub use names::UnknownName;
pub use options::{GraphOptions, Precision, Target, UnsupportedOptions};
pub use tensor::{DType, Initializer, Source, TensorSpec, Transform};
pub use yaml::{YamlError, parse_yaml, to_yaml};
