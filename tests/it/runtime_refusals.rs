//! What is said when ONNX Runtime cannot be had. No test here loads a library, so that none finds
//! one loaded.

use std::path::PathBuf;

use hydit::runtime::{
    Backend, BackendChoice, Provider, RuntimeError, RuntimeOptions,
    library::{Place, Places},
};
use hydit_testing::process::alone;

fn open(
    backend: BackendChoice,
    provider: Provider,
    places: &Places,
) -> Result<Backend, RuntimeError> {
    Backend::open_in(&RuntimeOptions { backend, provider, ..Default::default() }, places)
}

fn refusal(backend: BackendChoice, provider: Provider, places: &Places) -> String {
    open(backend, provider, places).err().expect("a refusal").to_string()
}

/// The library that scripts/setup-ort installs.
fn installed() -> PathBuf {
    let library = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".runtime/1.31.1");
    assert!(library.join("libonnxruntime.so.1.31.1").exists(), "run scripts/setup-ort");
    library
}

#[test]
fn without_a_library_auto_takes_tract_and_ort_is_an_error() {
    alone(|| {
        let nowhere = Places::default();
        let described =
            open(BackendChoice::Auto, Provider::Cpu, &nowhere).expect("tract").describe();
        assert!(
            described.starts_with("tract ") && described.contains("run scripts/setup-ort"),
            "{described}"
        );
        let message = refusal(BackendChoice::Ort, Provider::Cpu, &nowhere);
        assert!(
            message.contains("no usable ONNX Runtime library was found\n  run scripts/setup-ort"),
            "{message}"
        );
    });
}

#[test]
fn a_file_found_that_is_no_library_is_told() {
    alone(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("libonnxruntime.so.1.31.1"), "text")
            .expect("a written file");
        let places =
            Places { variable: None, folders: vec![(Place::System, folder.path().to_owned())] };
        let described =
            open(BackendChoice::Auto, Provider::Cpu, &places).expect("tract").describe();
        assert!(
            described.contains("libonnxruntime.so.1.31.1 (system): does not load: "),
            "{described}"
        );
        let message = refusal(BackendChoice::Ort, Provider::Cpu, &places);
        assert!(
            message.contains("libonnxruntime.so.1.31.1 (system): does not load: "),
            "{message}"
        );
    });
}

#[test]
fn a_library_named_by_the_variable_is_used_or_refused() {
    alone(|| {
        let variable = Some(PathBuf::from("/nowhere/libonnxruntime.so.1.31.1"));
        let places = Places { variable, folders: vec![(Place::RuntimeFolder, installed())] };
        for backend in [BackendChoice::Auto, BackendChoice::Ort] {
            let message = refusal(backend, Provider::Cpu, &places);
            assert!(
                message.starts_with(
                    "ONNX Runtime at /nowhere/libonnxruntime.so.1.31.1 cannot be used:"
                ),
                "{message}"
            );
            assert!(message.contains("ORT_DYLIB_PATH names it"), "{message}");
        }
    });
}

#[test]
fn a_gpu_that_cannot_be_had_is_never_replaced_by_the_cpu() {
    alone(|| {
        let places = Places { variable: None, folders: vec![(Place::RuntimeFolder, installed())] };
        for (provider, library) in [
            (Provider::Cuda, "libonnxruntime_providers_cuda.so"),
            (Provider::TensorRt, "libonnxruntime_providers_tensorrt.so"),
        ] {
            for places in [&places, &Places::default()] {
                for backend in [BackendChoice::Auto, BackendChoice::Ort] {
                    let message = refusal(backend, provider, places);
                    assert!(
                        message.starts_with(&format!("the {provider} provider cannot be used")),
                        "{message}"
                    );
                    assert!(message.contains("onnxruntime-gpu"), "{message}");
                    assert!(
                        places.folders.is_empty()
                            || message.contains(&format!("no {library} beside it")),
                        "{message}"
                    );
                }
            }
        }
    });
}
