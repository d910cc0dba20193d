//! `schedule:<file>` or `schedule:<file>#<runs>`: explicit refresh steps, and how the core's output
//! is forecast between them. `hydit-serve calibrate` writes such files; [`Schedules`] is their
//! form.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use hydit_graphs::parse_yaml;
use hydit_input::file;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::parse::number;
use super::{Correction, Decision, Forecast, PolicyInput, corrections};
use crate::control::Control;
use crate::error::Error;
use crate::files::write_whole;
use crate::image_prompt::ImagePrompt;
use crate::lora::LoraChoice;
use crate::sampler::{SamplerKind, Spacing};

/// The largest file of schedules that is read; one of 50 steps has some 10 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// Schedules for one model, sampler and number of steps. A field that is given must fit the input.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedules {
    /// Hash of the manifest of the export they were made on.
    pub manifest_sha256: Option<String>,
    /// The sampler.
    pub sampler: Option<SamplerKind>,
    /// Its timestep spacing.
    pub spacing: Option<Spacing>,
    /// Steps of a input.
    pub steps: usize,
    /// The guidance scale they were made with: with more, `auto:<quality>` does not hold.
    pub guidance_scale: Option<f32>,
    /// The scale of perturbed-attention guidance of the pictures that they were found and measured
    /// on.
    #[serde(default)]
    pub pag_scale: f32,
    /// How much less that is for each timestep below 1000.
    #[serde(default)]
    pub pag_adaptive_scale: f32,
    /// The LoRAs of the pictures that they were found and measured on.
    #[serde(default)]
    pub loras: Vec<LoraChoice>,
    /// The ControlNets of these pictures.
    #[serde(default)]
    pub controls: Vec<Control>,
    /// The image prompt of these pictures.
    pub image_prompt: Option<ImagePrompt>,
    /// SHA-256 of the file of corrections beside them, hexadecimal, if they have any.
    pub corrections_sha256: Option<String>,
    /// What they were made with, for people.
    #[serde(default)]
    pub made_with: BTreeMap<String, String>,
    /// Each with another number of core runs.
    pub schedules: Vec<Schedule>,
}

/// The steps that run the core, and what the decoder gets at each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Counted from 0, which is one of them, ascending.
    pub refresh: Vec<usize>,
    /// Weights of the last outputs of the core, the latest first, at steps that use more than the
    /// latest; at a refresh that is the new one.
    #[serde(default)]
    pub forecast: BTreeMap<usize, Vec<f32>>,
    /// Corrections of what stands in for the core's output, by step.
    #[serde(default)]
    pub corrections: BTreeMap<usize, Correction>,
    /// How near its pictures are to the uncached ones.
    pub measured: Option<Measured>,
}

/// Pictures of a schedule beside the uncached ones of the same prompts and seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Mean PSNR in dB, over the pictures that differ; 99 when none does.
    pub psnr: f64,
    /// The PSNR that nine of ten pictures reach, 99 at most.
    pub psnr_p10: f64,
    /// Mean SSIM.
    pub ssim: f64,
    /// Mean relative error of the latents.
    pub latent_error: f64,
}

impl Measured {
    /// The higher the better.
    pub fn quality(&self) -> f64 {
        self.psnr + self.psnr_p10
    }
}

impl Schedules {
    /// Reads `path` and checks that it fits `input`.
    ///
    /// # Errors
    /// The message of a [`PolicyError`](super::PolicyError), if the file cannot be read or was made
    /// for something else.
    pub fn read(path: &Path, input: &PolicyInput<'_>) -> Result<Schedules, String> {
        let refuse = |message: String| format!("{}: {message}", path.display());
        let text = file::read_text(path, MAX_BYTES).map_err(|error| refuse(error.to_string()))?;
        let mut found: Schedules = parse_yaml(&text).map_err(|error| refuse(error.to_string()))?;
        let differ = |what: &str, made: &dyn fmt::Display, now: &dyn fmt::Display| {
            Err(refuse(format!(
                "made for {what} {made}, not {now}: make one that fits with hydit-serve calibrate, or name \
                 another cache policy"
            )))
        };
        match &found {
            Schedules { steps, .. } if *steps != input.steps() => {
                return differ("steps", steps, &input.steps());
            }
            Schedules { sampler: Some(made), .. } if *made != input.sampler => {
                return differ("the sampler", made, &input.sampler);
            }
            Schedules { spacing: Some(made), .. } if *made != input.spacing => {
                return differ("the spacing", made, &input.spacing);
            }
            Schedules { manifest_sha256: Some(made), .. } if made != input.manifest_sha256 => {
                return differ("the export with the manifest hash", made, &input.manifest_sha256);
            }
            _ => {}
        }
        if let Some(sha256) = &found.corrections_sha256 {
            if found.manifest_sha256.is_none() {
                return Err(refuse("corrections_sha256: nothing without manifest_sha256".into()));
            }
            let file = corrections::corrections_file(path);
            corrections::read(&file, sha256, &mut found.schedules)?;
        }
        for (i, schedule) in found.schedules.iter().enumerate() {
            let refuse = |e: String| refuse(format!("schedules[{i}]: {e}"));
            schedule.check(found.steps).map_err(refuse)?;
            let runs = schedule.refresh.len();
            if found.schedules[..i].iter().any(|other| other.refresh.len() == runs) {
                return Err(refuse(format!(
                    "refresh: another schedule has {runs} core runs already"
                )));
            }
        }
        Ok(found)
    }

