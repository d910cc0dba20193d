//! The decisions of one request: at which steps the core runs, and what stands in for its output.

use super::{Correction, Forecast, Watch};

/// What to do with the deep core at one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Run the core and keep its output: the decoder gets what is made of it and those kept before,
    /// most often the new one as it is.
    Refresh(Forecast),
    /// Do not run it: the decoder gets a forecast made of kept outputs.
    Reuse(Forecast),
}

impl Decision {
    /// The core runs, and the decoder gets its output as it is.
    pub const REFRESH: Decision = Decision::Refresh(Forecast::LAST);

    /// Whether the core runs.
    pub fn refreshes(&self) -> bool {
        matches!(self, Decision::Refresh(_))
    }

    /// What the decoder gets.
    pub fn forecast(&self) -> &Forecast {
        match self {
            Decision::Refresh(forecast) | Decision::Reuse(forecast) => forecast,
        }
    }

    /// What is added to the weighted sum of kept outputs.
    pub fn correction(&self) -> Option<&Correction> {
        self.forecast().correction()
    }
}

/// Which of the shallow encoder's earlier outputs a plan has the present one compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It is compared with none.
    Nothing,
    /// That of the step before.
    StepBefore,
    /// That of the last refresh.
    LastRefresh,
    /// Those of the last two refreshes.
    LastTwoRefreshes,
}

/// The decisions of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Known before the first step; the first is a refresh.
    Planned(Vec<Decision>),
    /// Made step by step.
    Reactive(Watch),
}

impl Plan {
    /// The decisions, where they are known before the first step.
    pub fn planned(&self) -> Option<&[Decision]> {
        match self {
            Plan::Planned(decisions) => Some(decisions),
            Plan::Reactive(_) => None,
        }
    }

    /// Has `step` refresh, and what comes after it use nothing from before it, as at a run's first
    /// step: there rows join that nothing is kept of. What is forecast from an earlier output is the
    /// latest as it is.
    pub fn renew_at(&mut self, step: usize) {
        match self {
            Plan::Planned(decisions) => {
                let Some(after) = decisions.get_mut(step..) else { return };
                let mut kept = 0;
                for (i, decision) in after.iter_mut().enumerate() {
                    kept += usize::from(i == 0 || decision.refreshes());
                    match decision {
                        _ if i == 0 => *decision = Decision::REFRESH,
                        // Corrected is what was fitted to another refresh.
                        Decision::Reuse(forecast) if kept == 1 => *forecast = Forecast::LAST,
                        Decision::Refresh(forecast) | Decision::Reuse(forecast)
                            if forecast.needs() > kept =>
                        {
                            *forecast = Forecast::LAST;
                        }
                        _ => {}
                    }
                }
            }
            Plan::Reactive(watch) => watch.renew_at(step),
        }
    }

    /// Whether decisions are made step by step.
    pub fn is_reactive(&self) -> bool {
        matches!(self, Plan::Reactive(_))
    }

    /// What the shallow encoder's output is compared with.
    pub fn compares(&self) -> Compared {
        let Plan::Planned(decisions) = self else { return Compared::StepBefore };
        if decisions.contains(&Decision::Reuse(Forecast::ALIGNED)) {
            Compared::LastTwoRefreshes
        } else if decisions.iter().any(|decision| decision.correction().is_some()) {
            Compared::LastRefresh
        } else {
            Compared::Nothing
        }
    }

    /// How many of the core's outputs to keep: at least one.
    pub fn keeps(&self) -> usize {
        match self {
            Plan::Planned(decisions) => {
                let needs = |decision: &Decision| decision.forecast().needs();
                decisions.iter().map(needs).max().unwrap_or(1)
            }
            Plan::Reactive(watch) => watch.keeps(),
        }
    }
}

/// The steps of a plan that run the core.
pub fn refreshed(plan: &[Decision]) -> Vec<usize> {
    (0..plan.len()).filter(|&i| plan[i].refreshes()).collect()
}

/// The number of steps of a plan that run the core.
pub fn refreshes(plan: &[Decision]) -> usize {
    refreshed(plan).len()
}
