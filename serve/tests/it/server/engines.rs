//! A server whose models are compiled ahead.

use hydit_testing::plugin;
use serde_json::json;

use super::api::{cat, draw, picture};
use super::harness::{Server, command, model};

#[test]
fn a_server_draws_the_same_with_engines_and_does_not_start_on_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let engines = folder.path().join("engines");
    let [engines, model] = [&engines, model()].map(|path| path.to_str().expect("a plain path"));
    let library = plugin::openvino();
    let library = library.to_str().expect("a plain path");
    let openvino = ["--provider", "openvino", "--ep-library", library];
    let compiled = std::process::Command::new(env!("CARGO_BIN_EXE_hydit-serve"))
        .args(["compile", "--model", model, "--engines", engines])
        .args(openvino)
        .output()
        .expect("it starts");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let drawn = |more: &[&str]| {
        let server = Server::start(&[&openvino[..], &["--exact"], more].concat());
        picture(&draw(&server, &cat(json!({ "size": "64x64" })))["data"][0]["b64_json"])
    };
    assert!(drawn(&["--engines", engines]) == drawn(&[]));

    let other = format!("other={model}");
    let of_other = format!("other={engines}");
    let bf16 = ["--provider", "openvino:bf16", "--ep-library", library];
    let graphs = ["--provider", "cuda:graphs"];
    for (provider, flags, expected) in [
        (&bf16[..], vec!["--engines", engines], "compiled for another provider"),
        (&[][..], vec!["--engines", engines], "they are for a plugin or TensorRT"),
        (&graphs[..], vec!["--engines", engines], "they are for a plugin or TensorRT"),
        (&graphs[..], vec!["--workers", "2"], "while another worker computes: use 1"),
        (
            &openvino[..],
            vec!["--engines", engines, "--allow-build"],
            "it is for --provider tensorrt",
        ),
        (&openvino[..], vec!["--engines", "/nowhere"], "/nowhere is not a directory"),
        (&openvino[..], vec!["--engines", "some=/nowhere"], "there is no --model some"),
        (&openvino[..], vec!["--engines", engines, "--engines", engines], "has engines already"),
        (
            &openvino[..],
            vec!["--model", &other, "--engines", engines],
            "several models; write NAME=DIR",
        ),
        // What is taken comes to the address.
        (&openvino[..], vec!["--model", &other, "--engines", &of_other], "cannot listen"),
    ] {
        let mut start =
            command(&["--listen", "192.0.2.1:1", "--allow-anonymous", "--model", model]);
        let output =
            start.args(provider).args(&flags).arg("--data-dir").arg(folder.path()).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{flags:?}: {said}");
    }
}
