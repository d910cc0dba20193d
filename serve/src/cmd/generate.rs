//! `hydit-serve generate`: a prompt in, PNG files out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::cache::{refreshed, refreshes};
use hydit::eval::machine::peak_memory;
use hydit::image::{Image, Texts, write_png};
use hydit::request::Parameters;
use hydit::runtime::Backend;
use hydit::timing::{Stage, Timings};
use hydit::{CheckedRequest, Generated, Pipeline, Request};
use serde_json::{Value, json};

use super::compare::{self, Comparison};
use super::files::{check_writable, read_parameters};
use super::flags::{EngineFlags, RequestFlags};
use super::progress::{Progress, mark};

#[derive(Args)]
pub struct Generate {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to draw, Chinese or English.
    #[arg(long, required_unless_present = "from")]
    prompt: Option<String>,
    /// What not to draw.
    #[arg(long)]
    negative: Option<String>,
    /// Draw the picture of this PNG again; other flags change it.
    #[arg(long, value_name = "PNG")]
    from: Option<PathBuf>,
    /// File to write; several pictures get -0, -1, ... before the extension.
    #[arg(short, long, value_name = "PNG", default_value = "picture.png")]
    output: PathBuf,
    #[command(flatten)]
    request: RequestFlags,
    /// Draw without the cache as well: speed-up, PSNR, SSIM and both pictures side by side.
    #[arg(long)]
    compare: bool,
    /// Leave the parameters out of the PNG.
    #[arg(long)]
    no_metadata: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineFlags,
}

impl Generate {
    pub fn run(self, started: Instant) -> Result<()> {
        let from = self.from.as_deref().map(read_parameters).transpose()?;
        let artifacts = Artifacts::open(&self.model)?;
        let request = self.resolve(&artifacts, from.as_ref())?;
        check_writable("--output", &self.output)?;

        let backend = Backend::open(&self.engine.options())?;
        eprintln!("engine    {}", backend.describe());
        let mut pipeline = Pipeline::open(artifacts, backend)?;
        let comparison = match self.compare {
            true => Some(compare::uncached(&mut pipeline, &request)?),
            false => None,
        };
        let mut progress = Progress::new(if self.compare { "cached" } else { "denoise" });
        let mut made = pipeline.generate(&request, &mut |step| progress.step(step))?;
        progress.finish();
        for field in &made.truncated {
            eprintln!(
                "note: the {field} is longer than the text encoders read: its end has no effect"
            );
        }

        let paths = self.write(pipeline.artifacts(), &request, &mut made)?;
        let comparison = match comparison {
            Some(uncached) => Some(self.compare(&pipeline, &request, uncached, &made)?),
            None => None,
        };
        let start_seconds = match self.compare {
            true => None, // the uncached picture came first
            false => made.timings.began.map(|began| (began - started).as_secs_f64()),
        };
        let peak_memory = peak_memory();
        let report = Report {
            request: &request,
            made: &made,
            paths: &paths,
            comparison,
            start_seconds,
            peak_memory,
        };
        match self.json {
            true => println!("{:#}", report.json(&pipeline)),
            false => print!("{}", report.text()),
        }
        Ok(())
    }

    fn resolve(&self, artifacts: &Artifacts, from: Option<&Parameters>) -> Result<CheckedRequest> {
        if let Some(from) = from.filter(|from| from.manifest_sha256 != artifacts.hash) {
            eprintln!("note: that picture was drawn with another export, of {}", from.model);
        }
        let prompt = self.prompt.as_deref().or(from.map(|from| from.request.prompt.as_str()));
        let prompt = prompt.unwrap_or_default();
        let request = self.request.request(artifacts, prompt, self.negative.as_deref(), from)?;
        if self.compare && request.cache_policy.is_off() {
            bail!("--compare needs a cache to compare: add --use-cache or --cache-policy");
        }
        Ok(request.check(artifacts)?)
    }

