//! `manifest.yaml`: the contract between exporter and server. It is written last, so a folder with
//! a manifest is complete. Everything the server needs is in it or named by it.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use crate::dim::{Cost, Sizes};
use crate::options::{Precision, Target};
use crate::scheduler::NoiseSchedule;
use crate::tensor::TensorSpec;
use crate::variant::Variant;
use crate::yaml::{YamlError, parse_yaml};

/// Version of the manifest's format; a reader refuses any other.
pub const SCHEMA: u32 = 1;

/// Name of the manifest in its folder.
pub const FILE: &str = "manifest.yaml";

/// The content of an artifact folder, and how it was exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's format, [`SCHEMA`].
    pub schema: u32,
    /// Name and version of the program that wrote the folder.
    pub producer: String,
    /// ONNX operator set of the graphs.
    pub opset: i64,
    /// The runtime that the transformer's graphs are built for.
    #[serde(rename = "form")]
    pub target: Target,
    /// The number format of the large matrices.
    pub precision: Precision,
    /// Number of blocks before the deep core, and after it.
    pub cache_at_branch: usize,
    /// How to use the model.
    pub variant: Variant,
    /// The configs of all components.
    pub model: ModelConfig,
    /// The graphs, in the order in which they run.
    pub graphs: Vec<GraphEntry>,
    /// The two tokenizers.
    pub tokenizers: Tokenizers,
    /// Every file of the folder but the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// The configs of all components, named as the folders of a diffusers pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Config of the diffusion transformer.
    pub transformer: HunyuanDitConfig,
    /// Config of the first text encoder.
    pub text_encoder: BertConfig,
    /// Config of the second text encoder.
    pub text_encoder_2: T5Config,
    /// Config of the image decoder.
    pub vae: VaeConfig,
    /// The noise schedule that the model was trained with.
    pub scheduler: NoiseSchedule,
}

/// One graph of the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEntry {
    /// Name of the graph, such as `deep-core`.
    pub name: String,
    /// Name of the ONNX file.
    pub file: String,
    /// Name of the file with the weights, which the ONNX file refers to.
    pub data: String,
    /// Number of parameters that the graph has from the checkpoint.
    pub parameters: u64,
    /// Floating-point operations of one run.
    pub flops: Cost,
    /// Inputs of the graph.
    pub inputs: Vec<TensorSpec>,
    /// Outputs of the graph.
    pub outputs: Vec<TensorSpec>,
}

/// The two tokenizers, as `tokenizer.json` files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizers {
    /// Tokenizer of the first text encoder.
    pub text_encoder: TokenizerEntry,
    /// Tokenizer of the second text encoder.
    pub text_encoder_2: TokenizerEntry,
}

/// One tokenizer of the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerEntry {
    /// Name of the `tokenizer.json` file.
    pub file: String,
    /// Number of tokens that every prompt is truncated or padded to.
    pub length: usize,
    /// Id of the padding token.
    pub pad_id: u32,
}

/// One file of the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in 64 hexadecimal digits.
    pub sha256: String,
}

/// The reason why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The text is not YAML of the expected form.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The manifest was written by another version.
    #[error("schema {found}, expected {SCHEMA}: export the checkpoint again with this version")]
    Schema {
        /// The version that the manifest names.
        found: u32,
    },
    /// A name is not that of a file in the folder.
    #[error("file name `{0}` leaves the folder or is not listed under `files`")]
    FileName(String),
    /// A graph is missing.
    #[error("graph `{0}` is missing")]
    Graph(String),
}

impl Manifest {
    /// Parses the YAML text of a manifest and checks its version and file names.
    ///
    /// # Errors
    /// The text is not a manifest of this version, or a file name leaves the folder.
    pub fn from_yaml(text: &str) -> Result<Manifest, ManifestError> {
        /// The version alone, since a manifest of another version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = parse_yaml(text)?;
        if schema != SCHEMA {
            return Err(ManifestError::Schema { found: schema });
        }
        let manifest: Manifest = parse_yaml(text)?;
        manifest.check_names()?;
        Ok(manifest)
    }

    /// The manifest as YAML text.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a manifest has a YAML form")
    }

    /// The graph called `name`.
    ///
    /// # Errors
    /// There is no such graph.
    pub fn graph(&self, name: &str) -> Result<&GraphEntry, ManifestError> {
        let graph = self.graphs.iter().find(|graph| graph.name == name);
        graph.ok_or_else(|| ManifestError::Graph(name.to_string()))
    }

    /// Floating-point operations of one run of the graph `name` at `sizes`; 0 if there is no such
    /// graph.
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
        match self.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(ManifestError::FileName(name.clone())),
            None => Ok(()),
        }
    }
}

/// Whether `name` is that of a file in a folder, not a path that leads elsewhere.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}
