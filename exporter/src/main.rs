//! `hydit-export`: flags in, artifact folder out.
#![warn(missing_docs)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hydit_export::{Options, Progress, export, inspect, synth};
use hydit_graphs::{DType, Form, Precision};
use indicatif::{ProgressBar, ProgressStyle};

/// Hunyuan-DiT checkpoint -> ONNX subgraphs for Skip-Cache serving. No Python, no tracing.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    export: Option<Export>,
}

#[derive(Subcommand)]
enum Command {
    /// Print graphs, shapes, parameters and sizes of an artifact folder.
    Inspect {
        /// The artifact folder.
        dir: PathBuf,
    },
    /// Write a checkpoint with made-up weights, of a released model's shape or a smaller one: to
    /// measure speed and memory without the real weights.
    Synth(Synth),
}

#[derive(Args)]
struct Synth {
    /// Whose shape: hunyuan-dit-v1.2 or hunyuan-dit-v1.1.
    #[arg(long, value_name = "NAME", default_value = "hunyuan-dit-v1.2")]
    variant: String,
    /// Checkpoint folder to write: new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Blocks of the transformer instead of 40.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Attention heads instead of 16.
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Width of a head instead of 88.
    #[arg(long, value_name = "N")]
    head_dim: Option<usize>,
    /// Side of the picture instead of 1024.
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Tiny text encoders and VAE instead of the true ones.
    #[arg(long)]
    small_text: bool,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value_t = Dtype::Fp32)]
    dtype: Dtype,
    /// Other seeds give other weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct Export {
    /// Checkpoint folder in diffusers' layout (model_index.json and a folder per component).
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Artifact folder to write: new, empty, or an older export to replace.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Blocks before and after the cut, 1 to depth / 2 - 1 (Skip-DiT's cache_at_branch).
    #[arg(long, value_name = "N", default_value_t = 1)]
    cache_at_branch: usize,
    /// How the big matrices are stored and multiplied: fp32; fp16 or bf16, for GPUs (norms, softmax
    /// and QK^T stay in fp32); int8, for CPUs (weights by output channel, activations as they come).
    #[arg(long, value_name = "fp32|fp16|bf16|int8", default_value_t = Precision::Fp32)]
    dtype: Precision,
    /// Whom the transformer is written for: portable (plain ONNX, any engine), ort-cpu or ort-cuda
    /// (ONNX Runtime's fused attention, for its CPU or its CUDA provider), tensorrt (plain ONNX, of
    /// the types TensorRT knows).
    #[arg(long, value_name = "portable|ort-cpu|ort-cuda|tensorrt", default_value_t = Form::Portable)]
    optimize_for: Form,
    /// Also write the whole transformer as one graph, for comparison.
    #[arg(long)]
    full: bool,
    /// Variant (a known name, or a YAML file) instead of the one recognised from the config.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    Fp32,
    Fp16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> DType {
        match dtype {
            Dtype::Fp32 => DType::F32,
            Dtype::Fp16 => DType::F16,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match (cli.command, cli.export) {
        (Some(Command::Inspect { dir }), _) => {
            print!("{}", inspect::table(&inspect::read(&dir)?));
        }
        (Some(Command::Synth(flags)), _) => {
            let shape = synth::Shape {
                depth: flags.depth,
                heads: flags.heads,
                head_dim: flags.head_dim,
                image_size: flags.image_size,
                small_text: flags.small_text,
            };
            let (dtype, seed) = (flags.dtype.into(), flags.seed);
            let storage = synth::Storage { dtype, seed, ..Default::default() };
            synth::checkpoint(&synth::model(&flags.variant, &shape)?, &flags.out, &storage)?;
            println!("wrote {}", flags.out.display());
        }
        (None, Some(flags)) => {
            let options = Options {
                checkpoint: flags.checkpoint,
                out: flags.out,
                cache_at_branch: flags.cache_at_branch,
                precision: flags.dtype,
                form: flags.optimize_for,
                full: flags.full,
                variant: flags.variant,
            };
            let mut bar = Bar(ProgressBar::no_length());
            let manifest = export(&options, &mut bar)?;
            bar.0.finish_and_clear();
            print!("{}", inspect::table(&manifest));
            println!("\nwrote {}", options.out.display());
        }
        (None, None) => unreachable!("clap asks for a command or flags"),
    }
    Ok(())
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn total(&mut self, bytes: u64) {
        let style = ProgressStyle::with_template(
            "{msg:16} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        self.0.set_style(style.expect("the template is valid").progress_chars("=> "));
        self.0.set_length(bytes);
    }

    fn graph(&mut self, name: &str) {
        self.0.set_message(name.to_string());
    }

    fn wrote(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn unused(&mut self, tensors: &[String]) {
        eprintln!("warning: {} tensors of the checkpoint are not used:", tensors.len());
        tensors.iter().for_each(|tensor| eprintln!("  {tensor}"));
    }
}
