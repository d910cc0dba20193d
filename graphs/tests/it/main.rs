//! The graphs as files: what they cost, their types, and whether another reader understands them.

mod cost;
mod models;
mod onnx_reader;
mod types;
