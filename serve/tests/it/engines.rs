//! Models that are compiled ahead, as people do it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hydit_testing::plugin;
use hydit_testing::protobuf::{self, Value};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Scratch, command, plain, serve, text};

/// A library before that of OpenVINO, which would rather have compiled again what has the word `older`
/// in it: OpenVINO itself runs an engine or does not.
const PREFERRING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

/* Places of functions in OrtEpFactory, and an answer of OrtCompiledModelCompatibility. */
enum { VALIDATE = 8, PREFER_RECOMPILATION = 2 };

typedef void *create(const char *, const void *, const void *, void **, size_t, size_t *);
typedef void *validate(void *, const void *, size_t, const char *, int *);

static void *plugin;
static validate *theirs;

static void *ours(void *factory, const void *devices, size_t count, const char *words, int *answer) {
    if (strstr(words, "older") == NULL)
        return theirs(factory, devices, count, words, answer);
    *answer = PREFER_RECOMPILATION;
    return NULL;
}

void *CreateEpFactories(const char *name, const void *base, const void *logger, void **factories, size_t most,
                        size_t *count) {
    plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    void *status = ((create *)dlsym(plugin, "CreateEpFactories"))(name, base, logger, factories, most, count);
    if (status == NULL && *count > 0) {
        void **factory = factories[0];
        theirs = (validate *)factory[VALIDATE];
        factory[VALIDATE] = (void *)ours;
    }
    return status;
}

void *ReleaseEpFactory(void *factory) {
    return ((void *(*)(void *))dlsym(plugin, "ReleaseEpFactory"))(factory);
}
"#;

/// A scratch folder, and OpenVINO as flags ask for it.
struct Ahead {
    scratch: Scratch,
    library: String,
    engines: String,
}

impl Ahead {
    fn new() -> Ahead {
        let scratch = Scratch::new();
        let engines = scratch.file("engines");
        Ahead { scratch, library: plain(&plugin::openvino()).to_string(), engines }
    }

    fn flags<'a>(&'a self, provider: &'a str) -> Vec<&'a str> {
        let Ahead { scratch, library, engines } = self;
        let model = ["--model", &scratch.model, "--engines", engines];
        [&model[..], &["--provider", provider, "--ep-library", library]].concat()
    }

    /// The words of `compile`.
    fn compile<'a>(&'a self, provider: &'a str) -> Vec<&'a str> {
        [&["compile"], &self.flags(provider)[..]].concat()
    }

    /// Draws with the engines: the file or what was said in its place, and all that was said.
    fn draw(&self, provider: &str) -> (Result<Vec<u8>, String>, String) {
        self.draw_with(&self.flags(provider))
    }

    fn draw_with(&self, flags: &[&str]) -> (Result<Vec<u8>, String>, String) {
        let out = self.scratch.file("out.png");
        let draw = ["generate", "--prompt", "a cat", "--infer-steps", "2", "-o", &out];
        let output = serve(&[&draw[..], flags].concat());
        let said = text(&output.stderr);
        match output.status.success() {
            true => (Ok(fs::read(&out).expect("a picture")), said),
            false => (Err(said.clone()), said),
        }
    }
}

fn succeeds(words: &[&str]) -> String {
    let output = serve(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_model_that_is_compiled_ahead_draws_the_same_picture() {
    let ahead = Ahead::new();
    let said = ahead.draw("openvino").0.expect_err("nothing is compiled yet");
    assert!(said.contains("engines.yaml: not found: no engines"), "{said}");
    let said = succeeds(&ahead.compile("openvino"));
    assert!(said.contains(" MB for openvino 1.8.1 on cpu "), "{said}");
    assert!(succeeds(&ahead.compile("openvino")).contains("has just these engines already"));
    let with = ahead.draw("openvino").0.expect("it draws");
    let flags = ahead.flags("openvino");
    let without: Vec<&str> = [&flags[..2], &flags[4..]].concat();
    assert!(ahead.draw_with(&without).0.expect("it draws") == with);
}

#[test]
fn engines_of_something_else_are_refused_with_the_command_that_mends_it() {
    let ahead = Ahead::new();
    succeeds(&ahead.compile("openvino"));
    let said = ahead.draw("openvino:bf16").0.expect_err("another precision");
    let mend = said.split('`').nth(1).unwrap_or_else(|| panic!("no command: {said}"));
    let rest = mend.strip_prefix("hydit-serve ").unwrap_or_else(|| panic!("{mend}"));
    let program = env!("CARGO_BIN_EXE_hydit-serve");
    let mended = Command::new("sh").args(["-c", &format!("{program} {rest}")]).output();
    let mended = mended.expect("a shell");
    assert!(mended.status.success(), "{mend}: {}", text(&mended.stderr));
    ahead.draw("openvino:bf16").0.expect("it draws");

    for (words, expected) in [
        (
            vec!["--provider", "cpu"],
            "the cpu provider has no engines: add --provider openvino:bf16",
        ),
        (vec!["--backend", "tract"], "has no engines"),
        (
            vec!["--backend", "triton", "--triton", "grpc://127.0.0.1:1"],
            "--engines is for an engine",
        ),
    ] {
        let words = [&ahead.flags("")[..4], &words].concat();
        let said = ahead.draw_with(&words).0.expect_err("a refusal");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    let words = [&["compile"], &ahead.flags("")[..4], &["--provider", "cpu"]].concat();
    let refused = serve(&words);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the cpu provider cannot be used: it compiles no graphs ahead"),
        "{said}"
    );
}

#[test]
fn engines_that_the_provider_would_rather_have_anew_are_compiled_again() {
    let mut ahead = Ahead::new();
    let source = format!("#define PLUGIN {:?}\n{PREFERRING}", ahead.library);
    let library = plugin::compile(ahead.scratch.folder.path(), "preferring", &source);
    ahead.library = plain(&library).to_string();
    succeeds(&ahead.compile("openvino"));
    let fresh = ahead.draw("openvino").0.expect("it draws");
    let manifest = Path::new(&ahead.engines).join("engines.yaml");
    let before = fs::read_to_string(&manifest).expect("a manifest");
    let mut yaml = before.clone();
    for entry in fs::read_dir(&ahead.engines).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|ending| ending != "onnx") {
            continue;
        }
        let bytes = fs::read(&path).expect("a context");
        let forged = protobuf::edit(&bytes, 14, |entry| {
            for (_, value) in entry.iter_mut().filter(|(number, _)| *number == 2) {
                if let Value::Bytes(words) = value {
                    *words =
                        text(words).replace("\"ovep_ver\":\"1.8.1", "\"ovep_ver\":\"older").into();
                }
            }
        });
        assert!(forged != bytes && forged.len() == bytes.len());
        let hash = |mut bytes: &[u8]| hydit::util::sha256(&mut bytes).expect("read");
        yaml = yaml.replace(&hash(&bytes), &hash(&forged));
        fs::write(&path, forged).expect("written");
    }
    assert_ne!(yaml, before);
    fs::write(&manifest, yaml).expect("written");

    let (drawn, said) = ahead.draw("openvino");
    assert!(drawn.expect("it draws") == fresh);
    let line = "runs them, and better when they are compiled here, which is done now";
    assert!(said.contains(line), "{said}");
    assert!(!ahead.draw("openvino").1.contains(line), "they are compiled already");
}

