//! Engines that OpenVINO's true plugin compiles ahead: the same bits as without them, and which ones are
//! not taken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hydit::Pipeline;
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::engines::{Engines, compile};
use hydit::eval::verify::Tensors;
use hydit::runtime::{Backend, BackendChoice, Compatibility, PluginOptions, RuntimeOptions};
use hydit::util::{error_chain, sha256};
use hydit::{Error, Request};
use hydit_testing::protobuf::{self, Value};
use hydit_testing::{emoji, plugin};
use tempfile::TempDir;

use crate::plugin::open;

/// A manifest of engines.
const MANIFEST: &str = "engines.yaml";

/// OpenVINO with an option of its own.
fn with_option(key: &str, value: &str) -> Backend {
    let options = vec![(key.to_string(), value.to_string())];
    let library = Some(plugin::openvino());
    Backend::open(&RuntimeOptions {
        backend: BackendChoice::Ort,
        provider: "openvino".parse().expect("a provider"),
        plugin: PluginOptions { library, options, device: None },
        ..Default::default()
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

/// Compiles the usual export for `provider`.
fn compiled(provider: &str) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("engines");
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("artifacts");
    let mut told = Vec::new();
    let made = compile(&artifacts, &open(provider), None, &folder, |one| told.push(one.graph));
    made.unwrap_or_else(|error| panic!("{error}")).expect("new engines");
    let graphs: Vec<&String> = artifacts.manifest.graphs.iter().map(|graph| &graph.name).collect();
    assert_eq!(told.iter().collect::<Vec<_>>(), graphs);
    (root, folder)
}

/// The file of the engine of `graph` that ends in `ending`.
fn file(folder: &Path, graph: &str, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let begins = format!("{graph}-");
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(&begins).unwrap_or_default();
        name.ends_with(ending) && rest.as_bytes().first().is_some_and(u8::is_ascii_hexdigit)
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    assert_eq!(found.len(), 1, "{graph}, {ending}: {found:?}");
    found.remove(0)
}

/// Replaces `from` in the manifest.
fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join(MANIFEST);
    let text = fs::read_to_string(&path).expect("a manifest");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replacen(from, to, 1)).expect("written");
}

/// Writes `bytes` in the place of `path`, and what the manifest says of it.
fn forge(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("a folder");
    let hash = |mut bytes: &[u8]| sha256(&mut bytes).expect("bytes are read");
    let before = fs::read(path).expect("a file");
    let text = fs::read_to_string(folder.join(MANIFEST)).expect("a manifest");
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let (rest, files) = text.split_once("\nfiles:").expect("files");
    let (first, own) = files.split_once(name).expect("an entry");
    let own = own.replacen(&before.len().to_string(), &bytes.len().to_string(), 1);
    let own = own.replacen(&hash(&before), &hash(bytes), 1);
    fs::write(path, bytes).expect("written");
    fs::write(folder.join(MANIFEST), format!("{rest}\nfiles:{first}{name}{own}")).expect("written");
}

/// As [`forge`], with `from` replaced by `to` of the same length in all texts of the context.
fn forge_text(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).expect("a file");
    let place = bytes.windows(from.len()).position(|part| part == from.as_bytes());
    let place = place.unwrap_or_else(|| panic!("{from} in {}", path.display()));
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    forge(path, &bytes);
}

/// As [`forge`], with other words of the provider in the context.
fn forge_words(path: &Path, change: impl Fn(&str) -> String) {
    let bytes = fs::read(path).expect("a file");
    let forged = protobuf::edit(&bytes, 14, |entry| {
        for (_, value) in entry.iter_mut().filter(|(number, _)| *number == 2) {
            if let Value::Bytes(text) = value {
                *text = change(std::str::from_utf8(text).expect("text")).into_bytes();
            }
        }
    });
    assert_ne!(forged, bytes);
    forge(path, &forged);
}

