//! Small models with made-up weights, for what no trained one has.

use std::path::{Path, PathBuf};

use hydit_export::Options;
use hydit_export::synth::{self, Shape, Storage};
use hydit_graphs::config::DitKind;

/// Exports a model of 4 blocks with an IP-Adapter; checkpoint and export are in `folder`.
pub fn with_ip_adapter(folder: &Path) -> PathBuf {
    let shape = Shape {
        depth: Some(4),
        heads: Some(2),
        head_dim: Some(12),
        image_size: Some(64),
        small_text: true,
    };
    let (checkpoint, out) = (folder.join("checkpoint"), folder.join("model"));
    let model = synth::model("hunyuan-dit-v1.2", &shape).expect("a valid shape");
    synth::checkpoint_with_ip_adapter(&model, true, &checkpoint, &Storage::default())
        .expect("a checkpoint");
    let options = Options {
        ip_adapter: Some(checkpoint.join("ip_adapter")),
        image_to_image: true,
        ..Options::new(&checkpoint, &out)
    };
    hydit_export::export(&options, &mut ()).expect("it exports");
    out
}

/// Exports a Skip-DiT of 6 blocks for 64x64, which draws ImageNet's classes; checkpoint and export
/// are in `folder`.
pub fn skip_dit(folder: &Path) -> PathBuf {
    let shape = Shape {
        depth: Some(6),
        heads: Some(1),
        image_size: Some(64),
        small_text: true,
        ..Shape::default()
    };
    let (checkpoint, out) = (folder.join("checkpoint"), folder.join("skip-dit"));
    let model = synth::dit(DitKind::SkipDit, &shape).expect("a valid shape");
    synth::dit_checkpoint(&model, &checkpoint, &Storage::default()).expect("a checkpoint");
    let file = checkpoint.join(format!("{}.safetensors", synth::dit_stem(DitKind::SkipDit)));
    let options = Options {
        base: Some(checkpoint.join("vae")),
        image_to_image: true,
        ..Options::new(file, &out)
    };
    hydit_export::export(&options, &mut ()).expect("it exports");
    out
}
