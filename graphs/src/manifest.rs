//! `manifest.yaml`: the contract between exporter and server. Written last, so a folder that has
//! one is whole; everything the server needs is in it or named by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use crate::dim::{Cost, Sizes};
use crate::scheduler::NoiseSchedule;
use crate::target::{Form, Precision};
use crate::tensor::TensorSpec;
use crate::variant::Variant;
use crate::yaml;

/// Version of the manifest's form; a reader refuses any other.
pub const SCHEMA: u32 = 1;

/// Name of the manifest in its folder.
pub const FILE: &str = "manifest.yaml";

/// What an artifact folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version that wrote it.
    pub producer: String,
    /// ONNX operator set.
    pub opset: i64,
    /// Whom the transformer's graphs are written for; `portable` is plain ONNX.
    pub form: Form,
    /// How the big matrices are stored and multiplied.
    pub precision: Precision,
    /// Blocks before and after the cut.
    pub cache_at_branch: usize,
    /// How to use the model.
    pub variant: Variant,
    /// The components' configs.
    pub model: ModelConfig,
    /// Graphs by name, in the order they run.
    pub graphs: Vec<GraphEntry>,
    /// Tokenizers.
    pub tokenizers: Tokenizers,
    /// Every other file of the folder, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// Configs of all components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the folder names of a diffusers pipeline
pub struct ModelConfig {
    pub transformer: HunyuanDitConfig,
    pub text_encoder: BertConfig,
    pub text_encoder_2: T5Config,
    pub vae: VaeConfig,
    pub scheduler: NoiseSchedule,
}

/// One graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEntry {
    /// Name.
    pub name: String,
    /// The ONNX file.
    pub file: String,
    /// The weights beside it.
    pub data: String,
    /// Parameters of the checkpoint in it.
    pub parameters: u64,
    /// Floating-point operations of a run, a sum of products of sizes.
    pub flops: Cost,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

/// The two tokenizers, as `tokenizer.json` files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizers {
    /// Of the first text encoder.
    pub text_encoder: TokenizerEntry,
    /// Of the second text encoder.
    pub text_encoder_2: TokenizerEntry,
}

/// One tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerEntry {
    /// The file.
    pub file: String,
    /// Length every prompt is cut or padded to.
    pub length: usize,
    /// Id of the padding token.
    pub pad_id: u32,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not YAML of the expected form.
    #[error("{0}")]
    Yaml(String),
    /// Written by another version.
    #[error("schema {found}, expected {SCHEMA}: export the checkpoint again with this version")]
    Schema {
        /// What it says.
        found: u32,
    },
    /// A name that is not a plain file name in the folder.
    #[error("file name `{0}` leaves the folder or is not listed under `files`")]
    FileName(String),
    /// A graph that must be there is not.
    #[error("graph `{0}` is missing")]
    Graph(String),
}

impl Manifest {
    /// From YAML text; checks version and file names.
    pub fn from_yaml(text: &str) -> Result<Manifest, ManifestError> {
        /// The version alone: a manifest of another version may have another form.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = yaml::parse(text).map_err(ManifestError::Yaml)?;
        if version.schema != SCHEMA {
            return Err(ManifestError::Schema { found: version.schema });
        }
        let manifest: Manifest = yaml::parse(text).map_err(ManifestError::Yaml)?;
        manifest.check_names()?;
        Ok(manifest)
    }

    /// As YAML text.
    ///
    /// # Panics
    /// Never: every field has a YAML form.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a manifest has a YAML form")
    }

    /// The graph `name`.
    pub fn graph(&self, name: &str) -> Result<&GraphEntry, ManifestError> {
        let graph = self.graphs.iter().find(|graph| graph.name == name);
        graph.ok_or_else(|| ManifestError::Graph(name.to_string()))
    }

    /// FLOPs of one call of the graph `name` at `sizes`; 0 where there is no such graph.
    pub fn flops(&self, name: &str, sizes: &Sizes) -> f64 {
        self.graph(name).map_or(0.0, |graph| graph.flops.at(sizes) as f64)
    }

    fn check_names(&self) -> Result<(), ManifestError> {
        let tokenizers = [&self.tokenizers.text_encoder, &self.tokenizers.text_encoder_2];
        let graphs = self.graphs.iter().flat_map(|graph| [&graph.file, &graph.data]);
        for name in graphs.chain(tokenizers.map(|tokenizer| &tokenizer.file)) {
            if !self.files.contains_key(name) {
                return Err(ManifestError::FileName(name.clone()));
            }
        }
        let plain = |name: &str| {
            let parts = std::path::Path::new(name).components();
            parts.clone().count() == 1
                && parts.clone().all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        match self.files.keys().find(|name| !plain(name)) {
            Some(name) => Err(ManifestError::FileName(name.clone())),
            None => Ok(()),
        }
    }
}
