//! Cache policies: at which steps the deep core runs, and what stands in for its output at the
//! others, or makes up for that when it runs again.
//!
//! A [`CachePolicy`] is a value; its text form is what `--cache-policy` takes. From a request's
//! timesteps it makes a [`Plan`]: decided before the first step, or step by step from how far the
//! shallow encoder's output has moved. No tensors, no clock, no randomness; nothing outlives the
//! request. A kind of policy is one file, and a variant of `Rule`.

mod align;
mod calibrated;
mod correction;
mod corrections;
mod forecast;
mod interval;
mod parse;
mod plan;
mod probe;
mod schedule;
mod taylor;

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;

use hydit_graphs::variant::CacheDefaults;
use serde::{Deserialize, Serialize};

use self::calibrated::Auto;
use self::interval::Interval;
use self::probe::Probe;
use self::schedule::FromFile;
use crate::sampler::{SamplerKind, Spacing};

pub use self::calibrated::calibration_file;
pub use self::correction::{Correction, RANK};
pub use self::forecast::{Forecast, KEPT};
pub use self::interval::GAP;
pub use self::plan::{Compared, Decision, Plan, refreshed, refreshes};
pub use self::probe::Watch;
pub use self::schedule::{Measured, Schedule, Schedules};

/// At which steps the deep core runs, and what stands in for its output at the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CachePolicy {
    rule: Rule,
    between: Between,
}

/// What stands in for the core's output between refreshes, where the rule leaves that open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    /// The latest output as it is.
    Last,
    /// A polynomial of this order through the last outputs.
    Taylor(usize),
    /// The last two outputs, as the shallow encoder has moved.
    Align,
}

/// How steps that refresh are chosen.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Off,
    Interval(Interval),
    Schedule(FromFile),
    Probe(Probe),
    Auto(Auto),
}

/// The texts of all rules, for people.
const SYNTAX: [&str; 5] = [
    "off",
    "N<gap> or N<gap>-<start>-<close>, such as N3-700-50",
    "schedule:<file>, a file of hydit-serve calibrate",
    "probe:<threshold>, such as probe:0.3",
    "auto:<quality>dB or auto:<n>runs, such as auto:35dB",
];

/// All that a policy may know of a request.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'a> {
    /// The timesteps visited, descending.
    pub timesteps: &'a [f32],
    /// How many of the sampler's steps come before these and are left out, as where a picture is
    /// made from an image.
    pub skipped: usize,
    /// The sampler that visits them.
    pub sampler: SamplerKind,
    /// How the timesteps were chosen.
    pub spacing: Spacing,
    /// How far the prediction is drawn away from the negative prompt.
    pub guidance_scale: f32,
    /// The artifact folder, where calibrations lie.
    pub folder: &'a Path,
    /// SHA-256 of the folder's manifest, hexadecimal.
    pub manifest_sha256: &'a str,
}

/// Why a policy cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("cache policy {policy}: {message}")]
#[non_exhaustive]
pub struct PolicyError {
    /// The policy's text.
    pub policy: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache policy {0:?} is not understood: it must be {choices}; all but off may end in +taylor1 \
     or +taylor2, and all but off and probe in +align",
    choices = SYNTAX.join("; ")
)]
pub struct ParsePolicyError(pub String);

impl PolicyInput<'_> {
    /// The number of the sampler's steps, with those that are left out.
    fn steps(&self) -> usize {
        self.skipped + self.timesteps.len()
    }
}

impl CachePolicy {
    /// Every step refreshes.
    pub fn off() -> CachePolicy {
        Rule::Off.into()
    }

    /// Skip-Cache's fixed rule: every `gap`-th step refreshes, all from timestep `start` up, and
    /// those after one at `close` or below.
    pub fn interval(gap: NonZeroU32, start: u32, close: u32) -> CachePolicy {
        Rule::Interval(Interval { gap, ends: Some([start, close]) }).into()
    }

    /// The policy of a cache that is asked for by no more than its name: `auto:35dB` if the model
    /// in `folder` was calibrated for `sampler`, `spacing` and `steps`, of which none are `skipped`,
    /// else the reference's `N2` with the model's `defaults`.
    pub fn usual(
        folder: &Path,
        defaults: &CacheDefaults,
        sampler: SamplerKind,
        spacing: Spacing,
        steps: usize,
        skipped: usize,
    ) -> CachePolicy {
        if skipped == 0 && calibration_file(folder, sampler, spacing, steps).exists() {
            Rule::Auto(calibrated::USUAL).into()
        } else {
            CachePolicy::interval(GAP, defaults.start, defaults.close)
        }
    }

    /// Whether it is [`off`](CachePolicy::off).
    pub fn is_off(&self) -> bool {
        self.rule == Rule::Off
    }