#[test]
fn engines_compute_and_draw_the_same_bits() {
    let export = emoji::artifacts();
    for provider in ["openvino", "openvino:bf16"] {
        let (_root, folder) = compiled(provider);
        let plain = Artifacts::open(&export).expect("artifacts");
        let ahead = Artifacts::open(&export).expect("artifacts");
        let ahead = ahead.with_engines(Some(&folder)).expect("engines");
        let backend = open(provider);
        for graph in &plain.manifest.graphs {
            let [without, with] = [&plain, &ahead].map(|artifacts| {
                let mut session = artifacts
                    .load(&graph.name, &backend)
                    .unwrap_or_else(|error| panic!("{}: {}", graph.name, error_chain(&error)));
                let mut tensors =
                    Tensors::random(&plain.manifest, graph, &backend).expect("tensors");
                tensors.run(&mut session).unwrap_or_else(|error| panic!("{}: {error}", graph.name))
            });
            assert_eq!(without.error(&with), 0.0, "{} on {provider}", graph.name);
        }
        let draw = |artifacts: Artifacts| {
            let mut pipeline = Pipeline::open(artifacts, open(provider)).expect("a pipeline");
            let cache_policy: CachePolicy = "N2".parse().expect("a policy");
            let request = Request { cache_policy, ..emoji::cat(pipeline.manifest(), 4) };
            let request = emoji::checked(&pipeline, &request);
            let made = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
            (made.latents, made.images)
        };
        let (without, with) = (draw(plain), draw(ahead));
        assert!(without.0 == with.0, "latents on {provider}");
        assert!(without.1[0].rgb == with.1[0].rgb, "the picture on {provider}");
    }
}

/// Engines and an export that something is done to, before they are used on a backend.
struct Scene {
    root: TempDir,
    engines: PathBuf,
    export: PathBuf,
    backend: Backend,
}

impl Scene {
    /// A copy of the engines in `made`, of the usual export.
    fn of(made: &Path, backend: &Backend) -> Scene {
        let root = tempfile::tempdir().expect("a folder");
        let engines = root.path().join("engines");
        fs::create_dir(&engines).expect("a folder");
        for entry in fs::read_dir(made).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), engines.join(entry.file_name())).expect("copied");
        }
        Scene { root, engines, export: emoji::artifacts(), backend: backend.clone() }
    }

    fn core(&self, ending: &str) -> PathBuf {
        file(&self.engines, "deep-core", ending)
    }

    /// Opens the engines, and loads that of the core.
    fn load(&self) -> Result<Compatibility, Error> {
        let artifacts = Artifacts::open(&self.export)?.with_engines(Some(&self.engines))?;
        artifacts.check_engine(&self.backend)?;
        artifacts.load("deep-core", &self.backend)?;
        Engines::open(&self.engines)?.check(&artifacts, &self.backend)
    }
}

/// What is done, and what is said to it; nothing where all is fine.
type Case = (&'static str, Box<dyn Fn(&mut Scene)>, &'static str);

