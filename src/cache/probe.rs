//! `probe:<threshold>` or `probe:<threshold>-<longest>`: refreshes when the shallow encoder's output, which is computed
//! at every step, has moved far enough since the last refresh. DiCache (arXiv 2508.17356), the relative change summed
//! over the steps as TeaCache (arXiv 2411.19108) does.

use std::fmt;

use super::interval::number;
use super::{Decision, Forecast, Plan, PolicyError, Rule, Run, Watch};

/// Most reuses in a row where the policy does not say.
const LONGEST: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// Summed change from which on a step refreshes.
    threshold: f32,
    /// Most reuses in a row.
    longest: usize,
}

/// `probe:0.2` or `probe:0.2-6`.
pub(super) fn parse(text: &str) -> Option<Probe> {
    let text = text.strip_prefix("probe:")?;
    let (threshold, longest) = match text.rsplit_once('-') {
        None => (text, LONGEST),
        Some((threshold, longest)) => (threshold, number(longest).filter(|&n| n > 0)? as usize),
    };
    let threshold = threshold.parse().ok().filter(|t: &f32| t.is_finite() && *t > 0.0)?;
    Some(Probe { threshold, longest })
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe:{}-{}", self.threshold, self.longest)
    }
}

impl Rule for Probe {
    fn plan(&self, _: &Run<'_>) -> Result<Plan, PolicyError> {
        Ok(Plan::Reactive(Box::new(Watching { rule: *self, moved: 0.0, reuses: 0 })))
    }

    fn is_reactive(&self) -> bool {
        true
    }
}

/// Since the last refresh.
struct Watching {
    rule: Probe,
    moved: f32,
    reuses: usize,
}

impl Watch for Watching {
    fn decide(&mut self, step: usize, change: f32) -> Decision {
        self.moved += change;
        // A change that is not a number must refresh: it is not below the threshold.
        let near = self.moved < self.rule.threshold;
        if step > 0 && near && self.reuses < self.rule.longest {
            self.reuses += 1;
            return Decision::Reuse(Forecast::LAST);
        }
        (self.moved, self.reuses) = (0.0, 0);
        Decision::Refresh
    }

    fn keeps(&self) -> usize {
        1
    }
}
