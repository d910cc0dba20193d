//! The trained checkpoint of `models/emoji`: its exports, and pipelines and requests for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::{CheckedRequest, Pipeline, Request, Step};
use hydit_export::synth::{self, Storage};
use hydit_export::{ControlNet, Options, Progress};
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::{GraphOptions, Manifest, Precision};
use tempfile::TempDir;

/// The folder of the checkpoints, one folder each.
pub fn models() -> PathBuf {
    crate::repository().join("models")
}

/// The checkpoint.
pub fn checkpoint() -> PathBuf {
    models().join("emoji")
}

/// The usual export of the checkpoint: fp32, portable, cut at branch 1, with the image encoder. All
/// tests share it, so none may write into it.
pub fn artifacts() -> PathBuf {
    artifacts_for(Precision::Fp32)
}

/// The largest rank of [`slots`].
pub const RANK: usize = 8;

/// As [`artifacts`], with slots for LoRAs.
pub fn slots() -> PathBuf {
    artifacts_for(GraphOptions { lora_slots: true, ..Precision::Fp32.into() })
}

/// As [`artifacts`], cut at `branch`, with the ControlNets `edges` and `shade` of
/// `tests/reference/make_control.py`.
pub fn controlled(branch: usize) -> PathBuf {
    shared("emoji", branch, GraphOptions { controls: true, ..Precision::Fp32.into() })
}

/// As [`artifacts`], with the trained ControlNet `canny` of `models/emoji-canny`.
pub fn canny() -> PathBuf {
    let version = GraphOptions { controls: true, ..Precision::Fp32.into() };
    let net = ControlNet { name: "canny".to_string(), path: models().join("emoji-canny") };
    kept("emoji-canny", |out| Options {
        controls: vec![net],
        ..options(&checkpoint(), out, 1, version)
    })
}

/// The ControlNets of [`controlled`], made in `folder`.
fn nets(folder: &Path) -> Vec<ControlNet> {
    let text = fs::read_to_string(checkpoint().join("transformer/config.json"));
    let edges = HunyuanDitConfig::from_json(&text.expect("a config")).expect("a config");
    let shade = HunyuanDitConfig {
        mlp_ratio: 2.0,
        use_style_cond_and_image_meta_size: true,
        ..edges.clone()
    };
    let net = |(name, config, seed): (&str, &HunyuanDitConfig, u64)| {
        let path = folder.join(name);
        let storage = Storage { seed, ..Storage::default() };
        synth::control(config, &path, &storage).expect("a net");
        ControlNet { name: name.to_string(), path }
    };
    [("edges", &edges, 1), ("shade", &shade, 2)].map(net).into()
}

/// As [`artifacts`], of another precision or target.
pub fn artifacts_for(version: impl Into<GraphOptions>) -> PathBuf {
    shared("emoji", 1, version)
}

/// The export of a checkpoint of `models/`, cut at `branch`. The first test that asks for it makes
/// it and others wait; it stays until its sources change (see `build.rs`).
pub fn shared(model: &str, branch: usize, version: impl Into<GraphOptions>) -> PathBuf {
    let version = version.into();
    let slots = if version.lora_slots { "-slots" } else { "" };
    let controls = if version.controls { "-controls" } else { "" };
    let pag: String = pag_layers(version).iter().map(|block| format!("-pag{block}")).collect();
    let name =
        format!("{model}-{branch}-{}-{}{slots}{controls}{pag}", version.precision, version.target);
    let place = tempfile::tempdir().expect("a folder");
    kept(&name, |out| Options {
        image_to_image: true,
        controls: if version.controls { nets(place.path()) } else { Vec::new() },
        ..options(&models().join(model), out, branch, version)
    })
}

/// The shared export `name`, made with `options` for its folder if it is not there.
fn kept(name: &str, options: impl FnOnce(&Path) -> Options) -> PathBuf {
    let exports = Path::new(env!("OUT_DIR")).join("exports");
    let folder = exports.join(name);
    let lock = File::create(exports.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock is free at last");
    if !folder.exists() {
        let partial = tempfile::tempdir_in(&exports).expect("a folder");
        hydit_export::export(&options(partial.path()), &mut AllUsed).expect("it exports");
        fs::rename(partial.keep(), &folder).expect("the export gets its name");
    }
    folder
}

/// A copy of [`artifacts`] to write into.
pub fn own_artifacts() -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in artifacts().read_dir().expect("the shared export") {
        let file = file.expect("an entry");
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("it is copied");
    }
    copy
}

/// Exports any checkpoint whose tensors are all used.
pub fn export(
    checkpoint: &Path,
    out: &Path,
    branch: usize,
    version: impl Into<GraphOptions>,
) -> hydit_export::Result<Manifest> {
    hydit_export::export(&options(checkpoint, out, branch, version.into()), &mut AllUsed)
}

fn options(checkpoint: &Path, out: &Path, branch: usize, version: GraphOptions) -> Options {
    Options {
        cache_at_branch: Some(branch),
        precision: version.precision,
        target: version.target,
        lora_slots: version.lora_slots.then_some(RANK),
        pag_layers: pag_layers(version),
        ..Options::new(checkpoint, out)
    }
}

fn pag_layers(version: GraphOptions) -> Vec<usize> {
    (0..12).filter(|block| version.pag_layers.contains(*block)).collect()
}

struct AllUsed;

impl Progress for AllUsed {
    fn unused(&mut self, tensors: &[String]) {
        panic!("the checkpoint has unused tensors: {tensors:?}");
    }
}

/// An engine with two threads. ONNX Runtime must have been set up.
pub fn backend(backend: BackendChoice) -> Backend {
    let options = RuntimeOptions { backend, threads: Some(2), ..RuntimeOptions::default() };
    Backend::open(&options).unwrap_or_else(|error| panic!("run scripts/setup-ort first: {error}"))
}

/// A pipeline on an export, with the engine of [`backend`].
pub fn pipeline(artifacts: &Path, engine: BackendChoice) -> Pipeline {
    Pipeline::load(artifacts, backend(engine)).expect("an export loads")
}

/// The model's defaults for the cat, with `steps` steps.
pub fn cat(manifest: &Manifest, steps: usize) -> Request {
    let request = Request::new(manifest, "蓝色背景上的猫").expect("the defaults are right");
    Request { steps, ..request }
}

/// Listens to no step.
pub fn ignore(_: Step) {}

/// `request`, which the model of `pipeline` can draw.
pub fn checked(pipeline: &Pipeline, request: &Request) -> CheckedRequest {
    request.check(pipeline.artifacts()).expect("a good request")
}