#[test]
fn engines_that_are_moved_are_taken_and_those_of_something_else_refused() {
    let (_root, made) = compiled("openvino");
    let backend = open("openvino");
    fn case(name: &'static str, change: impl Fn(&mut Scene) + 'static, said: &'static str) -> Case {
        (name, Box::new(change), said)
    }
    let again = |schema: &'static str, other: &'static str| {
        move |scene: &mut Scene| edit(&scene.engines, schema, other)
    };
    let (first, second) = ("deep-core.onnx.data: ", "deep-core.onnx: ");
    let cases: Vec<Case> = vec![
        case("as they are", |_| {}, ""),
        case(
            "moved",
            |scene| {
                let to = scene.root.path().join("elsewhere/with spaces");
                fs::create_dir(scene.root.path().join("elsewhere")).expect("a folder");
                fs::rename(&scene.engines, &to).expect("moved");
                scene.engines = to;
            },
            "",
        ),
        case(
            "behind a link",
            |scene| {
                let link = scene.root.path().join("link");
                symlink(&scene.engines, &link).expect("a link");
                scene.engines = link;
            },
            "",
        ),
        case(
            "no manifest",
            |scene| fs::remove_file(scene.engines.join(MANIFEST)).expect("removed"),
            "not found: no engines; make them with hydit-serve compile",
        ),
        case(
            "a manifest cut off",
            |scene| {
                let text = fs::read(scene.engines.join(MANIFEST)).expect("a manifest");
                fs::write(scene.engines.join(MANIFEST), &text[..text.len() / 2]).expect("written");
            },
            "compile again",
        ),
        case("a newer manifest", again("schema: 1", "schema: 2"), "schema 2, expected 1"),
        case(
            "a file elsewhere",
            |scene| {
                let name = scene.core(".bin").file_name().expect("a name").to_owned();
                let name = name.to_str().expect("text").to_string();
                edit(&scene.engines, &name, &format!("../{name}"));
            },
            "leaves the folder",
        ),
        case(
            "a truncated context",
            |scene| {
                let blob = fs::File::options().write(true).open(scene.core(".bin"));
                blob.and_then(|blob| blob.set_len(1 << 20)).expect("cut off");
            },
            "to 1048576 bytes since it was compiled: compile again",
        ),
        case(
            "a changed context",
            |scene| {
                let mut bytes = fs::read(scene.core(".bin")).expect("a file");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(scene.core(".bin"), bytes).expect("written");
            },
            "was changed (its SHA-256 differs)",
        ),
        case(
            "a context that is missing",
            |scene| fs::remove_file(scene.core(".bin")).expect("removed"),
            "cannot read",
        ),
        case(
            "a context that is a link",
            |scene| {
                let (blob, away) = (scene.core(".bin"), scene.root.path().join("away"));
                fs::rename(&blob, &away).expect("moved");
                symlink(&away, &blob).expect("a link");
            },
            "a link, which no engine follows",
        ),
        case(
            "the file of another graph",
            |scene| {
                let other = file(&scene.engines, "shallow-encoder", ".onnx");
                fs::copy(other, scene.core(".onnx")).expect("copied");
            },
            "since it was compiled: compile again",
        ),
        case(
            "a graph that is not compiled",
            |scene| {
                let graph = fs::read(scene.export.join("deep-core.onnx")).expect("a graph");
                forge(&scene.core(".onnx"), &graph);
            },
            "no engine, it has parts that are not compiled",
        ),
        case(
            "a context elsewhere",
            |scene| {
                let name = scene.core(".bin");
                let name = name.file_name().and_then(|name| name.to_str()).expect("a name");
                forge_text(&scene.core(".onnx"), name, &format!("../{}", &name[3..]));
            },
            "which is no file of this engine",
        ),
        case(
            "an engine too few",
            again("  deep-core:", "  deepest-core:"),
            "there is none of deep-core: compile again with `hydit-serve compile --model ",
        ),
        case(
            "other weights",
            move |scene| {
                let read = |name| fs::read(scene.export.join(name)).expect("a file");
                let text = String::from_utf8(read("manifest.yaml")).expect("text");
                let hash = sha256(&mut &read("deep-core.onnx.data")[..]).expect("read");
                assert!(text.contains(&hash));
                let other = scene.root.path().join("export");
                fs::create_dir(&other).expect("a folder");
                let text = text.replace(&hash, &"0".repeat(64));
                fs::write(other.join("manifest.yaml"), text).expect("written");
                scene.export = other;
            },
            "that of deep-core was compiled from another export of the model: compile again",
        ),
        case(
            "sources that the key does not have",
            move |scene| {
                let text = fs::read_to_string(scene.engines.join(MANIFEST)).expect("a manifest");
                let hash = |name| {
                    let (_, rest): (&str, &str) = text.split_once(name).expect("a source");
                    rest[..64].to_string()
                };
                edit(&scene.engines, &hash(first), &hash(second));
            },
            "compiled from another export",
        ),
        case(
            "another precision",
            |scene| scene.backend = open("openvino:bf16"),
            "compiled for another provider: openvino, where openvino:bf16 is used",
        ),
        case(
            "another option",
            |scene| scene.backend = with_option("load_config", r#"{"CPU":{}}"#),
            "compiled for another option load_config: {",
        ),
        case(
            "an older plugin",
            again("version: \"1.8.1\"", "version: \"1.8.0\""),
            "another version of the provider: 1.8.0, where 1.8.1 is used",
        ),
        case(
            "another ONNX Runtime",
            again("onnxruntime: \"1.31.1\"", "onnxruntime: \"1.24.0\""),
            "another ONNX Runtime: 1.24.0, where 1.31.1 is used",
        ),
        case(
            "another device",
            again("device: cpu ", "device: gpu "),
            "compiled for another device",
        ),
        case(
            "another provider's",
            again("provider: openvino", "provider: tensorrt-rtx"),
            "another provider: tensorrt-rtx, where openvino is used",
        ),
        case(
            "the CPU provider",
            |scene| scene.backend = open("cpu"),
            "for the provider openvino, and the cpu provider has no engines: add --provider openvino",
        ),
        case(
            "tract",
            |scene| scene.backend = emoji::backend(BackendChoice::Tract),
            "has no engines: add --provider openvino",
        ),
        case(
            "what the provider does not run here",
            |scene| {
                forge_words(&scene.core(".onnx"), |words| words.replace("meta=1.0", "meta=9.0"))
            },
            "the openvino provider says that it does not run on this machine: compile again with",
        ),
    ];
    assert!(cases.len() >= 20);
    for (name, change, said) in cases {
        let mut scene = Scene::of(&made, &backend);
        change(&mut scene);
        match scene.load() {
            Ok(found) => {
                assert_eq!(said, "", "{name} are taken");
                assert_eq!(found, Compatibility::Good, "{name}");
            }
            Err(error) => {
                let told = error_chain(&error);
                assert!(!said.is_empty() && told.contains(said), "{name}: {told}");
            }
        }
    }
}

/// Its files are hashed ahead from when the folder is opened, and long done once another has loaded.
#[test]
fn an_engine_that_is_changed_after_it_was_hashed_is_refused() {
    let (_root, made) = compiled("openvino");
    let Scene { root: _root, engines, export, backend } = Scene::of(&made, &open("openvino"));
    let artifacts = Artifacts::open(&export).and_then(|them| them.with_engines(Some(&engines)));
    let artifacts = artifacts.unwrap_or_else(|error| panic!("{error}"));
    artifacts.load("vae-decoder", &backend).unwrap_or_else(|error| panic!("{error}"));
    let path = file(&engines, "deep-core", ".bin");
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let refused = artifacts.load("deep-core", &backend).err().expect("a refusal");
    assert!(error_chain(&refused).contains("was changed (its SHA-256 differs)"), "{refused}");
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("written");
    artifacts.load("deep-core", &backend).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn engines_are_compiled_once_and_again_where_something_has_changed() {
    let (_root, folder) = compiled("openvino");
    let artifacts = || Artifacts::open(&emoji::artifacts()).expect("artifacts");
    let again = |backend: &Backend| {
        let mut graphs = 0;
        let made = compile(&artifacts(), backend, None, &folder, |_| graphs += 1);
        (made.expect("it compiles").is_some(), graphs)
    };
    let backend = open("openvino");
    let before = fs::read(folder.join(MANIFEST)).expect("a manifest");
    assert_eq!(again(&backend), (false, 0));
    fs::write(file(&folder, "conditioner", ".bin"), "broken").expect("written");
    let all = artifacts().manifest.graphs.len();
    assert_eq!(again(&backend), (true, all));
    let text = fs::read_to_string(folder.join(MANIFEST)).expect("a manifest");
    let engines = |text: &str| text.split("\nfiles:").next().map(str::to_string);
    assert_eq!(engines(&text), engines(std::str::from_utf8(&before).expect("text")));
    assert_eq!(again(&open("openvino:bf16")), (true, all));
    assert_eq!(again(&open("openvino:bf16")), (false, 0));
    let names = fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(names, 2 * all + 1, "nothing of the older engines is left");

    let refused = compile(&artifacts(), &open("cpu"), None, &folder, |_| {});
    let message = refused.err().expect("a refusal").to_string();
    assert!(
        message.contains("the cpu provider cannot be used: it compiles no graphs"),
        "{message}"
    );
}
