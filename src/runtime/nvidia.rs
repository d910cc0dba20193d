//! The libraries of CUDA and TensorRT that pip installs beside ONNX Runtime, where the system's loader
//! does not look.

use std::path::{Path, PathBuf};

use super::places::entries;
use super::{Provider, elf};
use crate::util::error_chain;

/// Beginnings of the names of CUDA's libraries, those that others need first, as ONNX Runtime's
/// `preload_dlls` in Python has them.
const CUDA: [&str; 8] = [
    "libcudart.so.",
    "libnvJitLink.so.",
    "libcublasLt.so.",
    "libcublas.so.",
    "libnvrtc.so.",
    "libcurand.so.",
    "libcufft.so.",
    "libcudnn.so.",
];
/// Of TensorRT's.
const TENSORRT: [&str; 3] = ["libnvinfer.so.", "libnvinfer_plugin.so.", "libnvonnxparser.so."];

/// Loads what `provider` needs of the packages of the Python that has ONNX Runtime at `runtime`, so
/// that the provider's library finds it. What is missing or does not load is told when that library is
/// loaded.
pub(super) fn preload(provider: Provider, runtime: &Path) {
    for file in libraries(provider, runtime) {
        let load = || ort::util::preload_dylib(&file).map_err(|error| error_chain(&error));
        if let Err(why) = elf::check(&file).and_then(|()| load()) {
            tracing::debug!("{} is not loaded: {why}", file.display());
        }
    }
}

/// The files of these libraries, in the order in which they need each other.
fn libraries(provider: Provider, runtime: &Path) -> Vec<PathBuf> {
    let needed: Vec<&str> = match provider {
        Provider::Cpu | Provider::Plugin(_) => return Vec::new(),
        Provider::Cuda | Provider::CudaGraphs => CUDA.to_vec(),
        Provider::TensorRt => [&CUDA[..], &TENSORRT].concat(),
    };
    // `onnxruntime/capi` lies in the folder of all packages.
    let Some(packages) = runtime.ancestors().nth(3) else { return Vec::new() };
    let mut folders: Vec<PathBuf> =
        entries(&packages.join("nvidia"), |_| true).iter().map(|part| part.join("lib")).collect();
    folders.push(packages.join("tensorrt_libs"));
    let files = |name: &&str| -> Vec<PathBuf> {
        folders.iter().flat_map(|folder| entries(folder, |file| file.starts_with(name))).collect()
    };
    needed.iter().flat_map(files).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn libraries_of_the_same_python_are_found_in_the_order_of_their_needs() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let packages = root.path().join("lib/python3.12/site-packages");
        for file in [
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_graph.so.9",
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
            "nvidia/cu13/lib/libcudart.so.13",
            "tensorrt_libs/libnvinfer.so.10",
        ] {
            let path = packages.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            fs::write(path, "").expect("a file");
        }
        let runtime = packages.join("onnxruntime/capi/libonnxruntime.so.1.31.1");
        let found = |provider| -> Vec<String> {
            let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_string());
            libraries(provider, &runtime).iter().filter_map(name).collect()
        };
        let cuda = ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"];
        assert_eq!(found(Provider::Cuda), cuda);
        assert_eq!(found(Provider::TensorRt), [&cuda[..], &["libnvinfer.so.10"]].concat());
        assert!(found(Provider::Cpu).is_empty());
        // A library that is no such file is passed over; the provider's own loading tells.
        preload(Provider::Cuda, &runtime);
    }
}
