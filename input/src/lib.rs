//! Input that nobody vouches for: what `hydit-export` and `hydit` read, each with its bound.
//!
//! [`mod@file`] is how both read files: regular ones only, up to a size. [`tokenizer`] makes
//! tokenizers of them, refusing shapes that are known to bring the `tokenizers` crate down.
//! [`mod@safetensors`] reads the headers of such files. [`guard`] turns a panic in a crate that reads such input into an error.
#![warn(missing_docs)]

mod chain;
mod charsmap;
pub mod file;
pub mod guard;
mod quoted;
pub mod safetensors;
mod shape;
pub mod tokenizer;

pub use chain::error_chain;
pub use charsmap::Charsmap;
pub use quoted::quoted;
