//! The commands and their flags.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hydit_export::{ControlNet, Weighted, WeightsPlace, triton};
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{DType, Precision, Target};
use hydit_terminal::{About, VERSION, say, whole};

/// Exports a Hunyuan-DiT checkpoint to ONNX graphs for Skip-Cache serving, without Python and
/// tracing.
#[derive(Parser)]
#[command(version = VERSION, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub export: Option<Export>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Say what a checkpoint is, what is missing of it, what its export would weigh, and which
    /// commands to type. Only headers are read.
    Check(Check),
    /// Print graphs, shapes, parameters and sizes of an artifact folder.
    Inspect {
        /// Folder that an export was written to.
        dir: PathBuf,
    },
    /// Write a model repository for Triton: an ensemble, prompt in and image out, around the
    /// pipeline in one file.
    Triton(Triton),
    /// Write a checkpoint with made-up weights in the shape of a released model or a smaller one,
    /// to measure speed and memory without the real weights.
    Synth(Synth),
    #[command(flatten)]
    About(About),
}

#[derive(Args)]
pub struct Check {
    /// Checkpoint: a folder in diffusers' layout or in Tencent's, that of one part, or a file.
    pub checkpoint: PathBuf,
    /// Checkpoint that has the parts which the first one lacks.
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Which files of weights to take where several are there, as for an export.
    #[arg(long, value_name = "NAME")]
    pub weights_variant: Option<String>,
    /// LoRA to hold against the checkpoint, again for each: what it changes, what fits nowhere.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub lora: Vec<Weighted>,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Triton {
    /// Artifact folder, exported with --single.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Plan that the repository offers, a file of hydit-serve plan --tensors: image size, sampler,
    /// steps, guidance and cache policy. Again for each; clients choose by the name of the file.
    #[arg(long, value_name = "FILE", required = true)]
    pub plan: Vec<PathBuf>,
    /// Model repository to write: a new or empty folder.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the ensemble; its steps are called NAME-request and NAME-pipeline.
    #[arg(long, default_value = "hydit")]
    pub name: String,
    /// Where the pipeline runs: cpu, cuda or tensorrt (ONNX Runtime's TensorRT provider).
    #[arg(long, value_enum, default_value_t = Provider::Cpu)]
    pub provider: Provider,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Provider {
    Cpu,
    Cuda,
    #[value(name = "tensorrt")]
    TensorRt,
}

impl From<Provider> for triton::Provider {
    fn from(provider: Provider) -> triton::Provider {
        match provider {
            Provider::Cpu => triton::Provider::Cpu,
            Provider::Cuda => triton::Provider::Cuda,
            Provider::TensorRt => triton::Provider::TensorRt,
        }
    }
}

#[derive(Args)]
pub struct Synth {
    /// Released model whose shape to use: hunyuan-dit-v1.2, hunyuan-dit-v1.1, dit or skip-dit.
    #[arg(long, value_name = "NAME", default_value = "hunyuan-dit-v1.2")]
    pub variant: String,
    /// Checkpoint folder to write, new or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of blocks of the transformer instead of 40, or 28 of DiTs.
    #[arg(long, value_name = "N")]
    pub depth: Option<usize>,
    /// Number of attention heads instead of 16.
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// Width of an attention head instead of 88, or 72 of DiTs.
    #[arg(long, value_name = "N")]
    pub head_dim: Option<usize>,
    /// Side of the image instead of 1024, or 256 of DiTs.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Use tiny text encoders and a tiny VAE instead of the released ones.
    #[arg(long)]
    pub small_text: bool,
    /// Also write a ControlNet, as the folder controlnet of the checkpoint.
    #[arg(long)]
    pub control: bool,
    /// Also write an IP-Adapter and its image encoder, which is tiny with --small-text.
    #[arg(long)]
    pub ip_adapter: bool,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value_t = SynthDtype::Fp32)]
    pub dtype: SynthDtype,
    /// Seed of the weights.
    #[arg(long, value_parser = whole::<u64>, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Args)]
