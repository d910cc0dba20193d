//! Cache policies: at which steps the deep core runs, and what stands in for its output at the others.
//!
//! A [`CachePolicy`] is a value; its text form is what `--cache-policy` takes. From a request's timesteps it makes a
//! [`Plan`]: decided before the first step, or step by step from how far the shallow encoder's output has moved. No
//! tensors, no clock, no randomness; nothing outlives the request. A policy is one file that implements [`Rule`] and
//! one line of `SYNTAX`.

mod calibrated;
mod forecast;
mod interval;
mod off;
mod probe;
mod schedule;
mod taylor;

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sampler::{SamplerKind, Spacing};

pub use calibrated::calibration_file;
pub use forecast::{Forecast, KEPT};
pub use interval::{CLOSE, GAP, START};
pub use schedule::{Measured, Schedule, Schedules};

/// What to do with the deep core at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Run the core and keep its output.
    Refresh,
    /// Do not run it: the decoder gets a forecast made of kept outputs.
    Reuse(Forecast),
}

/// The text of a policy, and what reads it.
type Syntax = (&'static str, fn(&str) -> Option<Arc<dyn Rule>>);

/// Every policy, a line each.
const SYNTAX: [Syntax; 5] = [
    ("off", |text| arc(off::parse(text)?)),
    ("N<gap> or N<gap>-<start>-<close>, such as N3-700-50", |text| arc(interval::parse(text)?)),
    ("schedule:<file>, a file of hydit-serve calibrate", |text| arc(schedule::parse(text)?)),
    ("probe:<threshold>, such as probe:0.3", |text| arc(probe::parse(text)?)),
    ("auto:<quality>dB or auto:<n>runs, such as auto:35dB", |text| arc(calibrated::parse(text)?)),
];

fn arc(rule: impl Rule + 'static) -> Option<Arc<dyn Rule>> {
    Some(Arc::new(rule))
}

/// A rule that decides which steps refresh.
#[derive(Clone, Debug)]
pub struct CachePolicy(Arc<dyn Rule>);

/// What a policy does. Its [`Display`](fmt::Display) is its text form.
pub trait Rule: fmt::Debug + fmt::Display + Send + Sync {
    /// What to do in `run`.
    ///
    /// # Errors
    /// When a file that the policy names does not fit the run.
    fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError>;

    /// Whether every step refreshes, by definition.
    fn is_off(&self) -> bool {
        false
    }

    /// Whether its plans are [`Plan::Reactive`].
    fn is_reactive(&self) -> bool {
        false
    }
}

/// All that a policy may know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The timesteps visited, descending.
    pub timesteps: &'a [u32],
    /// Who visits them.
    pub sampler: SamplerKind,
    /// How they were chosen.
    pub spacing: Spacing,
    /// How far the prediction is drawn away from the negative prompt.
    pub guidance_scale: f32,
    /// The artifact folder, where calibrations lie.
    pub folder: &'a Path,
    /// Hash of its manifest.
    pub manifest_sha256: &'a str,
}

/// The decisions of one request.
pub enum Plan {
    /// Known before the first step; the first is a refresh.
    Planned(Vec<Decision>),
    /// Made step by step.
    Reactive(Box<dyn Watch>),
}

/// Decides step by step. Made for one request.
pub trait Watch: Send {
    /// The decision for `step`, asked in order from 0, where it must be a refresh. `change` is how far the shallow
    /// encoder's output is from that of the step before, relative to it; 0 at step 0.
    fn decide(&mut self, step: usize, change: f32) -> Decision;

    /// How many outputs of the core its forecasts need at most.
    fn keeps(&self) -> usize;
}