    /// Writes them to `path`, and their corrections, if they have any, to the file beside it: first,
    /// so that what is found at `path` is whole.
    ///
    /// # Errors
    /// When one cannot be written; the error names it.
    pub fn write(&mut self, path: &Path) -> Result<(), Error> {
        let bytes = corrections::encode(&self.schedules);
        self.corrections_sha256 = bytes.as_deref().map(corrections::hash);
        let file = corrections::corrections_file(path);
        let write = |path: &Path, bytes: &[u8]| {
            write_whole(path, bytes).map_err(|source| Error::Write { path: path.into(), source })
        };
        bytes.iter().try_for_each(|bytes| write(&file, bytes))?;
        write(path, self.to_yaml().as_bytes())?;
        if bytes.is_none() {
            let _ = std::fs::remove_file(file); // of a calibration that was here before
        }
        Ok(())
    }

    /// The text of a file: a line each for the refreshes, the forecasts and the figures of a
    /// schedule.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from("# Cache schedules, made by hydit-serve calibrate.\n");
        let mut field = |name: &str, value: Option<String>| {
            value.into_iter().for_each(|value| out += &format!("{name}: {value}\n"));
        };
        field("manifest_sha256", self.manifest_sha256.clone());
        field("sampler", self.sampler.map(|sampler| sampler.to_string()));
        field("spacing", self.spacing.map(|spacing| spacing.to_string()));
        field("steps", Some(self.steps.to_string()));
        field("guidance_scale", self.guidance_scale.map(|scale| scale.to_string()));
        for (name, scale) in
            [("pag_scale", self.pag_scale), ("pag_adaptive_scale", self.pag_adaptive_scale)]
        {
            field(name, (scale > 0.0).then(|| scale.to_string()));
        }
        field("loras", Some(&self.loras).filter(|loras| !loras.is_empty()).map(text));
        field("controls", Some(&self.controls).filter(|nets| !nets.is_empty()).map(text));
        field("image_prompt", self.image_prompt.as_ref().map(text));
        field("corrections_sha256", self.corrections_sha256.clone());
        let line = |(name, value): (&String, &String)| format!("  {name}: {}\n", json!(value));
        out += "made_with:\n";
        out.extend(self.made_with.iter().map(line));
        out += "schedules:\n";
        for Schedule { refresh, forecast, measured, corrections: _ } in &self.schedules {
            out += &format!("- refresh: {refresh:?}\n");
            if !forecast.is_empty() {
                out += &format!("  forecast: {forecast:?}\n");
            }
            if let Some(Measured { psnr, psnr_p10, ssim, latent_error }) = measured {
                out += &format!(
                    "  measured: {{psnr: {psnr:.2}, psnr_p10: {psnr_p10:.2}, ssim: {ssim:.4}, \
                     latent_error: {latent_error:.5}}}\n"
                );
            }
        }
        out
    }
}

impl Schedule {
    /// The decisions at each of `steps`.
    pub fn plan(&self, steps: usize) -> Vec<Decision> {
        self.late(steps, 0)
    }

