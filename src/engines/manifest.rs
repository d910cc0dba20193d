//! `engines.yaml`: what a folder of engines holds, of what it was made and for what.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path};

use hydit_graphs::manifest::{FileEntry, GraphEntry};
use hydit_graphs::{YamlError, parse_yaml, to_yaml};
use hydit_input::file;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::profile::Pictures;
use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::runtime::{CompiledFor, Profile};
use crate::util::hex;

/// Version of the format; a reader refuses any other.
pub const SCHEMA: u32 = 1;

/// Name of the manifest in its folder.
pub const FILE: &str = "engines.yaml";

/// Largest manifest read.
const MAX_BYTES: u64 = 1 << 20;

/// The content of a folder of engines, and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnginesManifest {
    /// Version of the format, [`SCHEMA`].
    pub schema: u32,
    /// Name and version of the program that wrote the folder.
    pub producer: String,
    /// What all engines are for.
    pub compiled_for: CompiledFor,
    /// The pictures that they draw; any, if none are told. With these TensorRT has built them, and
    /// loads them along with the graphs of the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Pictures>,
    /// The engines, by the names of their graphs.
    pub engines: BTreeMap<String, EngineEntry>,
    /// Every file of the folder but the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// An engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineEntry {
    /// [`key`] of what it was made of and for. The names of its files have the beginning of it.
    pub key: String,
    /// SHA-256 of the graph's files in the export, by name.
    pub sources: BTreeMap<String, String>,
    /// The shapes that it was built for, if for some only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Its files: the ONNX file, if it has one, then those of the provider.
    pub files: Vec<String>,
}

