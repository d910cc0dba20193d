//! A Hunyuan-DiT checkpoint in diffusers' layout -> ONNX graphs, weights and a manifest.
//!
//! [`export`] is the whole flow on one screen. Graphs come from [`hydit_graphs`] and only declare
//! their weights; [`checkpoint`] finds them in the mapped files, [`convert`] turns one at a time
//! into the graph's type and layout, [`writer`] puts the folder in place.
#![warn(missing_docs)]

pub mod checkpoint;
pub mod convert;
pub mod error;
pub mod inspect;
pub mod synth;
pub mod tokenizer;
pub mod variants;
pub mod writer;

use std::path::{Path, PathBuf};

use hydit_graphs::config::{BertConfig, ConfigError, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::manifest::{GraphEntry, ModelConfig, TokenizerEntry, Tokenizers};
use hydit_graphs::scheduler::NoiseSchedule;
use hydit_graphs::{Form, GraphDef, Manifest, Precision, Source, Target};
use hydit_graphs::{bert, hunyuan_dit, manifest, model, t5, vae};

use checkpoint::{Component, Report, Weights, read_text};
pub use error::{Error, Result};
use writer::Folder;

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Checkpoint folder, diffusers' layout.
    pub checkpoint: PathBuf,
    /// Artifact folder to write.
    pub out: PathBuf,
    /// Blocks before and after the cut: 1 to depth / 2 - 1.
    pub cache_at_branch: usize,
    /// How the big matrices are stored and multiplied.
    pub precision: Precision,
    /// Whom the transformer's graphs are written for.
    pub form: Form,
    /// Also write the whole transformer as one graph.
    pub full: bool,
    /// Variant, by name or YAML file; recognised from the config if `None`.
    pub variant: Option<String>,
}

/// What an export tells while it runs.
pub trait Progress {
    /// Bytes of weights to write in all.
    fn total(&mut self, bytes: u64);
    /// Now writing this graph.
    fn graph(&mut self, name: &str);
    /// Bytes just written.
    fn wrote(&mut self, bytes: u64);
    /// Tensors of the checkpoint no graph uses.
    fn unused(&mut self, tensors: &[String]);
}

/// Reads the checkpoint, writes the artifact folder.
///
/// # Errors
/// Everything that is wrong with configs and tensors is found before anything is written; a
/// failure while writing leaves the folder as it was.
pub fn export(options: &Options, progress: &mut dyn Progress) -> Result<Manifest> {
    let root = options.checkpoint.as_path();
    let config = read_config(root)?;
    let target = Target { precision: options.precision, form: options.form };
    target.check().map_err(|message| Error::Flag { flag: "dtype", message })?;
    check_cut(options, &config.transformer)?;
    let variant =
        variants::choose(options.variant.as_deref(), &config.transformer, config.vae.factor())?;
    let first = tokenizer::read(&root.join("tokenizer"))?;
    let second = tokenizer::read(&root.join("tokenizer_2"))?;

    let graphs = build(options, &config);
    let mut report = Report::default();
    let mut weights = Vec::new();
    for (component, graphs) in &graphs {
        let opened = Weights::open(root, *component)?;
        opened.compare(graphs.iter(), &mut report);
        weights.push(opened);
    }
    let unused = report.check()?;
    if !unused.is_empty() {
        progress.unused(&unused);
    }

    check_places(root, &options.out)?;
    let mut folder = Folder::prepare(&options.out)?;
    let layouts = graphs.iter().flat_map(|(_, graphs)| graphs).flat_map(GraphDef::layout);
    progress.total(layouts.map(|(_, extent)| extent.length).sum());
    for ((_, graphs), weights) in graphs.iter().zip(&weights) {
        for graph in graphs {
            write_graph(graph, weights, &mut folder, progress)?;
        }
    }
    let tokenizers = Tokenizers {
        text_encoder: write_tokenizer(&mut folder, "", first, config.transformer.text_len)?,
        text_encoder_2: write_tokenizer(&mut folder, "_2", second, config.transformer.text_len_t5)?,
    };
    copy_licences(root, &mut folder)?;

    let manifest = Manifest {
        schema: manifest::SCHEMA,
        producer: concat!("hydit-export ", env!("CARGO_PKG_VERSION")).to_string(),
        opset: model::OPSET,
        form: options.form,
        precision: options.precision,
        cache_at_branch: options.cache_at_branch,
        variant,
        model: config,
        graphs: graphs.iter().flat_map(|(_, graphs)| graphs).map(entry).collect(),
        tokenizers,
        files: folder.files().clone(),
    };
    folder.commit(&manifest)?;
    Ok(manifest)
}