/// Why a policy cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("cache policy {policy}: {message}")]
pub struct PolicyError {
    /// The policy's text.
    pub policy: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// A policy's text is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cache policy {0:?} is not understood: it must be {choices}", choices = choices())]
pub struct ParsePolicyError(pub String);

fn choices() -> String {
    let choices: Vec<&str> = SYNTAX.iter().map(|(text, _)| *text).collect();
    format!("{}; all but off may end in +taylor1 or +taylor2", choices.join("; "))
}

impl CachePolicy {
    /// Every step refreshes.
    pub fn off() -> CachePolicy {
        CachePolicy(Arc::new(off::Off))
    }

    /// Skip-Cache's fixed rule: every `gap`-th step refreshes, all from timestep `start` up, and those after one at
    /// `close` or below.
    pub fn interval(gap: NonZeroU32, start: u32, close: u32) -> CachePolicy {
        CachePolicy(Arc::new(interval::Interval { gap, start, close }))
    }

    /// What a cache is with nothing more said: `auto:35dB` if the model in `folder` was calibrated
    /// for `sampler`, `spacing` and `steps`, else the reference's default, `N2-700-50`.
    pub fn usual(
        folder: &Path,
        sampler: SamplerKind,
        spacing: Spacing,
        steps: usize,
    ) -> CachePolicy {
        match calibration_file(folder, sampler, spacing, steps).exists() {
            true => CachePolicy(Arc::new(calibrated::USUAL)),
            false => CachePolicy::interval(GAP, START, CLOSE),
        }
    }

    /// Whether it is [`off`](CachePolicy::off).
    pub fn is_off(&self) -> bool {
        self.0.is_off()
    }

    /// Whether it decides step by step.
    pub fn is_reactive(&self) -> bool {
        self.0.is_reactive()
    }

    /// What to do in `run`.
    ///
    /// # Errors
    /// When a file that the policy names does not fit the run.
    pub fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError> {
        self.0.plan(run).map_err(|error| PolicyError { policy: self.to_string(), ..error })
    }
}

impl Plan {
    /// The decisions, where they are known before the first step.
    pub fn planned(&self) -> Option<&[Decision]> {
        match self {
            Plan::Planned(decisions) => Some(decisions),
            Plan::Reactive(_) => None,
        }
    }

    /// How many of the core's outputs to keep.
    pub fn keeps(&self) -> usize {
        match self {
            Plan::Planned(decisions) => decisions.iter().map(needs).max().unwrap_or(1),
            Plan::Reactive(watch) => watch.keeps(),
        }
    }
}

fn needs(decision: &Decision) -> usize {
    match decision {
        Decision::Refresh => 1,
        Decision::Reuse(forecast) => forecast.weights().len(),
    }
}

/// The steps of a plan that run the core.
pub fn refreshed(plan: &[Decision]) -> Vec<usize> {
    (0..plan.len()).filter(|&i| plan[i] == Decision::Refresh).collect()
}

/// The number of steps of a plan that run the core.
pub fn refreshes(plan: &[Decision]) -> usize {
    refreshed(plan).len()
}

/// How many times faster a plan is than one that always refreshes, from the cost of a full step and of a cached one in
/// any unit (FLOPs, milliseconds). 1 for an empty plan.
pub fn speed_up(full_cost: f64, cached_cost: f64, plan: &[Decision]) -> f64 {
    if plan.is_empty() {
        return 1.0;
    }
    let full = refreshes(plan);
    let cost = full as f64 * full_cost + (plan.len() - full) as f64 * cached_cost;
    plan.len() as f64 * full_cost / cost
}

impl PartialEq for CachePolicy {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Serialize for CachePolicy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CachePolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CachePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let read = |text: &str| SYNTAX.iter().find_map(|(_, parse)| parse(text));
        let policy = match text.rsplit_once("+taylor") {
            Some((rule, order)) => read(rule)
                .and_then(|rule| taylor::Taylor::parse(rule, order))
                .map(|rule| CachePolicy(Arc::new(rule))),
            None => read(text).map(CachePolicy),
        };
        policy.ok_or_else(|| ParsePolicyError(text.to_owned()))
    }
}
