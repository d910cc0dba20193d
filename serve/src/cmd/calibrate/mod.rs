//! `hydit-serve calibrate`: the best cache schedules of a model, for `--cache-policy auto:...`.

mod plot;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::cache::{Schedule, Schedules, calibration_file};
use hydit::eval::calibrate::{Settings, calibrate, default_runs};
use hydit::pipeline::cost::StepCosts;
use hydit::{Pipeline, Request};
use hydit_terminal::note;

use super::files::{Output, tell};
use super::flags::{EngineFlags, ImageFlags};
use super::nets::NetFlags;
use super::progress::Turns;
use super::prompts;

/// The ending of the file of what was found so far.
const PARTIAL: &str = "partial.json";

/// Memory: the core's outputs of all steps of one request, and six of them for every prompt that
/// is learned from. Time: for each prompt its steps without a cache and, for two steps each, a run of
/// the decoder; for six of them four times their steps more; then, for each number of core runs,
/// twice the steps of each, and those of six prompts for each schedule that is tried.
#[derive(Args)]
pub struct Calibrate {
    /// Artifact folder of hydit-export; the calibration is written into it.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text file with a prompt on each line: the first half to learn from, the second to measure
    /// on.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// What not to draw.
    #[arg(long, visible_alias = "negative-prompt", allow_hyphen_values = true)]
    negative: Option<String>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    nets: NetFlags,
    /// Numbers of core runs to find schedules for; from 4 to three quarters of the steps, each about
    /// a third above the one before, if not given.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    runs: Vec<usize>,
    /// Schedules to try beside the best one for each number of core runs; more of them find better
    /// ones, and take their time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    tries: usize,
    /// Schedules without corrections, which are a file of their own beside the YAML.
    #[arg(long)]
    no_corrections: bool,
    /// Write to this file instead, for --cache-policy schedule:FILE; - is standard output.
    #[arg(short, long, value_name = "YAML")]
    output: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineFlags,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.model)?;
        let artifacts = artifacts.with_loras(self.nets.lora_dir())?;
        let prompts = prompts::read(&self.prompts)?;
        let mut settings = self.settings(&artifacts, prompts)?;
        let Request { sampler, spacing, steps, .. } = settings.request;
        let usual = calibration_file(&artifacts.path, sampler, spacing, steps);
        let file = Output::new("--output", self.output.as_deref().unwrap_or(&usual))?;
        if settings.corrections && !file.is_file() {
            note(format_args!(
                "no corrections: they are a file of their own, and {file} has none beside it"
            ));
            settings.corrections = false;
        }
        // What was found is kept until the end, so that a run that was ended goes on.
        let (partial, _forgotten) = if file.is_file() {
            (file.path().with_extension(PARTIAL), None)
        } else {
            let folder = tempfile::tempdir().context("no folder for what is found")?;
            (folder.path().join(PARTIAL), Some(folder))
        };

        let mut pipeline = self.engine.load(artifacts)?;
        let mut bar = None;
        let schedules = calibrate(&mut pipeline, &settings, &partial, &mut |progress| {
            let bar = bar.get_or_insert_with(|| Turns::from(progress.done, progress.total));
            bar.next(&progress.next);
        })?;
        bar.into_iter().for_each(Turns::finish);
        let mut found = schedules_file(&pipeline, &settings, schedules);
        match file.is_file() {
            true => found.write(file.path())?,
            false => file.write(found.to_yaml().as_bytes())?,
        }
        std::fs::remove_file(&partial).with_context(|| partial.display().to_string())?;
        let table = table(&pipeline, &settings.request, &found);
        let plot = plot::plot(&found, file.path() == usual);
        Ok(tell([&file], format_args!("{table}\n{plot}\nwrote {file}"))?)
    }

    fn settings(&self, artifacts: &Artifacts, mut learn: Vec<String>) -> Result<Settings> {
        let manifest = &artifacts.manifest;
        let mut request = Request::new(manifest, manifest.model.prompt_or_class("a cat"))?;
        self.image.set(&mut request, manifest, self.negative.as_deref())?;
        self.nets.set(&mut request, manifest)?;
        let checked = request.check(artifacts)?;
        request.loras.clone_from(&checked.loras); // with the hashes of their files
        let steps = request.steps;
        if learn.len() < 2 {
            bail!("{}: expected 2 prompts or more, a line each", self.prompts.display());
        }
        prompts::check(&learn, &format!("{}:", self.prompts.display()), &checked)?;
        let check = learn.split_off(learn.len().div_ceil(2));
        let mut runs = self.runs.clone();
        if let Some(runs) = runs.iter().find(|runs| !(1..=steps).contains(*runs)) {
            bail!("--runs: {runs} core runs of {steps} steps; expected 1 to {steps}");
        }
        if runs.is_empty() {
            runs = default_runs(steps);
        }
        if runs.is_empty() {
            bail!(
                "--infer-steps: {steps} steps are too few to choose among; take 6 or more, or name --runs"
            );
        }
        runs.sort_unstable();
        runs.dedup();
        Ok(Settings {
            request,
            learn,
            check,
            runs,
            tries: self.tries,
            corrections: !self.no_corrections,
        })
    }
}

fn schedules_file(pipeline: &Pipeline, settings: &Settings, schedules: Vec<Schedule>) -> Schedules {
    let Settings { request, learn, check, .. } = settings;
    let made_with = [
        ("engine", pipeline.backend().name()),
        ("guidance_rescale", request.guidance_rescale.to_string()),
        ("image_size", format!("{}x{}", request.height, request.width)),
        ("learned_from", learn.join("; ")),
        ("measured_on", check.join("; ")),
        ("negative_prompt", request.negative_prompt.clone()),
        ("seeds", format!("{} and on, {} a prompt", request.seed, request.num_images)),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    Schedules {
        manifest_sha256: Some(pipeline.artifacts().hash.clone()),
        sampler: Some(request.sampler),
        spacing: Some(request.spacing),
        steps: request.steps,
        guidance_scale: Some(request.guidance_scale),
        pag_scale: request.pag_scale,
        pag_adaptive_scale: request.pag_adaptive_scale,
        loras: request.loras.clone(),
        controls: request.controls.clone(),
        image_prompt: request.image_prompt.clone(),
        corrections_sha256: None,
        made_with: made_with.map(|(name, value)| (name.to_string(), value)).into(),
        schedules,
    }
}

fn table(pipeline: &Pipeline, request: &Request, found: &Schedules) -> String {
    let costs = StepCosts::of(pipeline.manifest(), request);
    let mut out =
        String::from("core runs  speed-up    PSNR     p10    SSIM  forecasts  corrections\n");
    for schedule in &found.schedules {
        let Some(measured) = schedule.measured else { continue };
        out += &format!(
            "{:9}  {:7.2}x  {:6.1}  {:6.1}  {:.4}  {:9}  {:11}\n",
            schedule.refresh.len(),
            costs.speed_up(&schedule.plan(found.steps)),
            measured.psnr,
            measured.psnr_p10,
            measured.ssim,
            if schedule.forecast.is_empty() { "no" } else { "yes" },
            schedule.corrections.len(),
        );
    }
    out
}
