//! `probe:<threshold>` or `probe:<threshold>-<longest>`: refreshes when the shallow encoder's
//! output, which is computed at every step, has moved far enough since the last refresh. DiCache
//! (arXiv 2508.17356), the relative change summed over the steps as TeaCache (arXiv 2411.19108)
//! does.

use std::fmt;

use super::parse::number;
use super::taylor::Series;
use super::{Decision, Forecast};

/// Most reuses in a row where the policy does not say.
const LONGEST: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    /// Summed change from which on a step refreshes.
    threshold: f32,
    /// Most reuses in a row.
    longest: usize,
}

impl Probe {
    /// `probe:0.2` or `probe:0.2-6`.
    pub fn parse(text: &str) -> Option<Probe> {
        let text = text.strip_prefix("probe:")?;
        let (threshold, longest) = match text.rsplit_once('-') {
            None => (text, LONGEST),
            Some((threshold, longest)) => (threshold, number(longest).filter(|&n| n > 0)? as usize),
        };
        let threshold = threshold.parse().ok().filter(|t: &f32| t.is_finite() && *t > 0.0)?;
        Some(Probe { threshold, longest })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe:{}-{}", self.threshold, self.longest)
    }
}

/// Decides step by step. Made for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    probe: Probe,
    /// Summed change since the last refresh.
    moved: f32,
    /// Reuses since the last refresh.
    reuses: usize,
    /// A step that refreshes whatever has moved, and from which on nothing before it is used.
    renewed: Option<usize>,
    /// What its reuses are forecast by, if not reused as they are.
    series: Option<Series>,
}

impl Watch {
    pub(super) fn new(probe: Probe) -> Watch {
        Watch { probe, moved: 0.0, reuses: 0, renewed: None, series: None }
    }

    pub(super) fn with_forecasts(self, series: Series) -> Watch {
        Watch { series: Some(series), ..self }
    }

    pub(super) fn renew_at(&mut self, step: usize) {
        self.renewed = Some(step);
    }

    /// The decision for `step`, asked in order from 0, where it is a refresh. `change` is how far
    /// the shallow encoder's output is from that of the step before, relative to it; 0 at step 0.
    pub fn decide(&mut self, step: usize, change: f32) -> Decision {
        let decision = self.by_change(step, change);
        if let Some(series) = self.series.as_mut().filter(|_| self.renewed == Some(step)) {
            series.forget();
        }
        match &mut self.series {
            Some(series) => series.refine(step, decision),
            None => decision,
        }
    }

    fn by_change(&mut self, step: usize, change: f32) -> Decision {
        self.moved += change;
        // A change that is not a number must refresh: it is not below the threshold.
        let near = self.moved < self.probe.threshold;
        let may = step > 0 && self.renewed != Some(step);
        if may && near && self.reuses < self.probe.longest {
            self.reuses += 1;
            return Decision::Reuse(Forecast::LAST);
        }
        (self.moved, self.reuses) = (0.0, 0);
        Decision::REFRESH
    }

    /// How many outputs of the core its forecasts need at most.
    pub fn keeps(&self) -> usize {
        self.series.as_ref().map_or(1, Series::keeps)
    }
}
