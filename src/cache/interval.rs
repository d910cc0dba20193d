//! `N<gap>-<start>-<close>`, the fixed rule of Skip-Cache (arXiv 2411.17616): every `gap`-th step refreshes, and all the
//! early and the late ones. `HunYuanDiT_cache.forward` of Skip-DiT (`text-to-image/hydit/modules/models_cache.py`), with
//! the state made per request instead of kept on the model.

use std::fmt;
use std::num::NonZeroU32;

use super::{Decision, Forecast, Plan, PolicyError, Rule, Run};

/// The reference's default gap.
pub const GAP: NonZeroU32 = NonZeroU32::new(2).expect("not zero");
/// `start` of the reference, a constant there.
pub const START: u32 = 700;
/// `close` of the reference, a constant there.
pub const CLOSE: u32 = 50;

#[derive(Debug)]
pub(super) struct Interval {
    /// Steps from one refresh to the next. 1 is the same as `off`.
    pub gap: NonZeroU32,
    /// Steps at this timestep or above refresh.
    pub start: u32,
    /// Steps after one at this timestep or below refresh.
    pub close: u32,
}

/// `N2-700-50` or `N2`.
pub(super) fn parse(text: &str) -> Option<Interval> {
    let mut numbers = text.strip_prefix('N')?.split('-').map(number);
    let gap = NonZeroU32::new(numbers.next()??)?;
    let (start, close) = match numbers.next() {
        None => (START, CLOSE),
        Some(start) => (start?, numbers.next()??),
    };
    numbers.next().is_none().then_some(Interval { gap, start, close })
}

/// Digits only: `parse` alone would take a sign.
pub(super) fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N{}-{}-{}", self.gap, self.start, self.close)
    }
}

impl Rule for Interval {
    /// Quirks of the reference, kept: steps at `start` or above count too, so the phase below depends on how many there
    /// were; the count returns to 0 after *each* step at `close` or below, so the first of those may still be a reuse
    /// and all later ones refresh.
    fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError> {
        let mut count = 0u32;
        let mut decide = |&t: &u32| {
            let refresh = count % self.gap == 0 || t >= self.start;
            count = if t <= self.close { 0 } else { count + 1 };
            if refresh { Decision::Refresh } else { Decision::Reuse(Forecast::LAST) }
        };
        Ok(Plan::Planned(run.timesteps.iter().map(&mut decide).collect()))
    }
}
