//! `+taylor<order>`: forecasts the core's output from its last ones instead of using the last as it
//! is. TaylorSeer (arXiv 2503.06923) with finite differences for derivatives, which is the
//! polynomial through the last `order + 1` outputs.

use std::fmt;
use std::sync::Arc;

use super::interval::number;
use super::{Decision, Forecast, KEPT, Plan, PolicyError, Rule, Run, Watch};

/// A rule whose reuses are forecast by a polynomial in the timestep.
#[derive(Debug)]
pub(super) struct Taylor {
    rule: Arc<dyn Rule>,
    order: usize,
}

impl Taylor {
    /// Of `rule`, from the digits behind `+taylor`.
    pub(super) fn parse(rule: Arc<dyn Rule>, order: &str) -> Option<Taylor> {
        let order = number(order)? as usize;
        ((1..KEPT).contains(&order) && !rule.is_off()).then_some(Taylor { rule, order })
    }
}

impl fmt::Display for Taylor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+taylor{}", self.rule, self.order)
    }
}

impl Rule for Taylor {
    fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError> {
        let mut series = Series::new(self.order, run.timesteps);
        Ok(match self.rule.plan(run)? {
            Plan::Planned(plan) => {
                let plan = plan.into_iter().enumerate();
                Plan::Planned(plan.map(|(step, decision)| series.refine(step, decision)).collect())
            }
            Plan::Reactive(watch) => Plan::Reactive(Box::new(Forecasting { watch, series })),
        })
    }

    fn is_reactive(&self) -> bool {
        self.rule.is_reactive()
    }
}

/// A reactive rule with forecasts.
struct Forecasting {
    watch: Box<dyn Watch>,
    series: Series,
}

impl Watch for Forecasting {
    fn decide(&mut self, step: usize, change: f32) -> Decision {
        let decision = self.watch.decide(step, change);
        self.series.refine(step, decision)
    }

    fn keeps(&self) -> usize {
        self.series.order + 1
    }
}

/// The refreshes so far, and what follows from them.
struct Series {
    order: usize,
    timesteps: Vec<f64>,
    /// Timesteps of the last `order + 1`, the latest first.
    refreshed: Vec<f64>,
}

impl Series {
    fn new(order: usize, timesteps: &[u32]) -> Series {
        let timesteps = timesteps.iter().copied().map(f64::from).collect();
        Series { order, timesteps, refreshed: Vec::new() }
    }

    /// A reuse at `step` becomes a forecast; of a lower order while there are few refreshes.
    fn refine(&mut self, step: usize, decision: Decision) -> Decision {
        let now = self.timesteps[step];
        match decision {
            Decision::Refresh => {
                self.refreshed.insert(0, now);
                self.refreshed.truncate(self.order + 1);
                Decision::Refresh
            }
            Decision::Reuse(Forecast::LAST) => {
                let weights: Vec<f32> = lagrange(&self.refreshed, now);
                Decision::Reuse(Forecast::new(&weights).unwrap_or(Forecast::LAST))
            }
            forecast => forecast, // a schedule's own
        }
    }
}

/// Weights of values at `nodes` in the value at `x` of the polynomial through them.
fn lagrange(nodes: &[f64], x: f64) -> Vec<f32> {
    let factor = |own: f64, other: f64| (x - other) / (own - other);
    let weight = |(i, &own): (usize, &f64)| {
        let others = nodes.iter().enumerate().filter(|&(j, _)| j != i);
        others.map(|(_, &other)| factor(own, other)).product::<f64>() as f32
    };
    nodes.iter().enumerate().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::lagrange;

    #[test]
    fn polynomials_are_continued_exactly() {
        let nodes = [5.0, 7.0, 12.0];
        let f = |x: f64| 2.0 - 3.0 * x + 0.5 * x * x;
        let value: f64 =
            lagrange(&nodes, 1.0).iter().zip(nodes).map(|(&w, x)| f64::from(w) * f(x)).sum();
        assert!((value - f(1.0)).abs() < 1e-4);
        assert_eq!(lagrange(&[500.0, 600.0], 450.0), [1.5, -0.5]);
        assert_eq!(lagrange(&[500.0], 450.0), [1.0]);
    }
}