fn read_config(root: &Path) -> Result<ModelConfig> {
    const MEND: &str = "expected a checkpoint in diffusers' folder layout";
    let index = root.join("model_index.json");
    let text = read_text(&index, MEND)?;
    let index_json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Config { path: index.clone(), source: error.into() })?;
    let class = index_json["_class_name"].as_str().unwrap_or_default();
    if !class.starts_with("HunyuanDiT") {
        let message = format!("`_class_name` is `{class}`; expected HunyuanDiTPipeline");
        return Err(Error::File { path: index, message });
    }
    fn parse<T>(
        path: PathBuf,
        from: impl Fn(&str) -> std::result::Result<T, ConfigError>,
    ) -> Result<T> {
        from(&read_text(&path, MEND)?).map_err(|source| Error::Config { path, source })
    }
    let file = |folder: &str| root.join(folder).join("config.json");
    let config = ModelConfig {
        transformer: parse(file("transformer"), HunyuanDitConfig::from_json)?,
        text_encoder: parse(file("text_encoder"), BertConfig::from_json)?,
        text_encoder_2: parse(file("text_encoder_2"), T5Config::from_json)?,
        vae: parse(file("vae"), VaeConfig::from_json)?,
        scheduler: parse(root.join("scheduler/scheduler_config.json"), |text| {
            Ok(NoiseSchedule::from_scheduler_config(text)?)
        })?,
    };
    check_agreement(&config)?;
    Ok(config)
}

/// Sizes two components must share.
fn check_agreement(config: &ModelConfig) -> Result<()> {
    let ModelConfig { transformer: dit, text_encoder: bert, text_encoder_2: t5, vae, .. } = config;
    for (ours, a, theirs, b) in [
        (
            "cross_attention_dim",
            dit.cross_attention_dim,
            "text_encoder hidden_size",
            bert.hidden_size,
        ),
        (
            "cross_attention_dim_t5",
            dit.cross_attention_dim_t5,
            "text_encoder_2 d_model",
            t5.d_model,
        ),
        ("in_channels", dit.in_channels, "vae latent_channels", vae.latent_channels),
    ] {
        if a != b {
            return Err(Error::Disagree(format!(
                "configs disagree: transformer {ours} = {a}, {theirs} = {b}; \
                 are the folders of one checkpoint?"
            )));
        }
    }
    if bert.max_position_embeddings < dit.text_len {
        return Err(Error::Disagree(format!(
            "configs disagree: text_encoder max_position_embeddings = {}, transformer text_len = {}",
            bert.max_position_embeddings, dit.text_len
        )));
    }
    Ok(())
}

fn check_cut(options: &Options, cfg: &HunyuanDitConfig) -> Result<()> {
    let valid = cfg.cache_branches();
    match valid.contains(&options.cache_at_branch) {
        true => Ok(()),
        false => Err(Error::Flag {
            flag: "cache-at-branch",
            message: format!(
                "{} is out of range: a model of {} blocks can be cut at {} to {}",
                options.cache_at_branch,
                cfg.num_layers,
                valid.start(),
                valid.end()
            ),
        }),
    }
}