    fn write(
        &self,
        artifacts: &Artifacts,
        request: &Request,
        made: &mut Generated,
    ) -> Result<Vec<PathBuf>> {
        let Generated { images, timings, .. } = made;
        let mut paths = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let path = match images.len() {
                1 => self.output.clone(),
                _ => with_suffix(&self.output, &format!("-{i}")),
            };
            let texts = self.texts(artifacts, request, i);
            let start = Instant::now();
            write_png(&path, image, &texts)?;
            timings.add(Stage::Png, start.elapsed());
            paths.push(path);
        }
        Ok(paths)
    }

    fn texts(&self, artifacts: &Artifacts, request: &Request, picture: usize) -> Texts {
        match self.no_metadata {
            true => Texts::new(),
            false => request.parameters(artifacts, picture).to_texts(),
        }
    }

    fn compare(
        &self,
        pipeline: &Pipeline,
        request: &Request,
        uncached: Generated,
        cached: &Generated,
    ) -> Result<Comparison> {
        let path = with_suffix(&self.output, "-compare");
        let rows: Result<Vec<Image>, _> = uncached
            .images
            .iter()
            .zip(&cached.images)
            .map(|(a, b)| Image::side_by_side(&[a.clone(), b.clone()]))
            .collect();
        write_png(&path, &Image::stacked(&rows?)?, &[])?;
        Ok(compare::compare(pipeline.manifest(), request, &uncached, cached, path)?)
    }
}

/// `cat.png` -> `cat-0.png`
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or("png".into(), |e| e.to_string_lossy());
    path.with_file_name(format!("{stem}{suffix}.{extension}"))
}

struct Report<'a> {
    request: &'a Request,
    made: &'a Generated,
    paths: &'a [PathBuf],
    comparison: Option<Comparison>,
    /// From the start of the program to the first denoising step.
    start_seconds: Option<f64>,
    peak_memory: Option<u64>,
}

impl Report<'_> {
    fn text(&self) -> String {
        let Generated { plan, timings, .. } = self.made;
        let marks: String = plan.iter().map(|&decision| mark(decision)).collect();
        let mut out = format!(
            "plan      {marks}  {}, {} of {} steps ran the deep core\n\n",
            self.request.cache_policy,
            refreshes(plan),
            plan.len()
        );
        out += &table(timings);
        if let Some(seconds) = self.start_seconds {
            out += &format!("first step after          {seconds:5.2} s\n");
        }
        if let Some(bytes) = self.peak_memory {
            out += &format!("peak memory               {:5} MiB\n", bytes >> 20);
        }
        out += "\n";
        if let Some(comparison) = &self.comparison {
            out += &comparison.text();
        }
        for path in self.paths {
            out += &format!("wrote {}\n", path.display());
        }
        out
    }

    fn json(&self, pipeline: &Pipeline) -> Value {
        let Generated { plan, timings, timesteps, .. } = self.made;
        let image = |(i, path): (usize, &PathBuf)| json!({ "path": path, "seed": self.request.seed + i as u64 });
        let stage = |&(stage, _): &(Stage, &str)| {
            json!({
                "stage": stage,
                "calls": timings.calls(stage),
                "seconds": timings.of(stage).as_secs_f64()
            })
        };
        let mut out = json!({
            "images": self.paths.iter().enumerate().map(image).collect::<Vec<_>>(),
            "parameters": self.request.parameters(pipeline.artifacts(), 0),
            "backend": pipeline.backend().describe(),
            "steps": plan.len(),
            "core_runs": timings.calls(Stage::Core),
            "deep_on_host": self.made.deep_on_host,
            "truncated": self.made.truncated,
            "refresh": refreshed(plan),
            "timesteps": timesteps,
            "stages": Stage::ALL.iter().map(stage).collect::<Vec<_>>(),
            "denoise_seconds": timings.denoise.as_secs_f64(),
            "overhead": timings.overhead(),
            "start_seconds": self.start_seconds,
            "peak_memory_bytes": self.peak_memory,
        });
        if let Some(comparison) = &self.comparison {
            out["compare"] = comparison.json();
        }
        out
    }
}

/// Calls and time of each stage.
fn table(timings: &Timings) -> String {
    let mut out = String::from("stage             calls       total    per call\n");
    for (stage, name) in Stage::ALL {
        let (calls, seconds) = (timings.calls(stage), timings.of(stage).as_secs_f64());
        if calls == 0 {
            continue;
        }
        let each = 1e3 * seconds / calls as f64;
        out += &format!("{name:16} {calls:6}  {:8.1} ms {each:8.2} ms\n", 1e3 * seconds);
    }
    out += &format!(
        "denoising loop            {:5.1} ms, {:.2}% outside the engine\n",
        1e3 * timings.denoise.as_secs_f64(),
        100.0 * timings.overhead()
    );
    out
}