    /// The decisions of a run that leaves out the first `skipped` of `steps`.
    ///
    /// Its first step refreshes, so that at every later one the core's latest output is as late as in
    /// the whole run, or later. What is made of an output before the first step is that latest output
    /// as it is; so is what is corrected by what the encoder saw before the first step.
    pub fn late(&self, steps: usize, skipped: usize) -> Vec<Decision> {
        let decide = |step: usize| {
            let (refreshes, kept) = match self.refresh.binary_search(&step) {
                Ok(before) => (true, &self.refresh[..=before]),
                Err(before) => (step == skipped, &self.refresh[..before]),
            };
            let weights = self.forecast.get(&step).map_or(&[1.0][..], Vec::as_slice);
            let forecast = Forecast::new(weights).unwrap_or(Forecast::LAST);
            let forecast = forecast.corrected(self.corrections.get(&step).cloned());
            let oldest = kept.iter().rev().nth(forecast.weights().len() - 1);
            let whole = oldest.is_some_and(|&at| at >= skipped);
            let forecast = if whole { forecast } else { Forecast::LAST };
            if refreshes { Decision::Refresh(forecast) } else { Decision::Reuse(forecast) }
        };
        (skipped..steps).map(decide).collect()
    }

    /// Checks that it is for runs of `steps` steps.
    pub(crate) fn check(&self, steps: usize) -> Result<(), String> {
        let Schedule { refresh, forecast, .. } = self;
        if refresh.first() != Some(&0) {
            return Err("refresh: the first step, 0, must be one of them".into());
        }
        if !refresh.is_sorted_by(|a, b| a < b) || refresh.iter().any(|&step| step >= steps) {
            return Err(format!("refresh: expected ascending steps below {steps}"));
        }
        let reuses = |step: &usize| *step < steps && !refresh.contains(step);
        if let Some(step) = self.corrections.keys().find(|step| !reuses(step)) {
            return Err(format!("corrections: step {step} is not one that reuses"));
        }
        for (step, weights) in forecast {
            let kept = refresh.iter().filter(|refresh| *refresh <= step).count();
            if *step >= steps {
                return Err(format!("forecast: step {step} is not below {steps}"));
            }
            if Forecast::new(weights).is_none() || weights.len() > kept {
                return Err(format!(
                    "forecast: step {step} has {weights:?}; expected 1 to {} weights that sum to 1",
                    kept.min(super::KEPT)
                ));
            }
        }
        Ok(())
    }
}

/// A schedule of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FromFile {
    path: PathBuf,
    /// The number of core runs of the schedule to take, where the file has several.
    refreshes: Option<usize>,
}

impl FromFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `schedule:FILE` or `schedule:FILE#8`.
    pub fn parse(text: &str) -> Option<FromFile> {
        let text = text.strip_prefix("schedule:").filter(|path| !path.is_empty())?;
        let numbered =
            text.rsplit_once('#').and_then(|(path, runs)| Some((path, number(runs)? as usize)));
        let (path, refreshes) = numbered.map_or((text, None), |(path, n)| (path, Some(n)));
        Some(FromFile { path: path.into(), refreshes })
    }

    /// The same with the file's name alone.
    pub fn without_folder(&self) -> FromFile {
        let path = self.path.file_name().map_or_else(|| self.path.clone(), PathBuf::from);
        FromFile { path, refreshes: self.refreshes }
    }

    pub fn plan(&self, input: &PolicyInput<'_>) -> Result<Vec<Decision>, String> {
        let found = Schedules::read(&self.path, input)?;
        let mut fitting = found
            .schedules
            .iter()
            .filter(|schedule| self.refreshes.is_none_or(|runs| schedule.refresh.len() == runs));
        if let (Some(schedule), None) = (fitting.next(), fitting.next()) {
            return Ok(schedule.late(found.steps, input.skipped));
        }
        let runs: Vec<String> =
            found.schedules.iter().map(|schedule| schedule.refresh.len().to_string()).collect();
        let runs = runs.join(", ");
        Err(match self.refreshes {
            Some(asked) => format!("it has no schedule with {asked} core runs, but with: {runs}"),
            None if runs.is_empty() => "it has no schedule".to_string(),
            None => {
                format!("it has several schedules: name one by its core runs, #<n> with n = {runs}")
            }
        })
    }
}

impl fmt::Display for FromFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schedule:{}", self.path.display())?;
        self.refreshes.map_or(Ok(()), |runs| write!(f, "#{runs}"))
    }
}

/// `value` as JSON, which is YAML too: as text, in which numbers have as many digits as they need.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and numbers are valid JSON")
}
