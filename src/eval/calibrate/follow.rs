//! Fits the forecasts of a schedule on the way: each step's weights are fitted to where the steps before have led,
//! with their errors, all pictures side by side.

use std::collections::BTreeMap;

use super::fit::Fit;
use crate::cache::{Forecast, KEPT, Schedule};
use crate::error::Result;
use crate::pipeline::denoise::Walk;
use crate::pipeline::transformer::Dit;

/// The schedule that refreshes at `refresh`, with the forecasts that suit `walks`, which go by it
/// from their first step to the end.
///
/// Forecasts fitted to uncached pictures would be too bold: on a cached way an extrapolation feeds
/// its own error back.
pub fn follow(dit: &mut Dit, walks: &mut [Walk], refresh: &[usize]) -> Result<Schedule> {
    let mut forecasts = BTreeMap::new();
    let steps = walks.iter().map(Walk::steps).min().unwrap_or(0);
    for step in 0..steps {
        let shallow = walks.iter_mut().map(|walk| walk.encode(dit)).collect::<Result<Vec<_>>>()?;
        if refresh.contains(&step) {
            for (walk, shallow) in walks.iter_mut().zip(&shallow) {
                let deep = walk.core(dit, shallow)?;
                let exact = walk.decode(dit, shallow, &deep)?;
                walk.lanes.iter_mut().zip(deep).for_each(|(lane, deep)| lane.keep(deep, KEPT));
                walk.advance(&exact);
            }
            continue;
        }
        let forecast = match refresh.iter().filter(|refresh| **refresh < step).count() {
            1 => Forecast::LAST,
            _ => {
                let mut fit = Fit::default();
                for (walk, shallow) in walks.iter_mut().zip(&shallow) {
                    fit.add(&walk.errors(dit, shallow)?);
                }
                fit.forecast()
            }
        };
        if forecast != Forecast::LAST {
            forecasts.insert(step, forecast.weights().to_vec());
        }
        for (walk, shallow) in walks.iter_mut().zip(&shallow) {
            let guided = walk.forecast(dit, shallow, forecast)?;
            walk.advance(&guided);
        }
    }
    Ok(Schedule { refresh: refresh.to_vec(), forecast: forecasts, measured: None })
}
