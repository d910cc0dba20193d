//! What is refused of an artifact folder, and with which words.

use std::fs;
use std::path::Path;

use hydit::Pipeline;
use hydit::artifacts::Artifacts;
use hydit::runtime::BackendChoice;
use hydit::util::error_chain;
use hydit_testing::emoji;

fn load_error(folder: &Path) -> String {
    let error = Pipeline::load(folder, emoji::backend(BackendChoice::Ort)).err();
    error_chain(&error.expect("a refusal"))
}

/// Changes one byte in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("writable");
}

#[test]
fn a_changed_graph_is_refused_before_it_runs() {
    let folder = emoji::own_artifacts();
    flip(&folder.path().join("deep-core.onnx"));
    let error = load_error(folder.path());
    assert!(error.contains("deep-core.onnx: was changed"), "{error}");
    assert!(error.contains("export the checkpoint again"), "{error}");
}

#[test]
fn changed_weights_are_found_by_the_whole_check() {
    let folder = emoji::own_artifacts();
    flip(&folder.path().join("deep-core.onnx.data"));
    let artifacts = Artifacts::open(folder.path()).expect("the manifest is good");
    artifacts.check_code().expect("the quick check reads no weights");
    let error = artifacts.check_all(|_, _| {}).expect_err("the whole check does").to_string();
    assert!(error.contains("deep-core.onnx.data: was changed"), "{error}");
}

#[test]
fn truncated_weights_are_refused_before_they_run() {
    let folder = emoji::own_artifacts();
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("vae-decoder.onnx.data"));
    file.expect("the file").set_len(1000).expect("shorter");
    let error = load_error(folder.path());
    assert!(error.contains("vae-decoder.onnx.data: was changed from"), "{error}");
}

#[test]
fn a_pointer_of_git_lfs_is_told_from_weights_that_were_changed() {
    let folder = emoji::own_artifacts();
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:2f7b0adf\nsize 14544096\n";
    fs::write(folder.path().join("deep-core.onnx.data"), pointer).expect("written");
    let error = load_error(folder.path());
    assert!(
        error.contains("deep-core.onnx.data") && error.contains("a Git LFS pointer"),
        "{error}"
    );
    assert!(error.contains("git lfs pull") && !error.contains("was changed"), "{error}");
}

#[test]
fn a_missing_or_damaged_manifest_is_named() {
    type Damage = fn(&str) -> Option<String>;
    let cases: [(Damage, &str); 6] = [
        (|_| None, "manifest.yaml: not found"),
        (|text| Some(text.replace("schema: 1", "schema: 9")), "schema 9, expected 1"),
        (
            |text| Some(text.replace("cache_at_branch: 1", "cache_at_branch: one")),
            "line 6, column 18",
        ),
        (
            |text| Some(text.replace("file: deep-core.onnx", "file: ../deep-core.onnx")),
            "../deep-core.onnx",
        ),
        (
            |text| Some(text.replace("- name: deep-core", "- name: deep-code")),
            "`deep-core` is missing",
        ),
        (|text| Some(text[..text.len() / 2].to_string()), "manifest.yaml"),
    ];
    for (damage, expected) in cases {
        let folder = emoji::own_artifacts();
        let path = folder.path().join("manifest.yaml");
        let text = fs::read_to_string(&path).expect("the manifest");
        match damage(&text) {
            Some(text) => fs::write(&path, text).expect("writable"),
            None => fs::remove_file(&path).expect("removable"),
        }
        let error = load_error(folder.path());
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = emoji::own_artifacts();
    fs::remove_file(folder.path().join("tokenizer_2.json")).expect("removable");
    let error = load_error(folder.path());
    assert!(error.contains("tokenizer_2.json: No such file"), "{error}");
}