    /// The same policy with nothing left open that the model's `defaults` say.
    pub fn settled(&self, defaults: &CacheDefaults) -> CachePolicy {
        let rule = match &self.rule {
            Rule::Interval(rule) => Rule::Interval(rule.settled(defaults)),
            other => other.clone(),
        };
        CachePolicy { rule, ..*self }
    }

    /// The same policy for strangers: of a file no more than its name.
    pub fn without_folder(&self) -> CachePolicy {
        let rule = match &self.rule {
            Rule::Schedule(rule) => Rule::Schedule(rule.without_folder()),
            other => other.clone(),
        };
        CachePolicy { rule, ..*self }
    }

    /// The file that it names, if it does: of all policies, `schedule:<file>` alone.
    pub fn file(&self) -> Option<&Path> {
        match &self.rule {
            Rule::Schedule(rule) => Some(rule.path()),
            _ => None,
        }
    }

    /// The calibration that it follows, if it follows one.
    ///
    /// # Errors
    /// When the file does not fit the request.
    pub fn calibration(&self, input: &PolicyInput<'_>) -> Result<Option<Schedules>, PolicyError> {
        let PolicyInput { folder, sampler, spacing, .. } = *input;
        let path = match &self.rule {
            Rule::Auto(_) => calibration_file(folder, sampler, spacing, input.steps()),
            Rule::Schedule(rule) => rule.path().to_path_buf(),
            Rule::Off | Rule::Interval(_) | Rule::Probe(_) => return Ok(None),
        };
        let found = Schedules::read(&path, input);
        found.map(Some).map_err(|message| PolicyError { policy: self.to_string(), message })
    }

    /// Whether it decides step by step: its plans are [`Plan::Reactive`].
    pub fn is_reactive(&self) -> bool {
        matches!(self.rule, Rule::Probe(_))
    }

    /// What to do at each step of a request.
    ///
    /// # Errors
    /// When a file that the policy names does not fit the request.
    pub fn plan(&self, input: &PolicyInput<'_>) -> Result<Plan, PolicyError> {
        let plan = match &self.rule {
            Rule::Off => Ok(Plan::Planned(vec![Decision::REFRESH; input.timesteps.len()])),
            Rule::Interval(rule) => Ok(Plan::Planned(rule.plan(input.timesteps))),
            Rule::Schedule(rule) => rule.plan(input).map(Plan::Planned),
            Rule::Probe(rule) => Ok(Plan::Reactive(Watch::new(*rule))),
            Rule::Auto(rule) => rule.plan(input).map(Plan::Planned),
        };
        let plan = plan.map_err(|message| PolicyError { policy: self.to_string(), message })?;
        Ok(match (self.between, plan) {
            (Between::Taylor(order), plan) => taylor::forecast(plan, order, input.timesteps),
            (Between::Align, Plan::Planned(plan)) => Plan::Planned(align::align(plan)),
            (_, plan) => plan,
        })
    }
}

impl From<Rule> for CachePolicy {
    fn from(rule: Rule) -> CachePolicy {
        CachePolicy { rule, between: Between::Last }
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        if text == "off" {
            return Some(Rule::Off);
        }
        Interval::parse(text)
            .map(Rule::Interval)
            .or_else(|| FromFile::parse(text).map(Rule::Schedule))
            .or_else(|| Probe::parse(text).map(Rule::Probe))
            .or_else(|| Auto::parse(text).map(Rule::Auto))
    }
}

impl CachePolicy {
    fn parse(text: &str) -> Option<CachePolicy> {
        let (rule, between) = if let Some(rule) = text.strip_suffix("+align") {
            (Rule::parse(rule)?, Between::Align)
        } else if let Some((rule, order)) = text.rsplit_once("+taylor") {
            (Rule::parse(rule)?, Between::Taylor(taylor::order(order)?))
        } else {
            return Rule::parse(text).map(CachePolicy::from);
        };
        let fits = match rule {
            Rule::Off => false,
            Rule::Probe(_) => between != Between::Align,
            Rule::Interval(_) | Rule::Schedule(_) | Rule::Auto(_) => true,
        };
        fits.then_some(CachePolicy { rule, between })
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Off => f.write_str("off"),
            Rule::Interval(rule) => rule.fmt(f),
            Rule::Schedule(rule) => rule.fmt(f),
            Rule::Probe(rule) => rule.fmt(f),
            Rule::Auto(rule) => rule.fmt(f),
        }?;
        match self.between {
            Between::Last => Ok(()),
            Between::Taylor(order) => write!(f, "+taylor{order}"),
            Between::Align => f.write_str("+align"),
        }
    }
}

impl FromStr for CachePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        CachePolicy::parse(text).ok_or_else(|| ParsePolicyError(text.to_owned()))
    }
}

impl From<CachePolicy> for String {
    fn from(policy: CachePolicy) -> String {
        policy.to_string()
    }
}

impl TryFrom<String> for CachePolicy {
    type Error = ParsePolicyError;

    fn try_from(text: String) -> Result<CachePolicy, ParsePolicyError> {
        text.parse()
    }
}