impl EnginesManifest {
    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    /// There is none, or it is of another version, or names files that are not in the folder.
    pub fn read(folder: &Path) -> Result<EnginesManifest> {
        /// The version alone, since a manifest of another version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let path = folder.join(FILE);
        let wrong = |message: String| Error::Artifact { path: path.clone(), message };
        let text = file::read_text(&path, MAX_BYTES).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => wrong(
                "not found: no engines; make them with hydit-serve compile --model DIR --provider P \
                 --engines DIR"
                    .to_string(),
            ),
            _ => Error::Read { path: path.clone(), source },
        })?;
        let unreadable =
            |error: YamlError| wrong(format!("{error}: remove the folder and compile again"));
        let Version { schema } = parse_yaml(&text).map_err(unreadable)?;
        if schema != SCHEMA {
            return Err(wrong(format!(
                "schema {schema}, expected {SCHEMA}: compile again with this version of hydit-serve"
            )));
        }
        let manifest: EnginesManifest = parse_yaml(&text).map_err(unreadable)?;
        manifest.check().map_err(|why| wrong(format!("{why}: compile again")))?;
        Ok(manifest)
    }

    /// The manifest as YAML text.
    pub fn to_yaml(&self) -> String {
        to_yaml(self)
    }

    /// Checks that every engine has files, that these lie in the folder, and that some picture may be
    /// drawn.
    fn check(&self) -> std::result::Result<(), String> {
        if self.pictures.as_ref().is_some_and(|known| known.sizes.is_empty() || known.images == 0) {
            return Err("the engines are for no pictures".to_string());
        }
        for (graph, entry) in &self.engines {
            if entry.files.is_empty() {
                return Err(format!("the engine of {graph} has no files"));
            }
            for name in &entry.files {
                let mut parts = Path::new(name).components();
                let plain = matches!(
                    (parts.next(), parts.next()),
                    (Some(Component::Normal(part)), None) if part == name.as_str()
                );
                if !plain || !self.files.contains_key(name) {
                    let name = name.escape_debug();
                    return Err(format!(
                        "file name `{name}` leaves the folder or is not listed under `files`"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// SHA-256 of the files of `graph`, by name, as the manifest of `artifacts` has them.
pub fn sources(artifacts: &Artifacts, graph: &GraphEntry) -> BTreeMap<String, String> {
    let files = graph.weights().chain([&graph.file]);
    files.map(|name| (name.clone(), artifacts.manifest.files[name].sha256.clone())).collect()
}

/// SHA-256 of all that an engine depends on: what it is for, the files that it is made of, and its
/// shapes.
pub fn key(
    compiled_for: &CompiledFor,
    sources: &BTreeMap<String, String>,
    profile: Option<&Profile>,
) -> String {
    let mut all = json!({ "schema": SCHEMA, "for": compiled_for, "sources": sources });
    if let Some(profile) = profile {
        all["profile"] = json!(profile);
    }
    hex(&Sha256::digest(all.to_string()))
}

/// How many digits of an engine's key the names of its files have.
const DIGITS: usize = 16;

/// What the names of the files of an engine of `graph` begin with.
pub fn stem(graph: &str, key: &str) -> String {
    format!("{graph}-{}", &key[..DIGITS])
}

/// Whether `name` has the key of an engine in it.
pub fn has_key(name: &str) -> bool {
    name.split('-').skip(1).any(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        digits == DIGITS && part[digits..].starts_with(['.', '_'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_openvino() -> CompiledFor {
        CompiledFor {
            onnxruntime: "1.31.1".into(),
            provider: "openvino".into(),
            version: "1.8.1".into(),
            device: "cpu Intel 0x0".into(),
            options: BTreeMap::from([("load_config".into(), "{\"CPU\": {}}".into())]),
        }
    }

    fn of_core() -> BTreeMap<String, String> {
        let of = |name: &str, hash: &str| (name.to_string(), hash.repeat(64));
        BTreeMap::from([of("deep-core.onnx", "a"), of("deep-core.onnx.data", "b")])
    }

    #[test]
    fn a_key_changes_with_all_that_an_engine_depends_on() {
        let (made, sources) = (for_openvino(), of_core());
        let same = key(&made, &sources, None);
        assert_eq!(key(&made.clone(), &sources.clone(), None), same);
        let mut keys = vec![same];
        for (file, hash) in [("deep-core.onnx", "c"), ("deep-core.onnx.data", "c")] {
            let mut changed = sources.clone();
            changed.insert(file.to_string(), hash.repeat(64));
            keys.push(key(&made, &changed, None));
        }
        let option =
            |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
        for changed in [
            CompiledFor { onnxruntime: "1.32.0".into(), ..for_openvino() },
            CompiledFor { provider: "openvino:bf16".into(), ..for_openvino() },
            CompiledFor { version: "1.8.2".into(), ..for_openvino() },
            CompiledFor { device: "gpu Intel 0x1".into(), ..for_openvino() },
            CompiledFor { options: option("load_config", "{}"), ..for_openvino() },
            CompiledFor { options: option("cache_dir", "{\"CPU\": {}}"), ..for_openvino() },
            CompiledFor { options: BTreeMap::new(), ..for_openvino() },
        ] {
            keys.push(key(&changed, &sources, None));
        }
        let shapes =
            |min: &str, max: &str| Profile { min: min.into(), opt: min.into(), max: max.into() };
        for profile in [Profile::default(), shapes("x:1", "x:2"), shapes("x:1", "x:3")] {
            keys.push(key(&made, &sources, Some(&profile)));
            assert_eq!(keys.last(), Some(&key(&made, &sources, Some(&profile.clone()))));
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
        assert!(keys.iter().all(|key| key.len() == 64));
    }

    #[test]
    fn a_manifest_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = "deep-core-0123456789abcdef.onnx";
        let file = FileEntry { bytes: 3, sha256: "c".repeat(64) };
        let entry = EngineEntry {
            key: key(&for_openvino(), &of_core(), None),
            sources: of_core(),
            profile: None,
            files: vec![name.to_string()],
        };
        let manifest = EnginesManifest {
            schema: SCHEMA,
            producer: "hydit".into(),
            compiled_for: for_openvino(),
            pictures: None,
            engines: BTreeMap::from([("deep-core".to_string(), entry)]),
            files: BTreeMap::from([(name.to_string(), file)]),
        };
        std::fs::write(folder.path().join(FILE), manifest.to_yaml()).expect("written");
        assert_eq!(EnginesManifest::read(folder.path()).expect("our own"), manifest);
    }
}
