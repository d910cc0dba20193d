//! The fixed rule of Skip-Cache: `HunYuanDiT_cache.forward` of Skip-DiT (`text-to-image/hydit/modules/models_cache.py`),
//! with the state made per request instead of kept on the model.

use std::num::NonZeroU32;

use super::{CachePolicy, Decision};

/// `start` and `close` of the reference, constants there.
const START: u32 = 700;
const CLOSE: u32 = 50;

/// Quirks of the reference, kept: steps at `start` or above count too, so the phase below depends on how many there
/// were; the count returns to 0 after *each* step at `close` or below, so the first of those may still be a reuse and
/// all later ones refresh.
pub(super) fn plan(gap: NonZeroU32, start: u32, close: u32, timesteps: &[u32]) -> Vec<Decision> {
    let mut count = 0u32;
    let mut decide = |&t: &u32| {
        let refresh = count % gap == 0 || t >= start;
        count = if t <= close { 0 } else { count + 1 };
        if refresh { Decision::Refresh } else { Decision::Reuse }
    };
    timesteps.iter().map(&mut decide).collect()
}

/// `N2-700-50` or `N2`.
pub(super) fn parse(text: &str) -> Option<CachePolicy> {
    let mut numbers = text.strip_prefix('N')?.split('-').map(number);
    let gap = NonZeroU32::new(numbers.next()??)?;
    let (start, close) = match numbers.next() {
        None => (START, CLOSE),
        Some(start) => (start?, numbers.next()??),
    };
    numbers.next().is_none().then_some(CachePolicy::Interval { gap, start, close })
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
