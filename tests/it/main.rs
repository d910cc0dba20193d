//! The library on real models: numbers against the references in `tests/reference`, pictures of the
//! shipped checkpoints, and what is refused.

mod artifacts;
mod batch;
mod cache;
mod calibrate;
mod common;
mod control;
mod control_forms;
mod corpus;
mod cut;
mod finite;
mod guidance;
mod image;
mod image_prompt;
mod image_to_image;
mod in_place;
mod lora;
mod lora_slots;
mod made_up;
mod matmul;
mod memory;
mod noise;
mod parity;
mod pictures;
mod pipeline;
mod policies;
mod precision;
mod range;
mod rope;
mod runtime;
mod runtime_provider;
mod runtime_refusals;
mod sampler;
mod synthetic;
mod targets;
mod tokenizer;
