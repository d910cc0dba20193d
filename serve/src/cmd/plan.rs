//! `hydit-serve plan`: what a request would do, without doing it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::cache::{Decision, Forecast, refreshed};
use hydit::pipeline::cost::StepCosts;
use hydit::pipeline::tables::{Numbers, Table, Tabulator};
use hydit_terminal::say;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::calibrated::tell_differences;
use super::files::Output;
use super::flags::RequestFlags;
use super::init_image::InitFlags;
use super::nets::NetFlags;
use super::progress::mark;
use super::{prompts, timesteps};

#[derive(Args)]
pub struct Plan {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    request: RequestFlags,
    #[command(flatten)]
    nets: NetFlags,
    #[command(flatten)]
    init: InitFlags,
    /// Also write the request as safetensors: the inputs of pipeline.onnx, which hydit-export
    /// --single writes.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    tensors: Option<PathBuf>,
    /// What to draw, for --tensors.
    #[arg(long, requires = "tensors", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// What not to draw, for --tensors.
    #[arg(
        long,
        visible_alias = "negative-prompt",
        requires = "tensors",
        allow_hyphen_values = true
    )]
    negative: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.model)?;
        let artifacts = Arc::new(artifacts.with_loras(self.nets.lora_dir())?);
        let manifest = &artifacts.manifest;
        let tensors = self.tensors.as_deref().map(|path| Output::new("--tensors", path));
        let tensors = tensors.transpose()?.map(Output::refuse_terminal).transpose()?;
        let any = manifest.model.prompt_or_class("");
        let prompt = self.prompt.as_deref().unwrap_or(any);
        let negative = self.negative.as_deref();
        let init = match &tensors {
            Some(_) => self.init.read(None)?,
            None => self.init.read_for_plan()?,
        };
        let mut request =
            self.request.request(&artifacts, prompt, negative, None, init.as_ref())?;
        self.nets.set(&mut request, manifest)?;
        let request = request.check(&artifacts)?;
        tell_differences(&request, &artifacts)?;
        let timesteps = timesteps::texts(request.sampler().timesteps());
        let plan = request.planned()?;
        if let Some(file) = tensors {
            let (tables, cut) = Tabulator::open(artifacts.clone())?.tables(&request)?;
            prompts::tell_cut(&cut);
            file.write(&safetensors(&tables)?)?;
            if file.is_standard() {
                return Ok(());
            }
        }
        let refresh = refreshed(plan);
        let costs = StepCosts::of(manifest, &request);
        let allowed = costs.speed_up(plan);
        let guided = request.guided_steps();
        let guided_steps = guided.end.min(plan.len()).saturating_sub(guided.start);
        if self.json {
            let plan = json!({
                "model": manifest.variant.name,
                "sampler": request.sampler,
                "spacing": request.spacing,
                "cache_policy": request.cache_policy.to_string(),
                "sizes": manifest.variant.sizes,
                "height": request.height,
                "width": request.width,
                "steps": request.steps,
                "guided_steps": guided_steps,
                "rows_per_image": request.rows_per_image(),
                "first_step": request.first_step()?,
                "timesteps": timesteps::json(request.sampler().timesteps()),
                "refresh": refresh,
                "core_runs": refresh.len(),
                "full_step_gflop": costs.full / 1e9,
                "cached_step_gflop": costs.cached / 1e9,
                "gflop": costs.run(plan) / 1e9,
                "speed_up_allowed": allowed,
            });
            return Ok(say(format_args!("{plan:#}"))?);
        }
        let mut out = format!(
            "{}, {}x{}, {} with {} spacing, {} steps, cache {}\n",
            manifest.variant.name,
            request.height,
            request.width,
            request.sampler,
            request.spacing,
            request.steps,
            request.cache_policy
        );
        let first_step = request.first_step()?;
        if let Some(init_image) = &request.init_image {
            let taken = plan.len();
            out += &format!(
                "from an image, strength {}: the last {taken} steps\n",
                init_image.strength
            );
        }
        if request.perturbed() {
            out += &format!(
                "perturbed-attention guidance {}: {} rows a picture\n",
                request.pag_scale,
                request.rows_per_image()
            );
        }
        if !request.guidance_interval.is_whole() {
            out += &format!(
                "guided at {guided_steps} of {} steps: {:.2}x faster than at all\n",
                plan.len(),
                costs.guidance_speed_up(plan)
            );
        }
        let sizes = manifest.variant.sizes.iter();
        let sizes: Vec<String> = sizes.map(|[h, w]| format!("{h}x{w}")).collect();
        if !sizes.is_empty() {
            out += &format!("trained for {} (others work too)\n", sizes.join(", "));
        }
        let line = Forecast::new(&[2.0, -1.0]).expect("weights that sum to 1");
        let marks = [
            (Decision::REFRESH, "refresh"),
            (Decision::Reuse(Forecast::LAST), "reuse"),
            (Decision::Reuse(line), "forecast"),
        ];
        let legend = marks.map(|(decision, name)| format!("{} {name}", mark(&decision)));
        out += &format!("{}\n\n", legend.join(", "));
        for (first, row) in plan.chunks(10).enumerate().map(|(i, row)| (10 * i, row)) {
            let step = |(i, decision): (usize, &Decision)| {
                format!("{}{}", timesteps[first + i], mark(decision))
            };
            let row: String = row.iter().enumerate().map(step).collect();
            out += &format!("{:>4} {row}\n", first_step + first);
        }
        out += &format!(
            "\n{} of {} steps run the deep core; a cached step costs {:.1}% of a full one\n",
            refresh.len(),
            plan.len(),
            100.0 * costs.cached / costs.full
        );
        out += &format!(
            "the denoising loop can be {allowed:.2}x faster ({:.2} GFLOP a full step)",
            costs.full / 1e9
        );
        Ok(say(out)?)
    }
}

/// The bytes of a file with `tables`.
fn safetensors(tables: &[Table]) -> Result<Vec<u8>> {
    let bytes = |table: &Table| {
        let dtype = match &table.numbers {
            Numbers::F32(_) => Dtype::F32,
            Numbers::I64(_) => Dtype::I64,
            Numbers::Bool(_) => Dtype::BOOL,
        };
        (dtype, table.numbers.to_bytes())
    };
    let data: Vec<(Dtype, Vec<u8>)> = tables.iter().map(bytes).collect();
    let views: Vec<(&str, TensorView<'_>)> = tables
        .iter()
        .zip(&data)
        .map(|(table, (dtype, bytes))| {
            Ok((&*table.name, TensorView::new(*dtype, table.shape.clone(), bytes)?))
        })
        .collect::<Result<_>>()?;
    Ok(safetensors::serialize(views, None)?)
}
