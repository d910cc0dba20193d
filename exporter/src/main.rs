//! The program `hydit-export`: a checkpoint in, an artifact folder out.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hydit_export::{
    ControlNet, Error, Merged, Options, Progress, Weighted, WeightsPlace, check, export, first_of,
    inspect, synth, triton,
};
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{DType, Precision, Target};
use hydit_terminal::{note, plain, say, whole};
use indicatif::{ProgressBar, ProgressStyle};

/// Exports a Hunyuan-DiT checkpoint to ONNX graphs for Skip-Cache serving, without Python and
/// tracing.
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
    /// Say what a checkpoint is, what is missing of it, what its export would weigh, and which
    /// commands to type. Only headers are read.
    Check(Check),
    /// Print graphs, shapes, parameters and sizes of an artifact folder.
    Inspect {
        /// Artifact folder.
        dir: PathBuf,
    },
    /// Write a model repository for Triton: an ensemble, prompt in and image out, around the
    /// pipeline in one file.
    Triton(Triton),
    /// Write a checkpoint with made-up weights in the shape of a released model or a smaller one,
    /// to measure speed and memory without the real weights.
    Synth(Synth),
}

#[derive(Args)]
struct Check {
    /// Checkpoint: a folder in diffusers' layout or in Tencent's, that of one part, or a file.
    checkpoint: PathBuf,
    /// Checkpoint that has the parts which the first one lacks.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// Which files of weights to take where several are there, as for an export.
    #[arg(long, value_name = "NAME")]
    weights_variant: Option<String>,
    /// LoRA to hold against the checkpoint, again for each: what it changes, what fits nowhere.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    lora: Vec<Weighted>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Triton {
    /// Artifact folder, exported with --single.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Plan that the repository offers, a file of hydit-serve plan --tensors: image size, sampler,
    /// steps, guidance and cache policy. Again for each; clients choose by the name of the file.
    #[arg(long, value_name = "FILE", required = true)]
    plan: Vec<PathBuf>,
    /// Model repository to write: a new or empty folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the ensemble; its steps are called NAME-request and NAME-pipeline.
    #[arg(long, default_value = "hydit")]
    name: String,
    /// Where the pipeline runs: cpu, cuda or tensorrt (ONNX Runtime's TensorRT provider).
    #[arg(long, value_enum, default_value_t = Provider::Cpu)]
    provider: Provider,
}

