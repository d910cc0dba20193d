//! Checkpoints of Hunyuan-DiT and DiT, in whichever layout -> ONNX graphs, weights and a manifest.
//!
//! [`export`] is the whole flow on one screen. The graphs come from [`hydit_graphs`] and only
//! declare their weights. `checkpoint/` finds these in the mapped files, whatever they are called
//! there, `convert.rs` brings one at a time into the element type and layout of the graph, and
//! `writer.rs` puts the folder in place.
//!
//! Here is the export of a small model with made-up weights:
//!
//! ```
//! use hydit_export::synth::{self, Shape, Storage};
//! use hydit_export::{Options, export};
//!
//! let folder = tempfile::tempdir()?;
//! let [checkpoint, out] = ["checkpoint", "artifacts"].map(|name| folder.path().join(name));
//! let shape = Shape {
//!     depth: Some(4),
//!     heads: Some(2),
//!     head_dim: Some(12),
//!     image_size: Some(64),
//!     small_text: true,
//! };
//! let config = synth::model("hunyuan-dit-v1.2", &shape)?;
//! synth::checkpoint(&config, &checkpoint, &Storage::default())?;
//!
//! let manifest = export(&Options::new(&checkpoint, &out), &mut ())?;
//! assert_eq!(manifest.graphs.len(), 7);
//! assert!(out.join("deep-core.onnx").exists() && out.join("manifest.yaml").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

pub mod check;
mod checkpoint;
mod classes;
mod control;
mod convert;
mod dit;
mod error;
mod files;
mod float8;
mod graphs;
mod in_place;
pub mod inspect;
mod left;
mod licenses;
mod lock;
mod lora;
mod options;
mod report;
mod staging;
pub mod synth;
pub mod tokenizer;
pub mod triton;
mod variants;
mod weights;
mod writer;

use std::path::Path;

pub use hydit_graphs::Component;
use hydit_graphs::config::{TransformerConfig, VaeConfig};
use hydit_graphs::lora::MAX_RANK;
use hydit_graphs::manifest::{self, GraphEntry, TokenizerEntry, Tokenizers};
pub use hydit_graphs::naming::Naming;
use hydit_graphs::{GraphDef, GraphOptions, Manifest, Precision, pag, single};

use checkpoint::{Checkpoint, IpAdapter};
pub use checkpoint::{CheckpointWeights, Layout};
pub use control::ControlNet;
pub use error::{Error, Result, ValueError};
pub use graphs::write_graph;
pub use hydit_lora::Weighted;
pub use lora::Merged;
pub use options::{Options, Progress, WeightsPlace};
pub use report::{TensorReport, first_of};
pub use writer::Folder;

