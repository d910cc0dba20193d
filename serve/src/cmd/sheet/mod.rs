//! `hydit-serve sheet`: cache policies judged over prompts and seeds, to look at and as figures.

mod csv;
mod figures;
mod font;
mod judge;
mod labels;
mod layout;
mod page;
mod plot;
mod raster;
mod svg;
mod table;

use std::ffi::OsStr;
use std::iter;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::eval::{Contender, Trial};
use hydit::image::encode_png;
use hydit_graphs::Manifest;
use hydit_terminal::note;

use self::judge::{Sample, Shown};
use self::layout::layout;
use self::page::page;
use self::plot::plot;
use self::raster::{Rendered, render};
use self::svg::Svg;
use super::calibrated::tell_differences;
use super::files::{Output, tell};
use super::flags::{EngineFlags, ImageFlags};
use super::nets::NetFlags;
use super::prompts;

#[derive(Args)]
pub struct Sheet {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text file of prompts, one a line; empty lines and those that begin with # are skipped.
    #[arg(long, value_name = "FILE", required_unless_present = "prompt")]
    prompts: Option<PathBuf>,
    /// What to draw, Chinese or English; may come several times.
    #[arg(long, conflicts_with = "prompts", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// What not to draw.
    #[arg(long, visible_alias = "negative-prompt", allow_hyphen_values = true)]
    negative: Option<String>,
    /// Cache policies, as for generate, with commas between or the flag several times.
    #[arg(
        long,
        value_name = "POLICY",
        value_delimiter = ',',
        required_unless_present = "fewer_steps"
    )]
    policy: Vec<CachePolicy>,
    /// Step counts: the same images without a cache, in fewer steps.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    fewer_steps: Vec<usize>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    nets: NetFlags,
    /// Prompts on the sheet, the first ones, with their first seed.
    #[arg(long, value_name = "N", default_value = "6")]
    show: NonZeroUsize,
    /// The sheet, as a page with plot and figures (.html), or its images alone (.png, .svg). As for
    /// the other files, - is standard output; it gets a PNG.
    #[arg(short, long, value_name = "FILE", default_value = "sheet.png")]
    output: PathBuf,
    /// Plot PSNR over speed-up, as .svg or .png.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the figures of every image.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print the means as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineFlags,
}

/// What was judged.
struct Report {
    /// The name of the model's variant, the LoRAs, the ControlNets and the image prompt.
    model: String,
    /// What is asked with each prompt.
    request: Request,
    prompts: Vec<String>,
    contenders: Vec<Contender>,
    /// The samples of all images: by prompt, then contender, then seed.
    samples: Vec<Sample>,
    /// The rows of the sheet, one at least.
    shown: Vec<Shown>,
}

impl Report {
    /// Counts the images that each contender drew.
    fn images(&self) -> usize {
        self.prompts.len() * self.request.num_images
    }

    /// Says over what the means are: "20 prompts, 2 seeds each".
    fn extent(&self) -> String {
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (prompts, seeds) = (self.prompts.len(), self.request.num_images);
        let each = if prompts == 1 || seeds == 1 { "" } else { " each" };
        format!("{}, {}{each}", many(prompts, "prompt"), many(seeds, "seed"))
    }
}

/// The files to write, and their formats.
struct Files {
    sheet: (Output, Format),
    plot: Option<(Output, Format)>,
    csv: Option<Output>,
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Output> {
        let plot = self.plot.as_ref().map(|(output, _)| output);
        iter::once(&self.sheet.0).chain(plot).chain(&self.csv)
    }
}

impl Sheet {
    pub fn run(self) -> Result<()> {
        let files = self.files()?;
        let prompts = match &self.prompts {
            Some(path) => prompts::read(path)?,
            None => self.prompt.clone(),
        };
        let artifacts = Artifacts::open(&self.model)?;
        let artifacts = artifacts.with_loras(self.nets.lora_dir())?;
        let manifest = &artifacts.manifest;
        let mut request = Request::new(manifest, manifest.model.prompt_or_class("a cat"))?;
        self.image.set(&mut request, &artifacts.manifest, self.negative.as_deref())?;
        self.nets.set(&mut request, &artifacts.manifest)?;
        let contenders = self.contenders(&request, manifest)?;
        let trial = check_requests(&artifacts, &request, &prompts, &contenders)?;

        let mut pipeline = self.engine.load(artifacts)?;
        let (samples, shown) =
            judge::judge(&mut pipeline, &request, &prompts, &trial, self.show.get())?;
        let mut model = pipeline.manifest().variant.name.clone();
        model.extend(request.loras.iter().map(|lora| format!(" + {lora}")));
        model.extend(request.controls.iter().map(|net| format!(" + ControlNet {net}")));
        let prompt = request.image_prompt.iter();
        model.extend(prompt.map(|prompt| format!(" + image prompt:{}", prompt.weight)));
        let report = Report { model, request, prompts, contenders, samples, shown };
        write(&files, &report)?;
        let means =
            if self.json { format!("{:#}", table::json(&report)) } else { table::text(&report) };
        Ok(tell(files.all(), means)?)
    }