#[derive(Clone, Copy, ValueEnum)]
enum Provider {
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
struct Synth {
    /// Released model whose shape to use: hunyuan-dit-v1.2 or hunyuan-dit-v1.1.
    #[arg(long, value_name = "NAME", default_value = "hunyuan-dit-v1.2")]
    variant: String,
    /// Checkpoint folder to write, new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of blocks of the transformer instead of 40.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Number of attention heads instead of 16.
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Width of an attention head instead of 88.
    #[arg(long, value_name = "N")]
    head_dim: Option<usize>,
    /// Side of the image instead of 1024.
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Use tiny text encoders and a tiny VAE instead of the released ones.
    #[arg(long)]
    small_text: bool,
    /// Also write a ControlNet, as the folder controlnet of the checkpoint.
    #[arg(long)]
    control: bool,
    /// Also write an IP-Adapter and its image encoder, which is tiny with --small-text.
    #[arg(long)]
    ip_adapter: bool,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value_t = SynthDtype::Fp32)]
    dtype: SynthDtype,
    /// Seed of the weights.
    #[arg(long, value_parser = whole::<u64>, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct Export {
    /// Checkpoint: a folder in diffusers' layout or in Tencent's, that of one part, or a file with
    /// some or all parts, as ComfyUI has it.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// Checkpoint that has the parts which the first one lacks, such as the text encoders for a
    /// transformer alone.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// Which files of weights to take where several are there: fp16 for *.fp16.safetensors; ema,
    /// module or distill for Tencent's.
    #[arg(long, value_name = "NAME")]
    weights_variant: Option<String>,
    /// Artifact folder to write: new, empty, or an older export to replace.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of blocks before the deep core, and after it: 1 to depth / 2 - 1 (Skip-DiT's
    /// cache_at_branch).
    #[arg(long, value_name = "N", default_value_t = 1)]
    cache_at_branch: usize,
    /// Number format of the large matrices: fp32; fp16 or bf16 for GPUs (norms, softmax, QK^T and
    /// residual streams stay in fp32); int8 for CPUs (weights quantized by output channel,
    /// activations of the blocks at run time); auto for the usual one of the target, with the
    /// reason.
    #[arg(long, value_name = "fp32|fp16|bf16|int8|auto", default_value_t = Dtype::This(Precision::Fp32))]
    dtype: Dtype,
    /// Runtime that the transformer targets: portable (plain ONNX for any runtime), ort-cpu or
    /// ort-cuda (ONNX Runtime's fused attention, for its CPU or its CUDA provider), tensorrt (plain
    /// ONNX with the types that TensorRT knows).
    #[arg(
        long,
        value_name = "portable|ort-cpu|ort-cuda|tensorrt",
        default_value_t = Target::Portable
    )]
    optimize_for: Target,
    /// LoRA to merge into the weights, as safetensors or the folder in which PEFT saved it, with its
    /// weight after a colon if that is not 1; again for each. The layouts of PEFT, diffusers, Kohya
    /// and Tencent are known.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    lora: Vec<Weighted>,
    /// Give the attention layers inputs for LoRAs up to this rank, all of a request together:
    /// requests then name LoRAs, and each is drawn with its own.
    #[arg(long, value_name = "RANK")]
    lora_slots: Option<usize>,
    /// ControlNet that requests may name, by the name before the equals sign: the folder of diffusers'
    /// HunyuanDiT2DControlNetModel, or a file, also Tencent's; again for each. The image
    /// encoder is written as with --image-to-image.
    #[arg(long, value_name = "NAME=PATH")]
    control: Vec<ControlNet>,
    /// IP-Adapter by which requests may have an image prompt: its file, such as Tencent's ipa.pt, or a
    /// folder with it.
    #[arg(long, value_name = "PATH")]
    ip_adapter: Option<PathBuf>,
    /// Image encoder of --ip-adapter: a folder in which transformers saved a CLIP, or a file such as
    /// Tencent's clip_img_encoder.pt; by default the one beside the adapter.
    #[arg(long, value_name = "PATH")]
    image_encoder: Option<PathBuf>,
    /// Where the graphs read their weights: in a copy (copy), in the order and type that engines
    /// read; or in the checkpoint's own files (in-place), which are linked into the artifact folder
    /// and take no space there, but are turned at every start.
    #[arg(long, value_enum, default_value_t = Weights::Copy)]
    weights: Weights,
    /// Also write the image encoder, which hydit-serve generate --init-image and the server's
    /// /v1/images/edits need.
    #[arg(long)]
    image_to_image: bool,
    /// Also write the whole transformer as one graph, for comparison.
    #[arg(long)]
    full: bool,
    /// Also write pipeline.onnx: the whole pipeline with the denoising loop and the cache as one
    /// graph, for hosts that run files. It reads the weights of the other graphs.
    #[arg(long)]
    single: bool,
    /// Variant (a known name or a YAML file) instead of the one that matches the config.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Which reference to follow in pictures that are not square, where they differ: diffusers or
    /// tencent; by default the one in whose names the transformer is stored.
    #[arg(long, value_name = "diffusers|tencent")]
    reading: Option<RopeConvention>,
    /// Name every tensor that is missing, mismatched or not used.
    #[arg(long)]
    verbose: bool,
}