/// Reads a checkpoint and writes an artifact folder; returns its manifest.
///
/// # Errors
/// The checkpoint, an option or the folder cannot be used. Everything that is wrong with configs
/// and shapes of tensors is found before anything is written, and a failure while writing leaves
/// the folder as it was.
pub fn export(options: &Options, progress: &mut dyn Progress) -> Result<Manifest> {
    let Options { base, weights_variant, .. } = options;
    let checkpoint =
        Checkpoint::find(&options.checkpoint, base.as_deref(), weights_variant.as_deref())?;
    check_out(&checkpoint, &options.out)?;
    let config = checkpoint.config()?;
    let variant = variants::choose(options, &config, &checkpoint.names())?;
    let n = variants::cut(options, &config, &variant);
    check_options(options, &config.transformer, n)?;
    let count = config.transformer.shape().num_classes;
    let class_names = count.map(|count| classes::names(&checkpoint, count)).transpose()?.flatten();
    let mut tokenizers = Vec::new();
    let (mut nets, mut ip_adapter) = (Vec::new(), None);
    if let Some((dit, bert, t5)) = config.hunyuan_dit() {
        let texts = [(dit.text_len, bert.vocab_size), (dit.text_len_t5, t5.vocab_size)];
        for (index, (length, rows)) in texts.into_iter().enumerate() {
            let tokenizer = checkpoint.tokenizer(index)?;
            tokenizer.check(length, rows)?;
            tokenizers.push((tokenizer, length));
        }
        nets = control::find(options, dit)?;
        ip_adapter = IpAdapter::find(options, dit)?;
    }
    let image_prompts = ip_adapter.as_ref().map(|found| &found.config);
    let mut graphs = graphs::build(options, &config, n, image_prompts);
    let mut report = TensorReport::default();
    let mut weights = Vec::new();
    for (component, graphs) in &graphs {
        let opened = match &ip_adapter {
            Some(found) => found.weights(*component, &checkpoint)?,
            None => checkpoint.weights(*component)?,
        };
        if *component == Component::Vae && options.has_image_encoder() {
            let flag = if options.image_to_image { "image-to-image" } else { "control" };
            check_encoder(&config.vae, &opened, flag)?;
        }
        opened.compare(graphs.iter(), &mut report);
        weights.push(opened);
    }
    let transformer = weights.iter().find(|part| part.component() == Component::Transformer);
    let naming = transformer.expect("every export has one").naming();
    let variant = variants::read_as(options, naming, variant);
    let mut controls = Vec::with_capacity(nets.len());
    for net in nets {
        let built = net.graphs(options, n);
        net.weights.compare(built.iter(), &mut report);
        graphs.push((Component::ControlNet, built));
        weights.push(net.weights);
        controls.push(net.entry);
    }
    let unused = report.check()?;
    if !unused.is_empty() {
        progress.unused(&unused);
    }
    weights.iter().try_for_each(dit::check_copies)?;

    let loras = lora::read(&options.loras, &graphs, |merged| progress.merging(merged))?;
    for lora in &loras {
        weights.iter_mut().for_each(|part| part.merge(&lora.adapter, lora.weight));
    }

    let mut files = in_place::Files::default();
    if options.weights == WeightsPlace::InPlace {
        for ((_, graphs), weights) in graphs.iter_mut().zip(&weights) {
            files.use_for(graphs, weights)?;
        }
        progress.copied(in_place::copied(&graphs));
    }

    let mut folder = Folder::prepare(&options.out)?;
    let layouts = graphs.iter().flat_map(|(_, graphs)| graphs).flat_map(GraphDef::layout);
    progress.total(layouts.map(|(_, extent)| extent.length).sum());
    for (path, name) in files.iter() {
        folder.link(name, path)?;
    }
    for ((_, graphs), weights) in graphs.iter().zip(&weights) {
        for graph in graphs {
            write_graph(graph, weights, &mut folder, progress)?;
        }
    }
    if options.single {
        let parts: Vec<&GraphDef> = graphs.iter().flat_map(|(_, graphs)| graphs).collect();
        folder.write_bytes(single::FILE, single::file(&config, n, options.target, &parts))?;
    }
    if let Some(names) = class_names {
        folder.write_bytes(manifest::CLASSES, names.as_bytes())?;
    }
    let mut written = Vec::new();
    for ((tokenizer, length), suffix) in tokenizers.into_iter().zip(["", "_2"]) {
        written.push(write_tokenizer(&mut folder, suffix, tokenizer, length)?);
    }
    let second = written.pop();
    let tokenizers = written.pop().zip(second);
    let tokenizers = tokenizers
        .map(|(text_encoder, text_encoder_2)| Tokenizers { text_encoder, text_encoder_2 });
    let roots = checkpoint.roots().zip(["", "base-"]);
    let adapter = ip_adapter.iter().map(|found| (found.root.as_path(), "ip-adapter-"));
    licenses::copy(roots.chain(adapter), &mut folder)?;

    let all = graphs.iter().flat_map(|(_, graphs)| graphs);
    let manifest = Manifest {
        schema: manifest::SCHEMA,
        producer: concat!("hydit-export ", env!("CARGO_PKG_VERSION")).to_string(),
        opset: all.clone().map(GraphDef::opset).max().expect("an export has graphs"),
        target: options.target,
        precision: options.precision,
        cache_at_branch: n,
        loras: lora::entries(&loras),
        lora_slots: options.lora_slots,
        controls,
        ip_adapter: ip_adapter.map(|found| found.config),
        pag_layers: options.pag_layers.clone(),
        variant,
        model: config,
        graphs: all.map(entry).collect(),
        tokenizers,
        files: folder.files().clone(),
    };
    if let Some(left) = folder.commit(&manifest)? {
        progress.left(&left);
    }
    Ok(manifest)
}

