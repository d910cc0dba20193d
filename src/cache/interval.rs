//! `N<gap>-<start>-<close>`, the fixed rule of Skip-Cache (arXiv 2411.17616): every `gap`-th step
//! refreshes, and all the early and the late ones. `HunYuanDiT_cache.forward` of Skip-DiT
//! (`text-to-image/hydit/modules/models_cache.py`), with the state made per request instead of kept
//! on the model.

use std::fmt;
use std::num::NonZeroU32;

use hydit_graphs::variant::CacheDefaults;

use super::parse::number;
use super::{Decision, Forecast};

/// The reference's default gap.
pub const GAP: NonZeroU32 = NonZeroU32::new(2).expect("not zero");

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// Steps from one refresh to the next. 1 is the same as `off`.
    pub gap: NonZeroU32,
    /// `start`, at which timestep or above steps refresh, and `close`, after which or below they
    /// do; none for the model's own.
    pub ends: Option<[u32; 2]>,
}

impl Interval {
    /// `N2-700-50` or `N2`.
    pub fn parse(text: &str) -> Option<Interval> {
        let mut numbers = text.strip_prefix('N')?.split('-').map(number);
        let gap = NonZeroU32::new(numbers.next()??)?;
        let ends = match numbers.next() {
            None => None,
            Some(start) => Some([start?, numbers.next()??]),
        };
        numbers.next().is_none().then_some(Interval { gap, ends })
    }

    /// The same rule for a model of these defaults.
    pub fn settled(self, defaults: &CacheDefaults) -> Interval {
        let CacheDefaults { start, close, .. } = *defaults;
        Interval { ends: self.ends.or(Some([start, close])), ..self }
    }

    /// Quirks of the reference, kept: steps at `start` or above count too, so the phase below
    /// depends on how many there were; the count returns to 0 after *each* step at `close` or
    /// below, so the first of those may still be a reuse and all later ones refresh.
    pub fn plan(&self, timesteps: &[f32]) -> Vec<Decision> {
        let CacheDefaults { start, close, .. } = CacheDefaults::default();
        let [start, close] = self.ends.unwrap_or([start, close]).map(f64::from);
        let mut count = 0u32;
        let mut plan = Vec::with_capacity(timesteps.len());
        for t in timesteps.iter().copied().map(f64::from) {
            let refresh = count % self.gap == 0 || t >= start;
            count = if t <= close { 0 } else { count + 1 };
            plan.push(if refresh { Decision::REFRESH } else { Decision::Reuse(Forecast::LAST) });
        }
        plan
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends {
            None => write!(f, "N{}", self.gap),
            Some([start, close]) => write!(f, "N{}-{start}-{close}", self.gap),
        }
    }
}
