//! LoRA files of Hunyuan-DiT, in whichever layout -> changes of its layers.
//!
//! A LoRA adds `scale * up @ down` to the weight of a layer, where `down` is `[rank, in]` and `up`
//! `[out, rank]` (PEFT's `lora_A` and `lora_B`). [`Adapter::open`] reads a file and finds the layer
//! of every tensor, whatever it is called there: `keys.rs` has the names of tensors, [`Layers`]
//! those of layers, `scale.rs` what the scale is. What fits nowhere is an error, as is a method
//! that is no LoRA.
//!
//! `hydit-export` adds the changes to the weights that it writes ([`Adapter::add`]), `hydit` gives
//! them to graphs that have inputs for them ([`Adapter::down`], [`Adapter::up`]).
//!
//! ```
//! use hydit_graphs::Component;
//! use hydit_lora::{Adapter, Layers};
//! use safetensors::Dtype;
//! use safetensors::tensor::TensorView;
//!
//! let weights = [(Component::Transformer, "blocks.0.attn1.to_q.weight", &[2, 3][..])];
//! let ones = [1f32; 3].map(f32::to_le_bytes).concat();
//! let down = TensorView::new(Dtype::F32, vec![1, 3], &ones)?;
//! let up = TensorView::new(Dtype::F32, vec![2, 1], &ones[..8])?;
//! let name = |part: &str| format!("transformer.blocks.0.attn1.to_q.{part}.weight");
//! let file = safetensors::serialize([(name("lora_A"), down), (name("lora_B"), up)], None)?;
//!
//! let adapter = Adapter::parse(file, None, &Layers::new(weights))?;
//! let mut weight = [0.0; 6];
//! adapter.add(&adapter.changes[0], 0.5, &mut weight);
//! assert_eq!(weight, [0.5; 6]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod adapter;
mod error;
mod keys;
mod layers;
mod named;
mod scale;

pub use adapter::{Adapter, Change, MOST_UNFIT};
pub use error::{Error, Result};
pub use layers::Layers;
pub use named::Weighted;