    fn files(&self) -> Result<Files> {
        let drawn = |flag, path: &Path, possible: &[Format]| {
            let output = Output::new(flag, path)?;
            let format = Format::of(flag, &output, possible)?;
            let output = if format == Format::Png { output.refuse_terminal()? } else { output };
            Ok::<_, Error>((output, format))
        };
        let plot = self.plot.as_ref().map(|path| drawn("--plot", path, &Format::PLOT));
        let files = Files {
            sheet: drawn("--output", &self.output, &Format::SHEET)?,
            plot: plot.transpose()?,
            csv: self.csv.as_ref().map(|path| Output::new("--csv", path)).transpose()?,
        };
        for (i, file) in files.all().enumerate() {
            if let Some(other) = files.all().skip(i + 1).find(|other| other.is_same(file)) {
                bail!("{} and {} name the same file, {file}", file.flag(), other.flag());
            }
        }
        Ok(files)
    }

    fn contenders(&self, request: &Request, manifest: &Manifest) -> Result<Vec<Contender>> {
        let steps = request.steps;
        if let Some(more) = self.fewer_steps.iter().find(|&&fewer| fewer >= steps) {
            bail!("--fewer-steps: {more} steps are not fewer than the {steps} of --infer-steps");
        }
        if self.fewer_steps.contains(&0) {
            bail!("--fewer-steps: {} draws nothing; name 1 step or more", Contender::Steps(0));
        }
        let policies = self.policy.iter().map(|policy| policy.settled(&manifest.variant.cache));
        let policies = policies.map(Contender::Policy);
        Ok(policies.chain(self.fewer_steps.iter().copied().map(Contender::Steps)).collect())
    }
}

fn write(files: &Files, report: &Report) -> Result<()> {
    let sheet = layout(report, None)?;
    let (output, format) = &files.sheet;
    let bytes = match format {
        Format::Html => page(report, &sheet)?.into_bytes(),
        format => drawn(&sheet, *format, pixels_per_unit(report), output)?,
    };
    write_one(output, &bytes)?;
    if let Some((output, format)) = &files.plot {
        let plot = plot(report, plot::SIZE);
        write_one(output, &drawn(&plot, *format, plot::SCALE, output)?)?;
    }
    if let Some(output) = &files.csv {
        write_one(output, csv::csv(report).as_bytes())?;
    }
    Ok(())
}

fn write_one(output: &Output, bytes: &[u8]) -> Result<()> {
    output.write(bytes)?;
    note(format_args!("wrote {output}"));
    Ok(())
}

/// Makes the bytes of a file with `svg`: as it is, or as PNG with `scale` pixels for each unit.
fn drawn(svg: &Svg, format: Format, scale: f32, output: &Output) -> Result<Vec<u8>> {
    if format != Format::Png {
        return Ok(svg.document().into_bytes());
    }
    let Rendered { image, boxes } =
        render(&svg.document(), scale).with_context(|| output.to_string())?;
    if !boxes.is_empty() {
        let boxes: Vec<String> = boxes.into_iter().map(String::from).collect();
        note(format_args!(
            "note: {output} has boxes for {}, which no font of this machine has: install one that \
             does, or write .html or .svg",
            boxes.join(" ")
        ));
    }
    Ok(encode_png(&image, &[])?)
}

/// Small images are enlarged to 256 pixels on the PNG of a sheet, large ones keep up to 512.
fn pixels_per_unit(report: &Report) -> f32 {
    report.shown[0].uncached.width.clamp(256, 512) as f32 / layout::CELL
}

/// A format of sheets and plots. The ending of a file's name chooses it.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Html,
    Png,
    Svg,
}

impl Format {
    const SHEET: [Format; 3] = [Format::Html, Format::Png, Format::Svg];
    const PLOT: [Format; 2] = [Format::Svg, Format::Png];

    /// Finds the one of `possible` formats that the ending of `output` names, which `flag` gave. A
    /// pipe or device without an ending gets a PNG.
    fn of(flag: &str, output: &Output, possible: &[Format]) -> Result<Format> {
        let ending = output.path().extension().map(OsStr::to_ascii_lowercase);
        if ending.is_none() && !output.is_file() {
            return Ok(Format::Png);
        }
        let ending = ending.unwrap_or_default();
        let format = possible.iter().find(|format| ending == format.ending());
        format.copied().with_context(|| {
            let endings: Vec<String> =
                possible.iter().map(|format| format!(".{}", format.ending())).collect();
            format!("{flag}: {output} must end in {}", endings.join(" or "))
        })
    }

    fn ending(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Png => "png",
            Format::Svg => "svg",
        }
    }
}

/// Checks before any work that every image can be drawn.
fn check_requests(
    artifacts: &Artifacts,
    request: &Request,
    prompts: &[String],
    contenders: &[Contender],
) -> Result<Trial> {
    for contender in contenders {
        if let Contender::Policy(policy) = contender {
            let request = Request { cache_policy: policy.clone(), ..request.clone() };
            tell_differences(&request.check(artifacts)?, artifacts)?;
        }
    }
    let request = request.check(artifacts)?;
    let trial = Trial::new(artifacts, &request, contenders)?;
    prompts::check(prompts, "prompt", &request)?;
    Ok(trial)
}
