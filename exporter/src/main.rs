//! The program `hydit-export`: a checkpoint in, an artifact folder out.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod cli;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use hydit_export::{Error, Options, check, export, inspect, synth, triton};
use hydit_input::quoted;
use hydit_terminal::say;
use indicatif::ProgressBar;

use self::cli::flags::{Cli, Command};
use self::cli::progress::Bar;

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
            let out = quoted(&options.out.to_string_lossy());
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
            if let Some(kind) = synth::dit_kind(&flags.variant) {
                ensure!(
                    !flags.control && !flags.ip_adapter,
                    "--control, --ip-adapter: there are none for {}",
                    flags.variant
                );
                synth::dit_checkpoint(&synth::dit(kind, &shape)?, &flags.out, &storage)?;
                say(format_args!("wrote {}", flags.out.display()))?;
                return Ok(());
            }
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
        (Some(Command::About(about)), _) => about.run::<Cli>()?,
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
                pag_layers: flags.pag_layers,
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
            let mut next = vec![check::draw(&options.out, manifest.model.only_size().is_some())];
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
