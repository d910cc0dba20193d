//! What stays in memory on a low-memory engine: how much the process holds, as the system says.

use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::{Pipeline, Request};
use hydit_export::synth::{Shape, Storage, checkpoint, model};
use hydit_graphs::Precision;
use hydit_testing::{emoji, process::alone};
use tempfile::TempDir;

/// Megabytes of this process that no file backs.
fn held() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a proc file system");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of it");
    let kilobytes = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kilobytes.expect("a number") / 1024.0
}

/// A model whose text encoders are most of it.
fn export() -> TempDir {
    let shape = Shape {
        depth: Some(4),
        heads: Some(2),
        head_dim: Some(16),
        small_text: true,
        ..Shape::default()
    };
    let mut config = model("hunyuan-dit-v1.2", &shape).expect("a model");
    // Matrices of 36 MiB: what is smaller than 32, malloc may keep for later when it is given back.
    (config.text_encoder_2.d_model, config.text_encoder_2.d_ff) = (1024, 9 * 1024);
    config.text_encoder_2.num_layers = 1;
    config.transformer.cross_attention_dim_t5 = config.text_encoder_2.d_model;
    let (made, out) = (tempfile::tempdir(), tempfile::tempdir());
    let (made, out) = (made.expect("a folder"), out.expect("a folder"));
    checkpoint(&config, &made.path().join("checkpoint"), &Storage::default()).expect("it is made");
    emoji::export(&made.path().join("checkpoint"), out.path(), 1, Precision::Fp32)
        .expect("it exports");
    out
}

/// What is held at the first step of two requests in turn.
fn at_first_step(folder: &TempDir, low_memory: bool) -> [f64; 2] {
    let options =
        RuntimeOptions { backend: BackendChoice::Ort, low_memory, ..RuntimeOptions::default() };
    let backend = Backend::open(&options).expect("scripts/setup-ort was run");
    let mut pipeline = Pipeline::load(folder.path(), backend).expect("a fresh export loads");
    let request = Request::new(pipeline.manifest(), "a cat").expect("the defaults are right");
    let request = Request { height: 64, width: 64, steps: 1, ..request };
    [(); 2].map(|()| {
        let mut seen = 0.0;
        pipeline
            .generate(&emoji::checked(&pipeline, &request), &mut |_| seen = held())
            .expect("it draws");
        seen
    })
}

#[test]
fn the_text_encoders_are_gone_when_the_first_step_is_done() {
    alone(|| {
        let folder = export();
        let encoder = folder.path().join("text-encoder-2.onnx.data");
        let encoder = std::fs::metadata(encoder).expect("a data file").len() as f64 / 1048576.0;
        let low = at_first_step(&folder, true);
        let all = at_first_step(&folder, false);
        println!("encoder {encoder:.0} MiB; held at the first step {low:.0?} and {all:.0?} MiB");
        assert!(encoder > 100.0, "{encoder} MiB do not stand out");
        for (low, all) in low.into_iter().zip(all) {
            assert!(all - low > encoder / 2.0, "{low:.0} MiB, not well below {all:.0} MiB");
        }
    });
}
