//! The trained checkpoint of `models/emoji`, exported on the spot.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};

use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::{Pipeline, Request, Step};
use hydit_export::{Options, Progress, export};
use hydit_graphs::{Manifest, Precision, Target};
use tempfile::TempDir;

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

pub fn checkpoint() -> PathBuf {
    models().join("emoji")
}

/// An export of the checkpoint, cut at `branch`; the folder goes with the value.
pub fn artifacts(branch: usize) -> TempDir {
    export_with(branch, Target::from(Precision::Fp32))
}

/// As [`artifacts`], of another precision or form.
pub fn export_with(branch: usize, target: Target) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    try_export(folder.path(), branch, target).expect("the checkpoint exports");
    folder
}

pub fn try_export(out: &Path, branch: usize, target: Target) -> hydit_export::Result<Manifest> {
    export_from(&checkpoint(), out, branch, target)
}

/// As [`try_export`], of another checkpoint.
pub fn export_from(
    checkpoint: &Path,
    out: &Path,
    branch: usize,
    target: Target,
) -> hydit_export::Result<Manifest> {
    let options = Options {
        checkpoint: checkpoint.to_path_buf(),
        out: out.to_path_buf(),
        cache_at_branch: branch,
        precision: target.precision,
        form: target.form,
        full: false,
        variant: None,
    };
    export(&options, &mut Silent)
}

/// An export, and a folder to write into.
pub struct Place {
    pub artifacts: TempDir,
    pub out: TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { artifacts: artifacts(1), out: tempfile::tempdir().expect("a folder") }
    }

    pub fn model(&self) -> &str {
        self.artifacts.path().to_str().expect("a plain path")
    }

    pub fn file(&self, name: &str) -> String {
        self.out.path().join(name).to_str().expect("a plain path").to_string()
    }
}

struct Silent;

impl Progress for Silent {
    fn total(&mut self, _: u64) {}
    fn graph(&mut self, _: &str) {}
    fn wrote(&mut self, _: u64) {}
    fn unused(&mut self, tensors: &[String]) {
        panic!("the emoji checkpoint has no unused tensors: {tensors:?}");
    }
}

/// An engine; ONNX Runtime must have been set up.
pub fn backend(backend: BackendChoice) -> Backend {
    let options = RuntimeOptions { backend, threads: Some(2), ..RuntimeOptions::default() };
    Backend::open(&options).unwrap_or_else(|error| panic!("run scripts/setup-ort first: {error}"))
}

pub fn pipeline(artifacts: &TempDir, engine: BackendChoice) -> Pipeline {
    Pipeline::load(artifacts.path(), backend(engine)).expect("a fresh export loads")
}

/// The model's defaults for the cat, with `steps` steps.
pub fn cat(manifest: &Manifest, steps: usize) -> Request {
    let request = Request::new(manifest, "蓝色背景上的猫").expect("the defaults are right");
    Request { steps, ..request }
}

pub fn ignore(_: Step) {}
