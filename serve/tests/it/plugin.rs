//! Providers that are libraries of their own: what is said of those that cannot be used, and that the
//! program survives them.

use std::path::Path;
use std::process::Output;

use hydit_testing::{plugin, repository};

use crate::program::{Scratch, command, plain, text};

/// ONNX Runtime's interface, as far as these libraries have it.
const BASE: &str = "struct base { const void *(*api)(unsigned); };\n\
                    #define FACTORIES void *CreateEpFactories(const char *name, \
                    const struct base *base, const void *logger, void **made, unsigned long most, \
                    unsigned long *count)\n\
                    void *ReleaseEpFactory(void *factory) { return 0; }\n";

/// Runs `generate` in an empty folder, where no plugin is found by chance.
fn draw(scratch: &Scratch, more: &[&str]) -> Output {
    let out = scratch.file("out.png");
    let draw = ["generate", "--model", &scratch.model, "--prompt", "a cat", "--infer-steps", "2"];
    let runtime = repository().join(".runtime/1.31.1/libonnxruntime.so.1.31.1");
    command(&[&draw[..], &["--output", &out], more].concat())
        .current_dir(scratch.folder.path())
        .env("ORT_DYLIB_PATH", runtime)
        .env_remove("VIRTUAL_ENV")
        .env("HOME", scratch.folder.path())
        .env("PATH", "/nonexistent")
        .output()
        .expect("it starts")
}

/// Checks that the provider was refused with `parts`, as one of the arguments, and nothing drawn.
fn refused(scratch: &Scratch, more: &[&str], parts: &[&str]) {
    let output = draw(scratch, more);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{more:?} without {part:?}: {said}");
    }
    assert!(said.starts_with("error: ") && said.lines().count() <= 2, "{more:?}: {said}");
    assert!(!Path::new(&scratch.file("out.png")).exists(), "{more:?} drew");
}

#[test]
fn a_plugin_that_is_not_here_is_named_with_what_brings_it() {
    let scratch = Scratch::new();
    for (provider, package) in [
        ("openvino", "`pip install onnxruntime-ep-openvino==1.8.1`"),
        ("tensorrt-rtx", "`pip install onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0`"),
        ("webgpu", "`pip install onnxruntime-ep-webgpu==0.4.0`"),
    ] {
        let reason = format!("the {provider} provider cannot be used: libonnxruntime_providers_");
        refused(&scratch, &["--provider", provider], &[&reason, package]);
    }
    let known = "it is none of cpu, cuda, tensorrt, openvino, tensorrt-rtx, webgpu";
    refused(&scratch, &["--provider", "cudo"], &[known, "--ep-library"]);
    let missing = ["--provider", "webgpu", "--ep-library", "/nowhere/libwebgpu.so"];
    refused(&scratch, &missing, &["/nowhere/libwebgpu.so does not load: it cannot be read"]);
    refused(&scratch, &["--ep-device", "gpu"], &["the cpu provider", "it is no plugin"]);
}

#[test]
fn a_server_is_not_started_on_a_provider_that_is_not_here() {
    let scratch = Scratch::new();
    let missing = ["--provider", "mine", "--ep-library", "/nowhere/libmine.so"];
    let start = ["serve", "--model", &scratch.model, "--listen", "127.0.0.1:0"];
    let data = ["--data-dir", plain(scratch.folder.path())];
    let refused = command(&[&start[..], &data, &missing].concat()).output().expect("it starts");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("the mine provider cannot be used: /nowhere/libmine.so"), "{said}");
    let wrong = [&start[..], &data, &["--ep-option", "novalue"]].concat();
    let said = text(&command(&wrong).output().expect("it starts").stderr);
    assert!(said.contains("--ep-option") && said.contains("expected KEY=VALUE"), "{said}");
}

#[test]
fn libraries_that_are_no_plugins_or_fail_are_survived() {
    let scratch = Scratch::new();
    let folder = tempfile::tempdir().expect("a folder");
    let compile = |name: &str, source: &str| {
        let library = plugin::compile(folder.path(), name, &format!("{BASE}{source}\n"));
        plain(&library).to_string()
    };
    let given = |library: &str, parts: &[&str]| {
        let flags = ["--provider", "mine", "--ep-library", library];
        refused(&scratch, &flags, &[&["the mine provider cannot be used: "], parts].concat());
    };
    let text = folder.path().join("text.so");
    std::fs::write(&text, "text").expect("a written file");
    given(plain(&text), &["text.so does not load: it is no shared library"]);
    let other = plugin::compile(folder.path(), "other", "int unrelated;\n");
    given(plain(&other), &["libother.so does not load: "]);

    let crashes = "FACTORIES { *(volatile int *)0 = 1; return 0; }";
    given(&compile("crash", crashes), &["ends the program that loads it (signal 11)"]);

    // As ONNX Runtime's own C++ header has it: what is not there is used all the same.
    let newer = "FACTORIES { return *(void **)base->api(99); }";
    let built = "it was built for ONNX Runtime 1.99";
    given(&compile("newer", newer), &[&built.replace("it was", "its library was"), "older plugin"]);

    let none = "FACTORIES { *count = 0; return 0; }";
    given(
        &compile("none", none),
        &["registers no device of this machine", "ONNX Runtime sees cpu ("],
    );
}

#[test]
fn openvino_is_refused_on_processors_and_devices_that_it_does_not_take() {
    let scratch = Scratch::new();
    let (as_it_is, any) = (plugin::openvino_as_it_is(), plugin::openvino());
    if as_it_is != any {
        let flags = ["--provider", "openvino", "--ep-library", plain(&as_it_is)];
        refused(&scratch, &flags, &["registers no device", "of Intel alone"]);
    }
    let flags = ["--provider", "openvino", "--ep-library", plain(&any), "--ep-device", "npu"];
    refused(&scratch, &flags, &["it has no device npu, but cpu (", "--ep-device cpu"]);
}

#[test]
fn openvino_draws_measures_and_is_shown() {
    let scratch = Scratch::new();
    let library = plugin::openvino();
    let openvino = ["--provider", "openvino", "--ep-library", plain(&library)];
    let drawn = draw(&scratch, &[&openvino[..], &["--ep-device", "cpu"]].concat());
    let said = text(&drawn.stderr);
    assert!(drawn.status.success(), "{said}");
    assert!(said.contains("openvino provider 1.8.1 on cpu ("), "{said}");

    let doctor =
        text(&command(&[&["doctor"], &openvino[..]].concat()).output().expect("it starts").stdout);
    assert!(doctor.contains("+ ort, openvino") && doctor.contains("1.8.1 on cpu ("), "{doctor}");
    assert!(doctor.contains("- ort, webgpu") || doctor.contains("+ ort, webgpu"), "{doctor}");
    assert!(doctor.contains("--backend auto takes ONNX Runtime 1.31.1, cpu provider"), "{doctor}");

    let bench = ["bench", "--model", &scratch.model, "--rounds", "1", "--infer-steps", "2"];
    let providers = ["--provider", "openvino:bf16", "--provider", "cpu", "--policy", "N2"];
    let measured =
        command(&[&bench[..], &openvino, &providers].concat()).output().expect("it starts");
    let table = text(&measured.stdout);
    assert!(measured.status.success(), "{}", text(&measured.stderr));
    for engine in ["ort openvino ", "ort openvino:bf16 ", "ort cpu "] {
        assert!(table.contains(engine), "{engine} is missing: {table}");
    }
}
