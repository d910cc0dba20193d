//! `N<gap>-<start>-<close>`, the fixed rule of Skip-Cache (arXiv 2411.17616): every `gap`-th step
//! refreshes, and all the early and the late ones. `HunYuanDiT_cache.forward` of Skip-DiT
//! (`text-to-image/hydit/modules/models_cache.py`), with the state made per request instead of kept
//! on the model.

use std::fmt;
use std::num::NonZeroU32;

use super::parse::number;
use super::{Decision, Forecast};

/// The reference's default gap.
pub const GAP: NonZeroU32 = NonZeroU32::new(2).expect("not zero");
/// `start` of the reference, a constant there.
pub const START: u32 = 700;
/// `close` of the reference, a constant there.
pub const CLOSE: u32 = 50;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// Steps from one refresh to the next. 1 is the same as `off`.
    pub gap: NonZeroU32,
    /// Steps at this timestep or above refresh.
    pub start: u32,
    /// Steps after one at this timestep or below refresh.
    pub close: u32,
}

impl Interval {
    /// `N2-700-50` or `N2`.
    pub fn parse(text: &str) -> Option<Interval> {
        let mut numbers = text.strip_prefix('N')?.split('-').map(number);
        let gap = NonZeroU32::new(numbers.next()??)?;
        let (start, close) = match numbers.next() {
            None => (START, CLOSE),
            Some(start) => (start?, numbers.next()??),
        };
        numbers.next().is_none().then_some(Interval { gap, start, close })
    }

    /// Quirks of the reference, kept: steps at `start` or above count too, so the phase below
    /// depends on how many there were; the count returns to 0 after *each* step at `close` or
    /// below, so the first of those may still be a reuse and all later ones refresh.
    pub fn plan(&self, timesteps: &[f32]) -> Vec<Decision> {
        let mut count = 0u32;
        let mut plan = Vec::with_capacity(timesteps.len());
        for t in timesteps.iter().copied().map(f64::from) {
            let refresh = count % self.gap == 0 || t >= f64::from(self.start);
            count = if t <= f64::from(self.close) { 0 } else { count + 1 };
            plan.push(if refresh { Decision::Refresh } else { Decision::Reuse(Forecast::LAST) });
        }
        plan
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N{}-{}-{}", self.gap, self.start, self.close)
    }
}
