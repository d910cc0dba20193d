//! `hydit-serve generate`: a prompt in, image files out.

mod compare;
mod pictures;
mod remote;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::eval::machine::peak_memory;
use hydit::image::{Image, Texts};
use hydit::request::Parameters;
use hydit::timing::Stage;
use hydit::{CheckedRequest, Generated, Request};
use hydit_terminal::note;

use self::pictures::Pictures;
use self::report::Report;
use super::calibrated::tell_differences;
use super::control::ControlFlags;
use super::files::{read_parameters, tell};
use super::flags::{EngineFlags, LoraFlags, RequestFlags, TritonFlags};
use super::image_prompt::ImagePromptFlags;
use super::init_image::InitFlags;
use super::progress::Progress;
use super::prompts;

#[derive(Args)]
pub struct Generate {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to draw, Chinese or English.
    #[arg(long, required_unless_present_any = ["from", "class"], allow_hyphen_values = true)]
    prompt: Option<String>,
    /// What to draw of a model that draws classes: the number of one or its name, such as 207; several,
    /// each with the flag or with commas between them, are drawn in turn.
    #[arg(long, value_name = "CLASS", conflicts_with = "prompt")]
    class: Vec<String>,
    /// What not to draw.
    #[arg(long, visible_alias = "negative-prompt", allow_hyphen_values = true)]
    negative: Option<String>,
    /// Draw the image of this PNG again; other flags change it.
    #[arg(long, value_name = "PNG")]
    from: Option<PathBuf>,
    /// File to write: .png, .jpg, .jpeg or .webp, or - for standard output. Several images get -0,
    /// -1, ... before the ending.
    #[arg(short, long, value_name = "FILE", default_value = "picture.png")]
    output: PathBuf,
    #[command(flatten)]
    init: InitFlags,
    #[command(flatten)]
    controls: ControlFlags,
    #[command(flatten)]
    image_prompt: ImagePromptFlags,
    #[command(flatten)]
    request: RequestFlags,
    #[command(flatten)]
    loras: LoraFlags,
    /// Draw without the cache as well: speed-up, PSNR, SSIM and both images side by side.
    #[arg(long)]
    compare: bool,
    /// Leave the parameters out of the file; only a PNG has them.
    #[arg(long)]
    no_metadata: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    triton: TritonFlags,
}

impl Generate {
    pub fn run(self, started: Instant) -> Result<()> {
        let from = self.from.as_deref().map(read_parameters).transpose()?;
        let tritons = self.triton.addresses(&self.engine)?;
        let artifacts = Artifacts::open(&self.model)?;
        let artifacts = artifacts.with_loras(self.loras.lora_dir.as_deref())?;
        let artifacts =
            if tritons.is_none() { self.engine.with_engines(artifacts)? } else { artifacts };
        let request = self.resolve(&artifacts, from.as_ref())?;
        let pictures = Pictures::new(&self.output, &request, self.compare)?;
        if !self.no_metadata {
            pictures.note_missing_parameters();
        }

        if let Some(addresses) = tritons {
            return self.draw_by(addresses, artifacts, &request, &pictures);
        }
        let mut pipeline = self.engine.load(artifacts)?;
        let uncached =
            if self.compare { Some(compare::uncached(&mut pipeline, &request)?) } else { None };
        let mut progress = Progress::new(if self.compare { "cached" } else { "denoise" });
        let mut made = pipeline.generate(&request, &mut |step| progress.step(step))?;
        progress.finish();
        prompts::tell_cut(&made.truncated);

        let Generated { images, timings, truncated, .. } = &mut made;
        let wrote = self.write(&pictures, pipeline.artifacts(), &request, images, truncated)?;
        wrote.iter().for_each(|&took| timings.add(Stage::Png, took));
        let gain = match uncached {
            Some(uncached) => {
                Some(compare::gain(&pipeline, &request, &uncached, &made, &pictures)?)
            }
            None => None,
        };
        let start_seconds = if self.compare {
            None // the uncached image came first
        } else {
            made.timings.began.map(|began| (began - started).as_secs_f64())
        };
        let report = Report {
            request: &request,
            made: &made,
            files: &pictures.images,
            gain,
            start_seconds,
            peak_memory: peak_memory(),
        };
        let report =
            if self.json { format!("{:#}", report.json(&pipeline)) } else { report.text() };
        Ok(tell(&pictures.images, report)?)
    }

    /// Makes the request that the flags and the image of `--from` ask.
    fn resolve(&self, artifacts: &Artifacts, from: Option<&Parameters>) -> Result<CheckedRequest> {
        if let Some(from) = from.filter(|from| from.manifest_sha256 != artifacts.hash) {
            note(format_args!(
                "note: the image of --from was drawn with another export, of {}",
                from.model
            ));
        }
        if !self.class.is_empty() && !artifacts.manifest.model.draws_classes() {
            bail!("--class: this model draws what a text says, no classes: use --prompt");
        }
        let class = Some(self.class.join(", ")).filter(|class| !class.is_empty());
        let prompt = self
            .prompt
            .as_deref()
            .or(class.as_deref())
            .or(from.map(|from| from.request.prompt.as_str()));
        let prompt = prompt.unwrap_or_default();
        let init = self.init.read(from)?;
        let controls = self.controls.read(from)?;
        let negative = self.negative.as_deref();
        let mut request = self.request.request(artifacts, prompt, negative, from, init.as_ref())?;
        request.image_prompt = self.image_prompt.read(&artifacts.manifest, from)?;
        self.loras.set(&mut request);
        controls.set(&mut request);
        if self.compare && request.cache_policy.is_off() {
            bail!("--compare needs a cache to compare: add --use-cache or --cache-policy");
        }
        let request = request.check(artifacts)?;
        tell_differences(&request, artifacts)?;
        Ok(request)
    }

    /// Writes a file for each image, and tells how long each took.
    fn write(
        &self,
        pictures: &Pictures,
        artifacts: &Artifacts,
        request: &Request,
        images: &[Image],
        truncated: &[&'static str],
    ) -> Result<Vec<Duration>> {
        let files = images.iter().zip(&pictures.images).enumerate();
        let write = |(i, (image, file))| {
            let start = Instant::now();
            pictures.write(file, image, &self.texts(artifacts, request, i, truncated))?;
            Ok(start.elapsed())
        };
        files.map(write).collect()
    }

    fn texts(
        &self,
        artifacts: &Artifacts,
        request: &Request,
        index: usize,
        truncated: &[&'static str],
    ) -> Texts {
        if self.no_metadata {
            Texts::new()
        } else {
            request.parameters(artifacts, index, truncated).to_texts()
        }
    }
}
