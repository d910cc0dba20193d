//! `+taylor<order>`: forecasts the core's output from its last ones instead of using the last as it
//! is. TaylorSeer (arXiv 2503.06923) with finite differences for derivatives, which is the
//! polynomial through the last `order + 1` outputs.

use super::parse::number;
use super::{Decision, Forecast, KEPT, Plan};

/// The order in the digits behind `+taylor`.
pub(super) fn order(digits: &str) -> Option<usize> {
    number(digits).map(|order| order as usize).filter(|order| (1..KEPT).contains(order))
}

/// `plan`, its reuses forecast by a polynomial of `order` in the timestep.
pub(super) fn forecast(plan: Plan, order: usize, timesteps: &[f32]) -> Plan {
    let mut series = Series::new(order, timesteps);
    match plan {
        Plan::Planned(plan) => {
            let plan = plan.into_iter().enumerate();
            Plan::Planned(plan.map(|(step, decision)| series.refine(step, decision)).collect())
        }
        Plan::Reactive(watch) => Plan::Reactive(watch.with_forecasts(series)),
    }
}

/// The refreshes so far, and what follows from them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    order: usize,
    timesteps: Vec<f64>,
    /// Timesteps of the last `order + 1`, the latest first.
    refreshed: Vec<f64>,
}

impl Series {
    fn new(order: usize, timesteps: &[f32]) -> Series {
        let timesteps = timesteps.iter().copied().map(f64::from).collect();
        Series { order, timesteps, refreshed: Vec::new() }
    }

    /// How many outputs of the core the forecasts need.
    pub fn keeps(&self) -> usize {
        self.order + 1
    }

    /// Forgets the refreshes so far.
    pub fn forget(&mut self) {
        self.refreshed.clear();
    }

    /// A reuse at `step` becomes a forecast; of a lower order while there are few refreshes.
    pub fn refine(&mut self, step: usize, decision: Decision) -> Decision {
        let now = self.timesteps[step];
        match decision {
            Decision::Refresh(_) => {
                self.refreshed.insert(0, now);
                self.refreshed.truncate(self.order + 1);
                decision
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