pub struct Export {
    /// Checkpoint: a folder in diffusers' layout or in Tencent's, that of one part, or a file with
    /// some or all parts, as ComfyUI has it.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// Checkpoint that has the parts which the first one lacks, such as the text encoders for a
    /// transformer alone.
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Which files of weights to take where several are there: fp16 for *.fp16.safetensors; ema,
    /// module or distill for Tencent's.
    #[arg(long, value_name = "NAME")]
    pub weights_variant: Option<String>,
    /// Artifact folder to write: new, empty, or an older export to replace.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of blocks before the deep core, and after it: 1 to depth / 2 - 1 (Skip-DiT's
    /// cache_at_branch). By default that of the model's authors: 1 of Hunyuan-DiT, 4 of DiTs.
    #[arg(long, value_name = "N")]
    pub cache_at_branch: Option<usize>,
    /// Number format of the large matrices: fp32; fp16 or bf16 for GPUs (norms, softmax, QK^T and
    /// residual streams stay in fp32); int8 for CPUs (weights quantized by output channel,
    /// activations of the blocks at run time); fp8 for TensorRT on GPUs from compute capability 8.9 on
    /// (linears of the blocks, the rest as in fp16); auto for the usual one of the target, with the
    /// reason.
    #[arg(long, value_name = "fp32|fp16|bf16|int8|fp8|auto", default_value_t = Dtype::This(Precision::Fp32))]
    pub dtype: Dtype,
    /// Runtime that the transformer targets: portable (plain ONNX for any runtime), ort-cpu or
    /// ort-cuda (ONNX Runtime's fused attention, for its CPU or its CUDA provider), tensorrt (plain
    /// ONNX with the types that TensorRT knows).
    #[arg(
        long,
        value_name = "portable|ort-cpu|ort-cuda|tensorrt",
        default_value_t = Target::Portable
    )]
    pub optimize_for: Target,
    /// LoRA to merge into the weights, as safetensors or the folder in which PEFT saved it, with its
    /// weight after a colon if that is not 1; again for each. The layouts of PEFT, diffusers, Kohya
    /// and Tencent are known.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub lora: Vec<Weighted>,
    /// Give the attention layers inputs for LoRAs up to this rank, all of a request together:
    /// requests then name LoRAs, and each is drawn with its own.
    #[arg(long, value_name = "RANK")]
    pub lora_slots: Option<usize>,
    /// Blocks, counted from 0, whose self-attention requests may perturb, to draw away from what that
    /// gives (perturbed-attention guidance): one or several of the middle of the model.
    #[arg(long, value_name = "BLOCK", value_delimiter = ',')]
    pub pag_layers: Vec<usize>,
    /// ControlNet that requests may name, by the name before the equals sign: the folder of diffusers'
    /// HunyuanDiT2DControlNetModel, or a file, also Tencent's; again for each. The image
    /// encoder is written as with --image-to-image.
    #[arg(long, value_name = "NAME=PATH")]
    pub control: Vec<ControlNet>,
    /// IP-Adapter by which requests may have an image prompt: its file, such as Tencent's ipa.pt, or a
    /// folder with it.
    #[arg(long, value_name = "PATH")]
    pub ip_adapter: Option<PathBuf>,
    /// Image encoder of --ip-adapter: a folder in which transformers saved a CLIP, or a file such as
    /// Tencent's clip_img_encoder.pt; by default the one beside the adapter.
    #[arg(long, value_name = "PATH")]
    pub image_encoder: Option<PathBuf>,
    /// Where the graphs read their weights: in a copy (copy), in the order and type that engines
    /// read; or in the checkpoint's own files (in-place), which are linked into the artifact folder
    /// and take no space there, but are turned at every start.
    #[arg(long, value_enum, default_value_t = Weights::Copy)]
    pub weights: Weights,
    /// Also write the image encoder, which hydit-serve generate --init-image and the server's
    /// /v1/images/edits need.
    #[arg(long)]
    pub image_to_image: bool,
    /// Also write the whole transformer as one graph, for comparison.
    #[arg(long)]
    pub full: bool,
    /// Also write pipeline.onnx: the whole pipeline with the denoising loop and the cache as one
    /// graph, for hosts that run files. It reads the weights of the other graphs.
    #[arg(long)]
    pub single: bool,
    /// Variant (a known name or a YAML file) instead of the one that matches the config.
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Which reference to follow in pictures that are not square, where they differ: diffusers or
    /// tencent; by default the one in whose names the transformer is stored.
    #[arg(long, value_name = "diffusers|tencent")]
    pub reading: Option<RopeConvention>,
    /// Name every tensor that is missing, mismatched or not used.
    #[arg(long)]
    pub verbose: bool,
}

/// A precision, or the usual one of the target.
#[derive(Clone, Copy)]
pub enum Dtype {
    Auto,
    This(Precision),
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Dtype, String> {
        match name {
            "auto" => Ok(Dtype::Auto),
            _ => name.parse().map(Dtype::This).map_err(|error| format!("{error}, auto")),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Auto => f.write_str("auto"),
            Dtype::This(precision) => precision.fmt(f),
        }
    }
}

impl Dtype {
    /// The precision for `target`; says which one and why if it was not named.
    pub fn precision(self, target: Target) -> Result<Precision> {
        match self {
            Dtype::This(precision) => Ok(precision),
            Dtype::Auto => {
                let (precision, why) = target.usual_precision();
                say(format_args!("--dtype auto: {precision} for {target}, which {why}"))?;
                Ok(precision)
            }
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SynthDtype {
    Fp32,
    Fp16,
}

impl From<SynthDtype> for DType {
    fn from(dtype: SynthDtype) -> DType {
        match dtype {
            SynthDtype::Fp32 => DType::F32,
            SynthDtype::Fp16 => DType::F16,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Weights {
    Copy,
    InPlace,
}

impl From<Weights> for WeightsPlace {
    fn from(weights: Weights) -> WeightsPlace {
        match weights {
            Weights::Copy => WeightsPlace::Copy,
            Weights::InPlace => WeightsPlace::InPlace,
        }
    }
}
