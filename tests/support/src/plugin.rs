//! Plugins of ONNX Runtime: the true one of OpenVINO, and some that fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::repository;

/// The folders in which Python keeps its packages, below that which scripts/setup-python makes.
const PACKAGES: [&str; 2] = ["lib/python3", "packages"];

/// The folder of OpenVINO's plugin, as scripts/setup-openvino fetches it.
fn openvino_folder() -> PathBuf {
    let root = repository().join(".venv-openvino");
    let lib = root.join("lib").read_dir().into_iter().flatten().flatten();
    let versions = lib
        .map(|entry| entry.path())
        .filter(|path| path.to_str().is_some_and(|path| path.contains(PACKAGES[0])));
    let mut folders =
        versions.map(|path| path.join("site-packages")).chain([root.join(PACKAGES[1])]);
    let folder = folders.find(|folder| folder.join("onnxruntime_ep_openvino").is_dir());
    folder.expect("OpenVINO: run scripts/setup-openvino").join("onnxruntime_ep_openvino")
}

/// OpenVINO's plugin, which takes Intel's processors alone.
pub fn openvino_as_it_is() -> PathBuf {
    openvino_folder().join("libonnxruntime_providers_openvino_plugin.so")
}

/// OpenVINO's plugin, with the library before it that has it take any processor where this is not
/// Intel's.
pub fn openvino() -> PathBuf {
    let any = openvino_folder().join("libhydit_openvino_any_cpu.so");
    if any.exists() { any } else { openvino_as_it_is() }
}

/// Compiles `source`, in C, to a library of the name `name` in `folder`.
pub fn compile(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (code, library) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
    std::fs::write(&code, source).expect("a written file");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &code])
        .status()
        .expect("a C compiler, with which Rust links");
    assert!(compiled.success(), "{name} does not compile");
    library
}
