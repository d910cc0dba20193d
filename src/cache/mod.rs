//! Cache policies: at which steps the deep core runs, and at which its kept output is used again.
//!
//! A policy is a value with pure functions: no tensors, no clock, no randomness. Its plan is made from a request's
//! timesteps before the first step, so it can be printed, priced and compared; nothing outlives the request.

mod interval;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// What to do with the deep core at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Run the core and keep its output.
    Refresh,
    /// Do not run it: the decoder gets the kept output.
    Reuse,
}

/// A rule that decides which steps refresh. Its text form is what `--cache-policy` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// `off`: every step refreshes.
    Off,
    /// `N<gap>-<start>-<close>`: Skip-Cache (arXiv 2411.17616), every `gap`-th step refreshes, and all the early and the
    /// late ones. `N<gap>` is short for `N<gap>-700-50`, the values of the reference.
    Interval {
        /// Steps from one refresh to the next. 1 is the same as `off`.
        gap: NonZeroU32,
        /// Steps at this timestep or above refresh.
        start: u32,
        /// Steps after one at this timestep or below refresh.
        close: u32,
    },
}

/// A policy's text is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache policy {0:?} is not understood: it must be off, N<gap> or N<gap>-<start>-<close> with a gap of 1 or more, \
     such as N3 or N2-700-50"
)]
pub struct ParsePolicyError(pub String);

impl CachePolicy {
    /// The decision for each of a request's timesteps (descending, all of them, in order). The first is always
    /// [`Decision::Refresh`].
    pub fn plan(&self, timesteps: &[u32]) -> Vec<Decision> {
        match *self {
            Self::Off => vec![Decision::Refresh; timesteps.len()],
            Self::Interval { gap, start, close } => interval::plan(gap, start, close, timesteps),
        }
    }
}

/// The number of steps of a plan that run the core.
pub fn refreshes(plan: &[Decision]) -> usize {
    plan.iter().filter(|decision| **decision == Decision::Refresh).count()
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

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Interval { gap, start, close } => write!(f, "N{gap}-{start}-{close}"),
        }
    }
}

impl FromStr for CachePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        interval::parse(text).ok_or_else(|| ParsePolicyError(text.to_owned()))
    }
}
