//! A GPU provider that does not register. In a file of its own: the process keeps the copied
//! library loaded.

use hydit::runtime::{
    Backend, BackendChoice, Provider, RuntimeOptions,
    library::{Place, Places},
};
use hydit_testing::process::alone;

#[test]
fn a_provider_library_that_does_not_load_is_named_with_the_loaders_words() {
    alone(|| {
        let installed =
            concat!(env!("CARGO_MANIFEST_DIR"), "/.runtime/1.31.1/libonnxruntime.so.1.31.1");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::copy(installed, at("libonnxruntime.so.1.31.1"))
            .expect("ONNX Runtime: run scripts/setup-ort");
        std::fs::write(at("libonnxruntime_providers_cuda.so"), "text").expect("a written file");

        let places =
            Places { variable: None, folders: vec![(Place::System, folder.path().to_owned())] };
        for backend in [BackendChoice::Auto, BackendChoice::Ort] {
            let options =
                RuntimeOptions { backend, provider: Provider::Cuda, ..Default::default() };
            let message = Backend::open_in(&options, &places).err().expect("a refusal").to_string();
            assert!(
                message.starts_with(
                    "the cuda provider cannot be used: libonnxruntime_providers_cuda.so"
                ),
                "{message}"
            );
            assert!(
                message.contains("does not load: ")
                    && message.contains("onnxruntime-gpu[cuda,cudnn]"),
                "{message}"
            );
        }
    });
}
