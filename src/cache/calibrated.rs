//! `auto:<quality>dB`: the fewest refreshes that keep a quality, from the calibration beside the
//! manifest; `auto:<n>runs`: the best schedule with at most n refreshes.

use std::fmt;
use std::path::{Path, PathBuf};

use super::parse::number;
use super::{Decision, Measured, PolicyInput, Schedule, Schedules};
use crate::sampler::{SamplerKind, Spacing};

/// How many dB below the wanted mean one picture in ten of those measured may be: they are few, and of
/// others one in ten was found up to a dB lower.
const TAIL: f64 = 2.0;

/// What is asked of a calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Auto {
    /// Mean PSNR in dB.
    Quality(f64),
    /// Refreshes at most.
    Refreshes(usize),
}

/// A quality at which differences are hard to see.
pub(super) const USUAL: Auto = Auto::Quality(35.0);

/// Where the calibration of a sampler with a spacing and a number of steps lies in the artifact
/// folder `folder`.
pub fn calibration_file(
    folder: &Path,
    sampler: SamplerKind,
    spacing: Spacing,
    steps: usize,
) -> PathBuf {
    folder.join(format!("calibration-{sampler}-{spacing}-{steps}.yaml"))
}

impl Schedules {
    /// The schedule that `auto:<quality>dB` takes, if one has been measured that good.
    pub fn for_quality(&self, quality: f64) -> Option<&Schedule> {
        Auto::Quality(quality).choose(&self.schedules)
    }
}

impl Auto {
    /// `auto:35dB` or `auto:8runs`.
    pub fn parse(text: &str) -> Option<Auto> {
        let text = text.strip_prefix("auto:")?;
        if let Some(runs) = text.strip_suffix("runs") {
            return number(runs)
                .filter(|&runs| runs > 0)
                .map(|runs| Auto::Refreshes(runs as usize));
        }
        let quality = text.strip_suffix("dB")?.parse().ok();
        quality.filter(|db: &f64| db.is_finite() && *db > 0.0).map(Auto::Quality)
    }

    /// A quality is not promised for more guidance than was calibrated with, since guidance
    /// multiplies what a cache gets wrong; nor for a run that begins late, from an image that may be
    /// far from anything that was calibrated with.
    pub fn plan(&self, input: &PolicyInput<'_>) -> Result<Vec<Decision>, String> {
        let PolicyInput { folder, sampler, spacing, guidance_scale, .. } = *input;
        let steps = input.steps();
        if matches!(self, Auto::Quality(_)) && input.skipped > 0 {
            return Err(format!(
                "a quality is measured on whole runs, and nothing is known of one from an image: name the \
                 core runs of the whole, as in auto:{}runs, or take another policy, such as N2",
                steps.div_ceil(2)
            ));
        }
        let path = calibration_file(folder, sampler, spacing, steps);
        if !path.exists() {
            return Err(format!(
                "no calibration for {sampler} with {spacing} spacing and {steps} steps: make one with \
                 hydit-serve calibrate --model {} --prompts FILE --sampler {sampler} --spacing {spacing} \
                 --infer-steps {steps}",
                folder.display()
            ));
        }
        let found = Schedules::read(&path, input)?;
        let refuse = |message: String| format!("{}: {message}", path.display());
        match (self, found.guidance_scale) {
            (Auto::Quality(_), Some(made)) if guidance_scale > made => {
                return Err(refuse(format!(
                    "made with guidance {made}, and guidance {guidance_scale} multiplies what a cache gets \
                     wrong: calibrate with --cfg-scale {guidance_scale}, or name the core runs, as in \
                     auto:{steps}runs"
                )));
            }
            _ => {}
        }
        let chosen = self.choose(&found.schedules);
        let schedule = chosen.ok_or_else(|| refuse(self.why_none(&found.schedules)))?;
        Ok(schedule.late(steps, input.skipped))
    }

    fn choose<'a>(&self, schedules: &'a [Schedule]) -> Option<&'a Schedule> {
        let refreshes = |schedule: &Schedule| schedule.refresh.len();
        match *self {
            Auto::Refreshes(most) => {
                let quality = |schedule: &Schedule| schedule.measured.map_or(0.0, |m| m.quality());
                schedules.iter().filter(|schedule| refreshes(schedule) <= most).max_by(|a, b| {
                    quality(a).total_cmp(&quality(b)).then_with(|| refreshes(a).cmp(&refreshes(b)))
                })
            }
            Auto::Quality(wanted) => {
                let keeps = |m: Measured| m.psnr >= wanted && m.psnr_p10 >= wanted - TAIL;
                let keep = schedules.iter().filter(|schedule| schedule.measured.is_some_and(keeps));
                keep.min_by_key(|schedule| refreshes(schedule))
            }
        }
    }

    /// Why none of `schedules` was chosen, and what to do.
    fn why_none(&self, schedules: &[Schedule]) -> String {
        match self {
            Auto::Refreshes(_) => {
                let fewest = schedules.iter().map(|schedule| schedule.refresh.len()).min();
                fewest.map_or("no schedule in it".to_string(), |fewest| {
                    format!(
                        "the fewest core runs it has a schedule for are {fewest}: take auto:{fewest}runs, or \
                         calibrate with --runs"
                    )
                })
            }
            Auto::Quality(_) => {
                let measured = schedules.iter().filter_map(|schedule| schedule.measured);
                let best = measured.max_by(|a, b| a.quality().total_cmp(&b.quality()));
                best.map_or("no measured schedule in it".to_string(), |best| {
                    format!(
                        "the best schedule has {:.1} dB, and {:.1} dB for nine pictures in ten: ask for less, \
                         calibrate with more --runs, or use off",
                        best.psnr, best.psnr_p10
                    )
                })
            }
        }
    }
}

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auto::Quality(db) => write!(f, "auto:{db}dB"),
            Auto::Refreshes(runs) => write!(f, "auto:{runs}runs"),
        }
    }
}
