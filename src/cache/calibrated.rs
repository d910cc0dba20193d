//! `auto:<quality>dB`: the fewest core runs that keep a quality, from the calibration beside the manifest;
//! `auto:<n>runs`: the best schedule with at most n core runs.

use std::fmt;
use std::path::{Path, PathBuf};

use super::schedule::refuse;
use super::{Decision, Plan, PolicyError, Rule, Run, Schedule, Schedules};
use crate::sampler::SamplerKind;

/// How many dB below the wanted mean one picture in ten may be.
const TAIL: f64 = 3.0;

#[derive(Clone, Copy, Debug)]
pub(super) enum Auto {
    /// Mean PSNR in dB.
    Quality(f64),
    /// Core runs at most.
    Runs(usize),
}

/// A quality at which differences are hard to see.
pub(super) const USUAL: Auto = Auto::Quality(35.0);

/// `auto:35dB` or `auto:8runs`.
pub(super) fn parse(text: &str) -> Option<Auto> {
    let text = text.strip_prefix("auto:")?;
    if let Some(runs) = text.strip_suffix("runs") {
        return runs.parse().ok().filter(|&runs| runs > 0).map(Auto::Runs);
    }
    let quality = text.strip_suffix("dB")?.parse().ok();
    quality.filter(|db: &f64| db.is_finite() && *db > 0.0).map(Auto::Quality)
}

/// Where the calibration of a sampler and a number of steps lies in an artifact folder.
pub fn calibration_file(folder: &Path, sampler: SamplerKind, steps: usize) -> PathBuf {
    folder.join(format!("calibration-{sampler}-{steps}.yaml"))
}

impl Auto {
    fn choose<'a>(&self, schedules: &'a [Schedule]) -> Option<&'a Schedule> {
        let runs = |schedule: &&Schedule| schedule.refresh.len();
        match *self {
            Auto::Runs(most) => schedules.iter().filter(|s| runs(s) <= most).max_by_key(runs),
            Auto::Quality(wanted) => {
                let keeps = |schedule: &&Schedule| {
                    schedule
                        .measured
                        .is_some_and(|m| m.psnr >= wanted && m.psnr_p10 >= wanted - TAIL)
                };
                schedules.iter().filter(keeps).min_by_key(runs)
            }
        }
    }
}

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auto::Quality(db) => write!(f, "auto:{db}dB"),
            Auto::Runs(runs) => write!(f, "auto:{runs}runs"),
        }
    }
}

impl Rule for Auto {
    /// A quality above that of every schedule is kept by running the core at every step.
    fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError> {
        let Run { folder, sampler, .. } = *run;
        let steps = run.timesteps.len();
        let path = calibration_file(folder, sampler, steps);
        if !path.exists() {
            return Err(refuse(format!(
                "no calibration for {sampler} with {steps} steps: make one with hydit-serve \
                 calibrate --model {} --sampler {sampler} --infer-steps {steps}",
                folder.display()
            )));
        }
        let found = Schedules::read(&path, run)?;
        match (self.choose(&found.schedules), self) {
            (Some(schedule), _) => Ok(Plan::Planned(schedule.plan(steps))),
            (None, Auto::Quality(_)) => Ok(Plan::Planned(vec![Decision::Refresh; steps])),
            (None, Auto::Runs(_)) => {
                let fewest = found.schedules.iter().map(|s| s.refresh.len()).min().unwrap_or(steps);
                Err(refuse(format!("{} has {fewest} core runs at least", path.display())))
            }
        }
    }
}