/// A precision, or the usual one of the target.
#[derive(Clone, Copy)]
enum Dtype {
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
    fn precision(self, target: Target) -> Result<Precision> {
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
enum SynthDtype {
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
enum Weights {
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

fn main() -> ExitCode {
    hydit_terminal::run(run)
}

fn run(cli: Cli) -> Result<()> {
    match (cli.command, cli.export) {
        (Some(Command::Check(flags)), _) => {
            let options = Options {
                base: flags.base,
                weights_variant: flags.weights_variant,
                loras: flags.lora,
                ..Options::new(flags.checkpoint, "")
            };
            let summary = check::check(&options)?;
            match flags.json {
                true => say(serde_json::to_string_pretty(&summary)?)?,
                false => say(summary.text().trim_end())?,
            }
            ensure!(summary.is_whole(), "{} cannot be exported as it is", summary.checkpoint);
            if let Some(lora) = summary.loras.iter().find(|lora| !lora.unfit.is_empty()) {
                bail!("{} does not fit {}", lora.file, summary.checkpoint);
            }
        }
        (Some(Command::Inspect { dir }), _) => {
            say(inspect::table(&inspect::read(&dir)?))?;
        }
        (Some(Command::Triton(flags)), _) => {
            let options = triton::Options {
                model: flags.model,
                plans: flags.plan,
                out: flags.out,
                name: flags.name,
                provider: flags.provider.into(),
            };
            let [ensemble, request, pipeline] = triton::export(&options)?;
            let out = check::quoted(&options.out.to_string_lossy());
            say(format_args!(
                "wrote {}: {ensemble} (prompt in, image out) = {request}, {pipeline}\n\nNext:\n  \
                 tritonserver --model-repository {out}   # its Python needs numpy, safetensors, \
                 tokenizers",
                options.out.display()
            ))?;
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
            let model = synth::model(&flags.variant, &shape)?;
            match flags.ip_adapter {
                true => {
                    let small = flags.small_text;
                    synth::checkpoint_with_ip_adapter(&model, small, &flags.out, &storage)?;
                }
                false => synth::checkpoint(&model, &flags.out, &storage)?,
            }
            if flags.control {
                synth::control(&model.transformer, &flags.out.join("controlnet"), &storage)?;
            }
            say(format_args!("wrote {}", flags.out.display()))?;
        }
        (None, Some(flags)) => {
            let options = Options {
                checkpoint: flags.checkpoint,
                base: flags.base,
                weights_variant: flags.weights_variant,
                reading: flags.reading,
                out: flags.out,
                cache_at_branch: flags.cache_at_branch,
                precision: flags.dtype.precision(flags.optimize_for)?,
                target: flags.optimize_for,
                loras: flags.lora,
                lora_slots: flags.lora_slots,
                controls: flags.control,
                ip_adapter: flags.ip_adapter,
                image_encoder: flags.image_encoder,
                weights: flags.weights.into(),
                image_to_image: flags.image_to_image,
                full: flags.full,
                single: flags.single,
                variant: flags.variant,
            };
            let mut bar = Bar { bar: ProgressBar::no_length(), verbose: flags.verbose };
            let manifest = match export(&options, &mut bar) {
                Err(Error::Tensors(report)) if flags.verbose => bail!(report.whole()),
                exported => exported?,
            };
            bar.bar.finish_and_clear();
            let table = inspect::table(&manifest);
            let mut next = vec![check::draw(&options.out)];
            if options.single {
                let host = "the inputs of pipeline.onnx";
                next.push(format!("{}   # {host}", check::plan(&options.out)));
            }
            let (out, next) = (options.out.display(), next.join("\n  "));
            say(format_args!("{table}\nwrote {out}\n\nNext:\n  {next}"))?;
        }
        (None, None) => unreachable!("clap asks for a command or flags"),
    }
    Ok(())
}

struct Bar {
    bar: ProgressBar,
    verbose: bool,
}

impl Progress for Bar {
    fn total(&mut self, bytes: u64) {
        let style = ProgressStyle::with_template(
            "{msg:16} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        self.bar.set_style(style.expect("the template is valid").progress_chars("=> "));
        self.bar.set_length(bytes);
    }

    fn graph(&mut self, name: &str) {
        self.bar.set_message(plain(name).into_owned());
    }

    fn wrote(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn copied(&mut self, bytes: u64) {
        if bytes > 0 {
            let mebibytes = bytes as f64 / (1 << 20) as f64;
            note(format_args!(
                "note: {mebibytes:.1} MiB of weights are copied: the checkpoint has them in another \
                 order, or a LoRA changes them"
            ));
        }
    }

    fn merging(&mut self, lora: &Merged) {
        let Merged { path, weight, rank, layers } = lora;
        let layers: Vec<String> = layers
            .iter()
            .map(|(part, changed, all)| {
                format!("{changed} of {all} layers of the {}", part.folder())
            })
            .collect();
        note(format_args!(
            "merging {}, weight {weight}, rank {rank}: {}",
            path.display(),
            layers.join(", ")
        ));
    }

    fn unused(&mut self, tensors: &[String]) {
        note(format_args!("warning: {} tensors of the checkpoint are not used:", tensors.len()));
        first_of(tensors, self.verbose).for_each(|line| note(format_args!("  {line}")));
    }

    fn left(&mut self, folder: &Path) {
        note(format_args!(
            "note: what was in the folder before and could not be removed is in {}",
            folder.display()
        ));
    }
}
