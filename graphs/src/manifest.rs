//! `manifest.yaml`: the contract between exporter and server. It is written last, so a folder with
//! a manifest is complete. Everything the server needs is in it or named by it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::config::{
    BertConfig, ConfigError, HunyuanDitConfig, IpAdapterConfig, T5Config, VaeConfig,
};
use crate::control::{self, Part};
use crate::dim::{Cost, Sizes};
use crate::interface::{GRAPHS, Interface, OPTIONAL, control_interface, interface};
use crate::lora;
use crate::options::{GraphOptions, Precision, Target};
use crate::scheduler::NoiseSchedule;
use crate::tensor::TensorSpec;
use crate::variant::Variant;
use crate::yaml::{YamlError, parse_yaml};

/// Version of the manifest's format; a reader refuses any other.
pub const SCHEMA: u32 = 1;

/// The most bytes that all files of a folder have.
const MAX_TOTAL: u64 = 1 << 48;

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
    /// The LoRAs that are merged into the weights, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraEntry>,
    /// The largest rank of LoRAs that requests may name; none if the graphs have no [slots](lora).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_slots: Option<usize>,
    /// The ControlNets that requests may name; none if the graphs read no [controls](control).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ControlEntry>,
    /// What image prompts need; none if requests can have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_adapter: Option<IpAdapterConfig>,
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
    pub transformer: HunyuanDitConfig,
    /// Config of the first text encoder.
    pub text_encoder: BertConfig,
    /// Config of the second text encoder.
    pub text_encoder_2: T5Config,
    /// Config of the autoencoder of images.
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
        serde_saphyr::to_string(self).expect("a manifest has a YAML form")
    }

    /// What the graphs are built for.
    pub fn graph_options(&self) -> GraphOptions {
        GraphOptions {
            precision: self.precision,
            target: self.target,
            lora_slots: self.lora_slots.is_some(),
            controls: !self.controls.is_empty(),
            ip_adapter: self.ip_adapter.is_some(),
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
        self.model.vae.factor() * self.model.transformer.patch_size
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

    fn check_numbers(&self) -> Result<(), ManifestError> {
        let Manifest { cache_at_branch, model, tokenizers, .. } = self;
        let branches = model.transformer.cache_branches();
        if !branches.contains(cache_at_branch) {
            let expected = format!("{} to {}", branches.start(), branches.end());
            return wrong("cache_at_branch", cache_at_branch, expected);
        }
        let part = "variant";
        self.variant.validate(model).map_err(|source| ManifestError::Config { part, source })?;
        let dit = &model.transformer;
        for (name, entry, length, rows) in [
            ("text_encoder", &tokenizers.text_encoder, dit.text_len, model.text_encoder.vocab_size),
            (
                "text_encoder_2",
                &tokenizers.text_encoder_2,
                dit.text_len_t5,
                model.text_encoder_2.vocab_size,
            ),
        ] {
            if entry.length != length {
                return wrong(&format!("tokenizers.{name}.length"), entry.length, length);
            }
            if entry.pad_id as usize >= rows {
                let expected = format!("a number below {rows}");
                return wrong(&format!("tokenizers.{name}.pad_id"), entry.pad_id, expected);
            }
        }
        if let Some(rank) = self.lora_slots.filter(|rank| !(1..=lora::MAX_RANK).contains(rank)) {
            return wrong("lora_slots", rank, format!("1 to {}", lora::MAX_RANK));
        }
        if let Some(ip_adapter) = &self.ip_adapter {
            let part = "ip_adapter";
            ip_adapter.validate().map_err(|source| ManifestError::Config { part, source })?;
        }
        for (i, LoraEntry { sha256, weight, .. }) in self.loras.iter().enumerate() {
            check_sha256(&format!("loras[{i}].sha256"), sha256)?;
            if !weight.is_finite() {
                return wrong(&format!("loras[{i}].weight"), weight, "a number");
            }
        }
        let mut total = 0u64;
        for (name, FileEntry { bytes, sha256 }) in &self.files {
            total = match total.checked_add(*bytes).filter(|total| *total <= MAX_TOTAL) {
                Some(total) => total,
                None => return wrong(&format!("files.{name}.bytes"), bytes, "a size of a file"),
            };
            check_sha256(&format!("files.{name}.sha256"), sha256)?;
        }
        Ok(())
    }

    /// Checks the ControlNets, and that what they read and make is the transformer's.
    fn check_controls(&self) -> Result<(), ManifestError> {
        for (i, ControlEntry { name, config }) in self.controls.iter().enumerate() {
            let field = |field: &str| format!("controls[{i}].{field}");
            if let Err(expected) = control::check_name(name) {
                let found: String = name.chars().take(60).collect();
                return wrong(&field("name"), found.escape_debug(), expected);
            }
            if self.controls[..i].iter().any(|other| other.name == *name) {
                return wrong(&field("name"), name, "a name of its own");
            }
            let part = "controls";
            config.validate().map_err(|source| ManifestError::Config { part, source })?;
            if let Some((name, found, expected)) = control::differs(config, &self.model.transformer)
            {
                return wrong(&field(name), found, format!("{expected}, as the transformer's"));
            }
        }
        if self.controls.is_empty() || self.has_image_encoder() {
            return Ok(());
        }
        Err(ManifestError::Graph("vae-encoder".to_string()))
    }

    /// The interface of the graph `name`, if it is one of this export.
    fn interface(&self, name: &str) -> Option<Interface> {
        let (model, n, options) = (&self.model, self.cache_at_branch, self.graph_options());
        interface(name, model, n, options, self.ip_adapter.as_ref()).or_else(|| {
            let of_net = |entry: &ControlEntry| {
                let (part, _) = entry.graphs(n).find(|(_, graph)| graph == name)?;
                Some(control_interface(part, &entry.config, model, n, options))
            };
            self.controls.iter().find_map(of_net)
        })
    }

    /// Checks that all graphs are there, each once and with the inputs and outputs that the configs
    /// give it.
    fn check_graphs(&self) -> Result<(), ManifestError> {
        let image_encoder = self.ip_adapter.iter().map(|_| &"image-encoder");
        GRAPHS.iter().chain(image_encoder).try_for_each(|name| self.graph(name).map(drop))?;
        let nets = self.controls.iter().flat_map(|entry| entry.graphs(self.cache_at_branch));
        nets.into_iter().try_for_each(|(_, name)| self.graph(&name).map(drop))?;
        for (i, graph) in self.graphs.iter().enumerate() {
            let known = self.interface(&graph.name);
            let repeated = self.graphs[..i].iter().any(|other| other.name == graph.name);
            let Some(Interface { inputs, outputs }) = known.filter(|_| !repeated) else {
                let found: String = graph.name.chars().take(60).collect();
                let names = [&GRAPHS[..], &OPTIONAL].concat().join(", ");
                let expected = format!("one of {names}, each once");
                return wrong(&format!("graphs[{i}].name"), found.escape_debug(), expected);
            };
            graph.check("inputs", &graph.inputs, &inputs)?;
            graph.check("outputs", &graph.outputs, &outputs)?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ManifestError> {
        let tokenizers = [&self.tokenizers.text_encoder, &self.tokenizers.text_encoder_2];
        let graphs = self.graphs.iter().flat_map(|graph| graph.weights().chain([&graph.file]));
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

impl GraphEntry {
    /// The names of all files with weights of the graph.
    pub fn weights(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.data).chain(&self.in_place)
    }

    /// Checks the tensors of the field `field`.
    fn check(
        &self,
        field: &str,
        found: &[TensorSpec],
        expected: &[TensorSpec],
    ) -> Result<(), ManifestError> {
        let longest = found.len().max(expected.len());
        let differs = (0..longest).find(|&i| found.get(i) != expected.get(i));
        let Some(i) = differs else { return Ok(()) };
        let text = |spec: Option<&TensorSpec>| match spec {
            Some(spec) => spec.to_string().chars().take(200).flat_map(char::escape_debug).collect(),
            None => "missing".to_string(),
        };
        let expected = match expected.get(i) {
            Some(spec) => spec.to_string(),
            None => "no more".to_string(),
        };
        wrong(&format!("{field}[{i}] of the graph {}", self.name), text(found.get(i)), expected)
    }
}

impl ModelConfig {
    /// Checks every config, and the sizes that two of them must share.
    ///
    /// # Errors
    /// The first field that is out of range, or what contradicts each other.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let ModelConfig { transformer, text_encoder, text_encoder_2, vae, scheduler } = self;
        for (part, checked) in [
            ("model.transformer", transformer.validate()),
            ("model.text_encoder", text_encoder.validate()),
            ("model.text_encoder_2", text_encoder_2.validate()),
            ("model.vae", vae.validate()),
            ("model.scheduler", scheduler.validate()),
        ] {
            checked.map_err(|source| ManifestError::Config { part, source })?;
        }
        self.agrees().map_err(ManifestError::Disagree)
    }

    /// Checks the sizes that two configs must share.
    ///
    /// # Errors
    /// What contradicts each other.
    pub fn agrees(&self) -> Result<(), String> {
        let ModelConfig { transformer: dit, text_encoder: bert, text_encoder_2: t5, vae, .. } =
            self;
        let states = ("cross_attention_dim", dit.cross_attention_dim);
        let states_t5 = ("cross_attention_dim_t5", dit.cross_attention_dim_t5);
        let latents = ("in_channels", dit.in_channels);
        for ((field, size), (other_field, other_size)) in [
            (states, ("text_encoder hidden_size", bert.hidden_size)),
            (states_t5, ("text_encoder_2 d_model", t5.d_model)),
            (latents, ("vae latent_channels", vae.latent_channels)),
        ] {
            if size != other_size {
                return Err(format!(
                    "transformer {field} = {size}, {other_field} = {other_size}; \
                     are the folders of one checkpoint?"
                ));
            }
        }
        if bert.max_position_embeddings < dit.text_len {
            return Err(format!(
                "text_encoder max_position_embeddings = {}, transformer text_len = {}",
                bert.max_position_embeddings, dit.text_len
            ));
        }
        Ok(())
    }
}

fn check_sha256(field: &str, sha256: &str) -> Result<(), ManifestError> {
    if sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found: String = sha256.chars().take(70).collect();
    wrong(field, found.escape_debug(), "64 hexadecimal digits")
}

fn wrong<T>(field: &str, found: impl Display, expected: impl Display) -> Result<T, ManifestError> {
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(ManifestError::Field { field: field.to_string(), found, expected })
}

/// Whether `name` is that of a file in a folder, not a path that leads elsewhere.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}
