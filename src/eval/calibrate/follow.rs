//! Fits the forecasts of a schedule on the way: each step's weights, and its correction, are fitted
//! to where the steps before have led, with their errors, all requests side by side; and to lead
//! from there [back](super::step) towards the uncached images.

use super::correct::correction;
use super::fit::Fit;
use super::learned::Learning;
use super::step::{Fitting, encode};
use crate::cache::{Decision, Forecast, Schedule};
use crate::error::Result;
use crate::pipeline::transformer::{Shallow, Transformer, remember};

/// The schedule that refreshes at `refresh`, with the forecasts that suit `all`, which go by it from
/// their first step to the end; with corrections, if `corrected`. `known` is what suits them at the
/// first steps, which then need not be fitted.
///
/// Forecasts fitted to uncached images would be too bold: in a cached loop an extrapolation feeds
/// its own error back.
pub fn follow(
    transformer: &mut Transformer,
    all: &mut [Learning<'_>],
    refresh: &[usize],
    corrected: bool,
    known: &[Decision],
) -> Result<Schedule> {
    let mut schedule = Schedule { refresh: refresh.to_vec(), ..Schedule::default() };
    let steps = all.iter().map(|one| one.state.steps()).min().unwrap_or(0);
    for step in 0..steps {
        let mut shallow = Vec::with_capacity(all.len());
        for one in &mut *all {
            shallow.push(encode(transformer, &mut one.state)?);
        }
        let refreshes = refresh.contains(&step);
        if refreshes {
            for (Learning { state, .. }, shallow) in all.iter_mut().zip(&shallow) {
                state.decide(Decision::REFRESH);
                transformer.refresh(&mut state.groups()?, shallow)?;
            }
        }
        let decision = match known.get(step) {
            Some(known) => known.clone(),
            None if refreshes => Decision::Refresh(compensation(transformer, all, &shallow)?),
            None => Decision::Reuse(forecast(transformer, all, &shallow, corrected)?),
        };
        if let weights @ [_, _, ..] = decision.forecast().weights() {
            schedule.forecast.insert(step, weights.to_vec());
        }
        let correction = decision.correction().cloned();
        schedule.corrections.extend(correction.map(|correction| (step, correction)));
        for (Learning { state, .. }, shallow) in all.iter_mut().zip(shallow) {
            state.decide(decision.clone());
            let mut groups = state.groups()?;
            let predictions = transformer.predict_from_kept(&mut groups, &shallow)?;
            remember(&mut groups, shallow)?;
            state.finish_step(&predictions)?;
        }
    }
    Ok(schedule)
}

/// The forecast that suits `all` at the step under way, of which the encoder has made `shallow`.
fn forecast(
    transformer: &mut Transformer,
    all: &mut [Learning<'_>],
    shallow: &[Vec<Shallow>],
    corrected: bool,
) -> Result<Forecast> {
    if !keep_several(all) && !corrected {
        return Ok(Forecast::LAST);
    }
    let mut fit = Fit::default();
    let mut reusing = Vec::with_capacity(all.len());
    for (Learning { state, uncached, .. }, shallow) in all.iter_mut().zip(shallow) {
        let next = &uncached[state.steps_done()];
        let mut picture = Fitting::reusing(transformer, state, shallow, next)?;
        fit.add(&picture.errors(transformer)?);
        reusing.push(picture);
    }
    let forecast = fit.forecast();
    let correction = match corrected {
        true => correction(transformer, &mut reusing, &forecast)?,
        false => None,
    };
    Ok(forecast.corrected(correction))
}

/// What suits `all` at the step under way, at which the core has run: its new output and those kept
/// before, so weighted that they make up for what was forecast wrongly since the last refresh.
fn compensation(
    transformer: &mut Transformer,
    all: &mut [Learning<'_>],
    shallow: &[Vec<Shallow>],
) -> Result<Forecast> {
    if !keep_several(all) {
        return Ok(Forecast::LAST);
    }
    let mut fit = Fit::default();
    for (Learning { state, uncached, .. }, shallow) in all.iter_mut().zip(shallow) {
        let next = &uncached[state.steps_done()];
        let mut picture = Fitting::refreshed(transformer, state, shallow, next)?;
        fit.add(&picture.errors(transformer)?);
    }
    Ok(fit.forecast())
}

/// Whether more than one of the core's outputs is kept of `all`.
fn keep_several(all: &[Learning<'_>]) -> bool {
    all.iter().any(|one| one.state.kept_outputs() > 1)
}