#[test]
fn tensorrt_is_asked_for_the_shapes_of_the_sizes_that_are_named() {
    let scratch = Scratch::new();
    let tensorrt = ["compile", "--model", &scratch.model, "--provider", "tensorrt"];
    let sizes = ["--image-size", "128", "128", "--image-size", "64", "96", "--images", "2"];
    let profiles = succeeds(&[&tensorrt[..], &sizes, &["--profiles"]].concat());
    let profiles: serde_json::Value = serde_json::from_str(&profiles).expect("JSON");
    let decoder = &profiles["vae-decoder"];
    let shapes = ["min", "opt", "max"].map(|end| decoder[end].as_str().expect("shapes"));
    assert_eq!(shapes, ["latents:1x4x8x12", "latents:1x4x16x16", "latents:1x4x16x16"]);
    let core = profiles["deep-core"]["max"].as_str().expect("shapes");
    assert!(core.starts_with("skip_0:4x64x"), "{core}");

    let engines = scratch.file("engines");
    for (words, code, expected) in [
        (vec!["--engines", &engines], 2, "the tensorrt provider cannot be used"),
        (vec!["--profiles", "--image-size", "100", "128"], 1, "100 is not a multiple of 16"),
        (vec!["--profiles", "--images", "0"], 1, "num_images: 0; expected 1 to 64"),
        (vec![], 2, "--engines"),
    ] {
        let output = serve(&[&tensorrt[..], &words].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    assert!(!Path::new(&engines).exists());
    let openvino = ["compile", "--model", &scratch.model, "--provider", "openvino"];
    for (words, expected) in [
        (vec!["--engines", &engines, "--image-size", "64", "64"], "for pictures of any size"),
        (vec!["--profiles"], "add --provider tensorrt"),
    ] {
        let output = serve(&[&openvino[..], &words].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{words:?}: {said}");
    }
    let out = scratch.file("out.png");
    let draw = ["generate", "--model", &scratch.model, "--prompt", "a cat", "-o", &out];
    for (words, expected) in [
        (vec!["--allow-build"], "--engines"),
        (vec!["--allow-build", "--engines", &engines], "only --provider tensorrt builds engines"),
    ] {
        let output = serve(&[&draw[..], &words].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{words:?}: {said}");
    }
}

#[test]
fn a_killed_compile_leaves_the_older_engines_or_none() {
    let ahead = Ahead::new();
    let folder = Path::new(&ahead.engines);
    let left = folder.with_file_name(".engines.hydit-compile");
    let kill = |provider: &str| {
        let mut child = command(&ahead.compile(provider))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let start = Instant::now();
        let written = || left.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        while !written() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is written");
            thread::sleep(Duration::from_millis(1));
        }
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::KILL).expect("killed");
        assert!(!child.wait().expect("it ended").success());
        assert!(left.exists(), "it was killed too late");
    };
    kill("openvino");
    assert!(!folder.exists());
    assert!(ahead.draw("openvino").0.is_err());
    succeeds(&ahead.compile("openvino"));
    assert!(!left.exists());
    let before = ahead.draw("openvino").0.expect("it draws");
    kill("openvino:bf16");
    assert!(ahead.draw("openvino").0.expect("it draws") == before);
    fs::write(folder.join("notes.txt"), "mine").expect("written");
    let refused = serve(&ahead.compile("openvino:bf16"));
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("it holds notes.txt"), "{said}");
    fs::remove_file(folder.join("notes.txt")).expect("removed");
    succeeds(&ahead.compile("openvino:bf16"));
    assert!(!left.exists());
}
