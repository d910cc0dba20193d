//! `manifest.yaml`: the contract between exporter and server. It is written last, so a folder with
//! a manifest is complete. Everything the server needs is in it or named by it.

mod check;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::config::{
    BertConfig, ConfigError, HunyuanDitConfig, IpAdapterConfig, T5Config, TransformerConfig,
    VaeConfig,
};
use crate::control::Part;
use crate::dim::{Cost, Sizes};
use crate::options::{GraphOptions, Precision, Target};
use crate::pag::PagLayers;
use crate::scheduler::NoiseSchedule;
use crate::tensor::TensorSpec;
use crate::variant::Variant;
use crate::yaml::{YamlError, parse_yaml, to_yaml};

/// Version of the manifest's format; a reader refuses any other.
pub const SCHEMA: u32 = 1;

/// Name of the manifest in its folder.
pub const FILE: &str = "manifest.yaml";

/// Name of the file with the names of the classes, a line each, of a model that draws classes.
pub const CLASSES: &str = "classes.txt";

/// The content of an artifact folder, and how it was exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's format, [`SCHEMA`].
    pub schema: u32,
    /// Name and version of the program that wrote the folder.
    pub producer: String,
    /// ONNX operator set of the graphs; the newest, where they differ.
    pub opset: i64,
    /// The runtime that the transformer's graphs are built for.
    #[serde(rename = "form")]
    pub target: Target,
    /// The number format of the large matrices.
    pub precision: Precision,
    /// Number of blocks before the deep core, and after it.
    pub cache_at_branch: usize,
    /// The LoRAs that are merged into the weights, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraEntry>,
    /// The largest rank of LoRAs that requests may name; none if the graphs have no
    /// [slots](crate::lora).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_slots: Option<usize>,
    /// The ControlNets that requests may name; none if the graphs read no
    /// [controls](crate::control).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ControlEntry>,
    /// What image prompts need; none if requests can have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_adapter: Option<IpAdapterConfig>,
    /// The blocks, ascending, that [perturbed-attention guidance](crate::pag) perturbs; none if
    /// requests cannot have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pag_layers: Vec<usize>,
    /// How to use the model.
    pub variant: Variant,
    /// The configs of all components.
    pub model: ModelConfig,
    /// The graphs, in the order in which they run.
    pub graphs: Vec<GraphEntry>,
    /// The two tokenizers; none of a model that reads no texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizers: Option<Tokenizers>,
    /// Every file of the folder but the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// A LoRA that is merged into the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraEntry {
    /// Name of the file.
    pub file: String,
    /// SHA-256 of the file in 64 hexadecimal digits.
    pub sha256: String,
    /// The factor with which it was merged.
    pub weight: f32,
}

/// A ControlNet of the export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlEntry {
    /// Its name, by which requests choose it.
    pub name: String,
    /// Its config, in the form of the transformer's: `num_layers` is the transformer's.
    pub config: HunyuanDitConfig,
}

impl ControlEntry {
    /// The names of its graphs in an export that is cut at `n`, in the order in which they run.
    pub fn graphs(&self, n: usize) -> impl Iterator<Item = (Part, String)> {
        let parts = Part::ALL.into_iter().filter(move |part| part.is_in(&self.config, n));
        parts.map(|part| (part, part.graph(&self.name)))
    }
}

/// The configs of all components, named as the folders of a diffusers pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Config of the diffusion transformer.
    pub transformer: TransformerConfig,
    /// Config of the first text encoder, of a Hunyuan-DiT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<BertConfig>,
    /// Config of the second text encoder, of a Hunyuan-DiT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder_2: Option<T5Config>,
    /// Config of the autoencoder of images.
    pub vae: VaeConfig,
    /// The noise schedule that the model was trained with.
    pub scheduler: NoiseSchedule,
}

impl ModelConfig {
    /// The transformer and both text encoders of a Hunyuan-DiT; `None` of a model of classes.
    pub fn hunyuan_dit(&self) -> Option<(&HunyuanDitConfig, &BertConfig, &T5Config)> {
        let texts = self.text_encoder.as_ref().zip(self.text_encoder_2.as_ref());
        let (bert, t5) = texts?;
        Some((self.transformer.hunyuan_dit()?, bert, t5))
    }

    /// Whether the model draws classes, and reads no texts.
    pub fn draws_classes(&self) -> bool {
        self.transformer.shape().num_classes.is_some()
    }

    /// A prompt that the model can draw: `text`, or a class of a model that reads no texts.
    pub fn prompt_or_class<'a>(&self, text: &'a str) -> &'a str {
        if self.draws_classes() { "0" } else { text }
    }

    /// The side of the pictures in pixels, of a model that draws no others.
    pub fn only_size(&self) -> Option<usize> {
        let shape = self.transformer.shape();
        shape.num_classes.map(|_| shape.sample_size * self.vae.factor())
    }
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
    /// Names of the checkpoint's files that have more of the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_place: Vec<String>,
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
    /// The configs of two components contradict each other.
    #[error("configs disagree: {0}")]
    Disagree(String),
    /// A config or the variant has a value that is out of range.
    #[error("{part}: {source}")]
    Config {
        /// Where the field is.
        part: &'static str,
        /// The field, and what is wrong with it.
        source: ConfigError,
    },
    /// A field has a value that is out of range or contradicts another.
    #[error("`{field}` is {found}; expected {expected}")]
    Field {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// The value that it must have.
        expected: String,
    },
}

impl Manifest {
    /// Parses the YAML text of a manifest and checks all of it: whoever reads a manifest can rely
    /// on every number in it.
    ///
    /// # Errors
    /// The text is not a manifest of this version, or a field has a value that it cannot have.
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
        manifest.model.validate()?;
        manifest.check_numbers()?;
        manifest.check_controls()?;
        manifest.check_graphs()?;
        Ok(manifest)
    }

    /// The manifest as YAML text.
    pub fn to_yaml(&self) -> String {
        to_yaml(self)
    }

    /// What the graphs are built for.
    pub fn graph_options(&self) -> GraphOptions {
        GraphOptions {
            precision: self.precision,
            target: self.target,
            lora_slots: self.lora_slots.is_some(),
            controls: !self.controls.is_empty(),
            ip_adapter: self.ip_adapter.is_some(),
            pag_layers: PagLayers::new(&self.pag_layers),
        }
    }

    /// The graph called `name`.
    ///
    /// # Errors
    /// There is no such graph.
    pub fn graph(&self, name: &str) -> Result<&GraphEntry, ManifestError> {
        let graph = self.graphs.iter().find(|graph| graph.name == name);
        graph.ok_or_else(|| ManifestError::Graph(name.to_string()))
    }

    /// The number of pixels that both sides of a picture are multiples of.
    pub fn picture_unit(&self) -> usize {
        self.model.vae.factor() * self.model.transformer.shape().patch_size
    }

    /// Whether there is the image encoder, with which image to image begins.
    pub fn has_image_encoder(&self) -> bool {
        self.graph("vae-encoder").is_ok()
    }

    /// Floating-point operations of one run of the graph `name` at `sizes`; 0 if there is no such
    /// graph.
    pub fn flops(&self, name: &str, sizes: &Sizes) -> f64 {
        self.graph(name).map_or(0.0, |graph| graph.flops.at(sizes) as f64)
    }
}

impl GraphEntry {
    /// The names of all files with weights of the graph.
    pub fn weights(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.data).chain(&self.in_place)
    }
}

/// Whether `name` is that of a file in a folder, not a path that leads elsewhere.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}
