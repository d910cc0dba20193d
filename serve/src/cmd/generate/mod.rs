//! `hydit-serve generate`: a prompt in, PNG files out.

mod compare;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::eval::machine::peak_memory;
use hydit::image::{Texts, write_png};
use hydit::request::Parameters;
use hydit::runtime::Backend;
use hydit::timing::Stage;
use hydit::{CheckedRequest, Generated, Pipeline, Request};
use hydit_terminal::{note, say};

use self::report::Report;
use super::files::{check_writable, read_parameters};
use super::flags::{EngineFlags, RequestFlags};
use super::progress::Progress;

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
    /// Draw the image of this PNG again; other flags change it.
    #[arg(long, value_name = "PNG")]
    from: Option<PathBuf>,
    /// File to write; several images get -0, -1, ... before the extension.
    #[arg(short, long, value_name = "PNG", default_value = "picture.png")]
    output: PathBuf,
    #[command(flatten)]
    request: RequestFlags,
    /// Draw without the cache as well: speed-up, PSNR, SSIM and both images side by side.
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
        note(format_args!("engine    {}", backend.describe()));
        let mut pipeline = Pipeline::open(artifacts, backend)?;
        let uncached =
            if self.compare { Some(compare::uncached(&mut pipeline, &request)?) } else { None };
        let mut progress = Progress::new(if self.compare { "cached" } else { "denoise" });
        let mut made = pipeline.generate(&request, &mut |step| progress.step(step))?;
        progress.finish();
        for field in &made.truncated {
            note(format_args!(
                "note: the {field} is longer than the text encoders read; its end has no effect"
            ));
        }

        let paths = self.write(pipeline.artifacts(), &request, &mut made)?;
        let gain = match uncached {
            Some(uncached) => {
                let path = with_suffix(&self.output, "-compare");
                Some(compare::gain(&pipeline, &request, &uncached, &made, path)?)
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
            paths: &paths,
            gain,
            start_seconds,
            peak_memory: peak_memory(),
        };
        if self.json {
            say(format_args!("{:#}", report.json(&pipeline)))?;
        } else {
            say(report.text())?;
        }
        Ok(())
    }

    /// Makes the request that the flags and the image of `--from` ask.
    fn resolve(&self, artifacts: &Artifacts, from: Option<&Parameters>) -> Result<CheckedRequest> {
        if let Some(from) = from.filter(|from| from.manifest_sha256 != artifacts.hash) {
            note(format_args!(
                "note: the image of --from was drawn with another export, of {}",
                from.model
            ));
        }
        let prompt = self.prompt.as_deref().or(from.map(|from| from.request.prompt.as_str()));
        let prompt = prompt.unwrap_or_default();
        let request = self.request.request(artifacts, prompt, self.negative.as_deref(), from)?;
        if self.compare && request.cache_policy.is_off() {
            bail!("--compare needs a cache to compare: add --use-cache or --cache-policy");
        }
        Ok(request.check(artifacts)?)
    }

    /// Writes a file for each image; gives their paths.
    fn write(
        &self,
        artifacts: &Artifacts,
        request: &Request,
        made: &mut Generated,
    ) -> Result<Vec<PathBuf>> {
        let Generated { images, timings, .. } = made;
        let mut paths = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let path = if images.len() == 1 {
                self.output.clone()
            } else {
                with_suffix(&self.output, &format!("-{i}"))
            };
            let texts = self.texts(artifacts, request, i);
            let start = Instant::now();
            write_png(&path, image, &texts)?;
            timings.add(Stage::Png, start.elapsed());
            paths.push(path);
        }
        Ok(paths)
    }

    fn texts(&self, artifacts: &Artifacts, request: &Request, index: usize) -> Texts {
        if self.no_metadata {
            Texts::new()
        } else {
            request.parameters(artifacts, index).to_texts()
        }
    }
}

/// Puts `suffix` before the extension: `cat.png` becomes `cat-0.png`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or("png".into(), |e| e.to_string_lossy());
    path.with_file_name(format!("{stem}{suffix}.{extension}"))
}
