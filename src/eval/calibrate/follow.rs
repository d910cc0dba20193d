//! Fits the forecasts of a schedule on the way: each step's weights are fitted to where the steps
//! before have led, with their errors, all requests side by side.

use std::collections::BTreeMap;

use super::fit::Fit;
use super::step::{encode, reuse_errors};
use crate::cache::{Decision, Forecast, Schedule};
use crate::error::Result;
use crate::pipeline::denoise::DenoiseState;
use crate::pipeline::transformer::Transformer;

/// The schedule that refreshes at `refresh`, with the forecasts that suit `states`, which go by it
/// from their first step to the end.
///
/// Forecasts fitted to uncached images would be too bold: in a cached loop an extrapolation feeds
/// its own error back.
pub fn follow(
    transformer: &mut Transformer,
    states: &mut [DenoiseState],
    refresh: &[usize],
) -> Result<Schedule> {
    let mut forecasts = BTreeMap::new();
    let steps = states.iter().map(DenoiseState::steps).min().unwrap_or(0);
    for step in 0..steps {
        let mut shallow = Vec::with_capacity(states.len());
        for state in &mut *states {
            shallow.push(encode(transformer, state)?);
        }
        let decision = if refresh.contains(&step) {
            Decision::Refresh
        } else if refresh.iter().filter(|refresh| **refresh < step).count() == 1 {
            Decision::Reuse(Forecast::LAST)
        } else {
            let mut fit = Fit::default();
            for (state, shallow) in states.iter_mut().zip(&shallow) {
                fit.add(&reuse_errors(transformer, state, shallow)?);
            }
            Decision::Reuse(fit.forecast())
        };
        if let Decision::Reuse(forecast) = decision
            && forecast != Forecast::LAST
        {
            forecasts.insert(step, forecast.weights().to_vec());
        }
        for (state, shallow) in states.iter_mut().zip(&shallow) {
            state.decide(decision);
            let predictions = transformer.predict(&mut state.groups()?, shallow)?;
            state.finish_step(&predictions)?;
        }
    }
    Ok(Schedule { refresh: refresh.to_vec(), forecast: forecasts, measured: None })
}