/// Checks that there is an image encoder, and that its graph can be built.
fn check_encoder(cfg: &VaeConfig, weights: &CheckpointWeights, flag: &'static str) -> Result<()> {
    const FIRST: &str = "encoder.conv_in.weight";
    let refused = |message| Err(Error::Flag { flag, message });
    if let Err(error) = cfg.validate_encoder() {
        return refused(format!("vae/config.json: {error}"));
    }
    if weights.shape(FIRST).is_some() {
        return Ok(());
    }
    let file = weights.files().next().map(|file| file.path.display().to_string());
    refused(format!(
        "{} has no image encoder (no tensor `{FIRST}`): put the whole VAE there, or export without \
         this flag",
        file.unwrap_or_default()
    ))
}

/// Checks that the precision suits the target, that the transformer can be cut at `n`, and that it
/// can have what it shall have.
fn check_options(options: &Options, cfg: &TransformerConfig, n: usize) -> Result<()> {
    let Options { precision, target, weights, .. } = *options;
    if cfg.hunyuan_dit().is_none() {
        dit::check(options)?;
    }
    if weights == WeightsPlace::InPlace && matches!(precision, Precision::Int8 | Precision::Fp8) {
        let message = format!(
            "in-place: no checkpoint has the weights of {precision} graphs, they are computed; use \
             --dtype fp32 or fp16, or --weights copy"
        );
        return Err(Error::Flag { flag: "weights", message });
    }
    GraphOptions::from((precision, target))
        .check()
        .map_err(|error| Error::Flag { flag: "dtype", message: error.to_string() })?;
    if let Some(rank) = options.lora_slots.filter(|rank| !(1..=MAX_RANK).contains(rank)) {
        let message = format!("{rank} is out of range: the largest rank may be 1 to {MAX_RANK}");
        return Err(Error::Flag { flag: "lora-slots", message });
    }
    if options.single && options.ip_adapter.is_some() {
        let message = "pipeline.onnx has no inputs for image prompts: leave out --single";
        return Err(Error::Flag { flag: "ip-adapter", message: message.to_string() });
    }
    if let Err(expected) = pag::check(&options.pag_layers, cfg.shape().num_layers) {
        let message = format!("{:?}; expected {expected}", options.pag_layers);
        return Err(Error::Flag { flag: "pag-layers", message });
    }
    if options.single && !options.pag_layers.is_empty() {
        let message = "pipeline.onnx has no perturbed rows: leave out --single";
        return Err(Error::Flag { flag: "pag-layers", message: message.to_string() });
    }
    let valid = cfg.cache_branches();
    if valid.contains(&n) {
        return Ok(());
    }
    let message = format!(
        "{n} is out of range: a model of {} blocks can be cut at {} to {}",
        cfg.shape().num_layers,
        valid.start(),
        valid.end()
    );
    Err(Error::Flag { flag: "cache-at-branch", message })
}

/// Checks that the artifact folder can be one, and is not the checkpoint, whose files are mapped.
fn check_out(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    files::check_folder(out)?;
    let place = out.canonicalize().ok();
    let same = |root: &Path| place.is_some() && root.canonicalize().ok() == place;
    if !checkpoint.roots().any(same) {
        return Ok(());
    }
    let message = format!("{} is the checkpoint itself: choose another folder", out.display());
    Err(Error::Flag { flag: "out", message })
}

fn write_tokenizer(
    folder: &mut Folder,
    suffix: &str,
    tokenizer: tokenizer::Tokenizer,
    length: usize,
) -> Result<TokenizerEntry> {
    let file = format!("tokenizer{suffix}.json");
    folder.write_bytes(&file, tokenizer.json)?;
    Ok(TokenizerEntry { file, length, pad_id: tokenizer.pad_id })
}

fn entry(graph: &GraphDef) -> GraphEntry {
    GraphEntry {
        name: graph.name.clone(),
        file: graph.file(),
        data: graph.data_file(),
        in_place: graph.files_in_place().into_iter().map(str::to_string).collect(),
        parameters: graph.parameters(),
        flops: graph.flops.clone(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
    }
}