/// The mapped files must not be written over.
fn check_places(root: &Path, out: &Path) -> Result<()> {
    let same = root.canonicalize().ok().zip(out.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    match same {
        true => Err(Error::Flag {
            flag: "out",
            message: format!("{} is the checkpoint itself: choose another folder", out.display()),
        }),
        false => Ok(()),
    }
}

/// All graphs by component, in the order they run.
fn build(options: &Options, config: &ModelConfig) -> Vec<(Component, Vec<GraphDef>)> {
    let (dit, n, precision) = (&config.transformer, options.cache_at_branch, options.precision);
    let target = Target { precision, form: options.form };
    let mut transformer = vec![
        hunyuan_dit::conditioner(dit, precision),
        hunyuan_dit::shallow_encoder(dit, n, target),
        hunyuan_dit::deep_core(dit, n, target),
        hunyuan_dit::shallow_decoder(dit, n, target),
    ];
    if options.full {
        transformer.push(hunyuan_dit::full(dit, target));
    }
    let vae = if config.vae.force_upcast { Precision::Fp32 } else { precision };
    vec![
        (
            Component::TextEncoder,
            vec![bert::text_encoder(&config.text_encoder, dit.text_len, precision)],
        ),
        (
            Component::TextEncoder2,
            vec![t5::text_encoder_2(&config.text_encoder_2, dit.text_len_t5, precision)],
        ),
        (Component::Transformer, transformer),
        (Component::Vae, vec![vae::vae_decoder(&config.vae, vae)]),
    ]
}

/// Writes the ONNX file of `graph` and the data file beside it, from `weights` that have all it
/// declares.
pub fn write_graph(
    graph: &GraphDef,
    weights: &Weights,
    folder: &mut Folder,
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.graph(&graph.name);
    folder.write(&graph.data_file(), |sink| {
        for (initializer, extent) in graph.layout() {
            sink.pad_to(extent.offset)?;
            match &initializer.source {
                Source::Constant(bytes) => sink.put(bytes.clone())?,
                Source::Checkpoint { tensor, dims, transform } => {
                    let value = weights.tensor(tensor);
                    convert::convert(&value, dims, *transform, initializer.dtype, |piece| {
                        sink.put(piece).map_err(Stop::Disk)
                    })
                    .map_err(|stop| stop.in_tensor(weights, tensor))?;
                    weights.release(tensor);
                }
            }
            progress.wrote(extent.length);
        }
        Ok(())
    })?;
    folder.write(&graph.file(), |sink| sink.put(graph.encode()))
}

/// What stops a conversion: the values, or the disk.
enum Stop {
    Values(String),
    Disk(Error),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Values(message)
    }
}

impl Stop {
    fn in_tensor(self, weights: &Weights, name: &str) -> Error {
        match self {
            Stop::Disk(error) => error,
            Stop::Values(message) => {
                let (component, name) = (weights.component().folder(), name.to_string());
                Error::Values { component, name, message }
            }
        }
    }
}

fn write_tokenizer(
    folder: &mut Folder,
    suffix: &str,
    tokenizer: tokenizer::Tokenizer,
    length: usize,
) -> Result<TokenizerEntry> {
    let file = format!("tokenizer{suffix}.json");
    folder.write(&file, |sink| sink.put(tokenizer.json.as_bytes()))?;
    Ok(TokenizerEntry { file, length, pad_id: tokenizer.pad_id })
}

/// Copies the checkpoint's licence and notice files; the weights keep their licence.
fn copy_licences(root: &Path, folder: &mut Folder) -> Result<()> {
    let entries = std::fs::read_dir(root).map_err(error::io(root))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        let upper = name.to_uppercase();
        if upper.starts_with("LICENSE") || upper.starts_with("NOTICE") {
            let path = root.join(&name);
            let text = std::fs::read(&path).map_err(error::io(&path))?;
            folder.write(&name, |sink| sink.put(text))?;
        }
    }
    let notice = concat!(
        "The weights in this folder were converted to ONNX by hydit-export ",
        env!("CARGO_PKG_VERSION"),
        ", without changing what they compute.\nThey are a derivative of the checkpoint they were \
         read from, and its licence applies to them.\n"
    );
    folder.write("CONVERTED.txt", |sink| sink.put(notice.as_bytes()))
}

fn entry(graph: &GraphDef) -> GraphEntry {
    GraphEntry {
        name: graph.name.clone(),
        file: graph.file(),
        data: graph.data_file(),
        parameters: graph.parameters(),
        flops: graph.flops.clone(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
    }
}
