//! Checkpoints whose activations are too large for fp16, made of ones with made-up weights.

use std::fs;
use std::path::Path;

use hydit_export::synth::{self, Shape, Storage};
use serde_json::Value;
use tempfile::TempDir;

/// A small checkpoint of v1.2's form with 6 blocks.
pub fn checkpoint() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shape = Shape {
        depth: Some(6),
        heads: Some(2),
        head_dim: Some(24),
        image_size: Some(64),
        small_text: true,
    };
    let config = synth::model("hunyuan-dit-v1.2", &shape).expect("a shape");
    synth::checkpoint(&config, folder.path(), &Storage::default()).expect("a checkpoint");
    folder
}

/// Changes the weights of a safetensors file of fp32: `change` gives each tensor's factor and what
/// is added then, or `None` to keep it.
pub fn change(file: &Path, change: impl Fn(&str) -> Option<(f32, f32)>) {
    let mut bytes = fs::read(file).expect("a file of weights");
    let header: [u8; 8] = bytes[..8].try_into().expect("8 bytes");
    let data = 8 + u64::from_le_bytes(header) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).expect("a header");
    let mut changed = 0;
    for (name, about) in header.as_object().expect("tensors") {
        let Some((factor, added)) = change(name) else { continue };
        let place = |i: usize| data + about["data_offsets"][i].as_u64().expect("a place") as usize;
        for value in bytes[place(0)..place(1)].as_chunks_mut::<4>().0 {
            *value = (f32::from_le_bytes(*value) * factor + added).to_le_bytes();
        }
        changed += 1;
    }
    assert!(changed > 0, "no tensor of {} is changed", file.display());
    fs::write(file, bytes).expect("it is written");
}

/// [`change`] of the transformer of a checkpoint.
pub fn change_transformer(checkpoint: &Path, by: impl Fn(&str) -> Option<(f32, f32)>) {
    change(&checkpoint.join("transformer/diffusion_pytorch_model.safetensors"), by);
}
