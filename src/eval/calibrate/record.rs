//! What reuse would cost at each step of uncached pictures, and how much an error at each step
//! matters for the finished picture.

use serde::{Deserialize, Serialize};

use super::finite;
use super::schedules::Cost;
use super::step::{encode, predict};
use crate::error::Result;
use crate::pipeline::denoise::{DenoiseState, SamplerState};
use crate::pipeline::transformer::Transformer;
use crate::runtime::Value;

/// How the distance from the last step grows between two steps whose sensitivity is measured.
const GROWTH: f64 = 1.3;
/// A step's sensitivity is measured with the error of reusing the core's output of so many steps
/// before.
const GAP: usize = 2;
/// The squared error of a prediction that is not finite.
const HOPELESS: f64 = 1e30;

/// Sums over pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `errors[i][j]`: squared error of the guided prediction of step j > i made with the core's
    /// output of step i, without the variances.
    errors: Vec<Vec<f64>>,
    /// For each measured step: the step, the squared error put into its prediction, and the squared
    /// error of the finished latents that came of it.
    sensitivity: Vec<(usize, f64, f64)>,
}

impl Record {
    /// Nothing, of runs of `steps` steps.
    pub fn new(steps: usize) -> Record {
        let sensitivity = measured(steps).into_iter().map(|step| (step, 0.0, 0.0)).collect();
        Record { errors: vec![vec![0.0; steps]; steps], sensitivity }
    }

    /// Whether it is of runs of `steps` steps.
    pub fn fits(&self, steps: usize) -> bool {
        let Record { errors, sensitivity } = self;
        let good = |error: f64| error.is_finite() && error >= 0.0;
        errors.len() == steps
            && errors.iter().all(|row| row.len() == steps && row.iter().all(|&error| good(error)))
            && sensitivity.iter().map(|(step, ..)| *step).eq(measured(steps))
            && sensitivity.iter().all(|&(_, put, came)| good(put) && good(came))
    }

    /// Counts the images of `state` in, which is at its first step; for the sensitivity only if
    /// `sensitivity`, which takes three quarters of the time.
    pub fn add(
        &mut self,
        transformer: &mut Transformer,
        mut state: DenoiseState,
        sensitivity: bool,
    ) -> Result<()> {
        let numbers = state.latents().len();
        let mut visited: Vec<SamplerState> = Vec::new();
        let mut outputs: Vec<Vec<Value>> = Vec::new();
        // The prediction of each step with the error of a reuse in it.
        let mut disturbed: Vec<Vec<f32>> = Vec::new();
        for step in 0..state.steps() {
            visited.push(state.sampler_state());
            let shallow = encode(transformer, &mut state)?;
            outputs.push(transformer.core(&state.groups()?, &shallow)?);
            let exact = predict(transformer, &mut state, &shallow, &outputs[step])?;
            let mut prediction = exact.clone();
            for (i, output) in outputs[..step].iter().enumerate() {
                let reused = predict(transformer, &mut state, &shallow, output);
                let Some(reused) = finite(reused)? else {
                    self.errors[i][step] += HOPELESS;
                    continue;
                };
                self.errors[i][step] += square(&reused[..numbers], &exact[..numbers]);
                if i == step.saturating_sub(GAP) {
                    prediction = reused;
                }
            }
            disturbed.push(prediction);
            state.advance(&exact);
            if step > 0 && sensitivity {
                self.injected(step, square(&disturbed[step][..numbers], &exact[..numbers]));
            }
        }
        if !sensitivity {
            return Ok(());
        }
        let clean = state.latents().to_vec();
        for (step, _, error) in &mut self.sensitivity {
            state.rewind(&visited[*step]);
            state.advance(&disturbed[*step]);
            while !state.is_done() {
                let shallow = encode(transformer, &mut state)?;
                let deep = transformer.core(&state.groups()?, &shallow)?;
                let exact = predict(transformer, &mut state, &shallow, &deep)?;
                state.advance(&exact);
            }
            *error += square(state.latents(), &clean);
        }
        Ok(())
    }

    fn injected(&mut self, step: usize, error: f64) {
        let entry = self.sensitivity.iter_mut().find(|(measured, ..)| *measured == step);
        entry.into_iter().for_each(|entry| entry.1 += error);
    }

    /// The squared error of the finished latents that comes of each reuse alone, the error there
    /// times the sensitivity of the step; to `power`.
    pub fn cost(&self, power: f64) -> Cost {
        let weights: Vec<f64> =
            (0..self.errors.len()).map(|step| self.sensitivity_at(step)).collect();
        let cost = |(error, weight): (&f64, &f64)| (error * weight).powf(power);
        let row = |row: &Vec<f64>| row.iter().zip(&weights).map(cost).collect();
        self.errors.iter().map(row).collect()
    }

    /// Between measured steps the logarithm is interpolated.
    fn sensitivity_at(&self, step: usize) -> f64 {
        let log = |&(step, put, came): &(usize, f64, f64)| {
            (step as f64, (came / put).max(f64::MIN_POSITIVE).ln())
        };
        let points = &self.sensitivity;
        let above = points.partition_point(|point| point.0 < step);
        let (Some(right), Some(left)) =
            (points.get(above), points[..above].last().or(points.first()))
        else {
            return points.last().map_or(1.0, |last| log(last).1.exp());
        };
        let ((x0, y0), (x1, y1)) = (log(left), log(right));
        let share = if x1 > x0 { (step as f64 - x0) / (x1 - x0) } else { 0.0 };
        (y0 + share * (y1 - y0)).exp()
    }
}

/// The steps whose sensitivity is measured, ascending: close together at the end, where it changes
/// fast and a run to the end is short.
fn measured(steps: usize) -> Vec<usize> {
    let mut distances: Vec<usize> = Vec::new();
    let mut distance = 0.0f64;
    while (distance as usize) + 1 < steps {
        distances.push(distance as usize);
        distance = (distance * GROWTH).max(distance + 1.0).floor();
    }
    if steps > 1 {
        distances.push(steps - 2); // step 1, the first that can reuse
    }
    distances.dedup();
    distances.iter().rev().map(|distance| steps - 1 - distance).collect()
}

/// `|a - b|^2`
fn square(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensitivity_is_measured_from_the_first_reuse_to_the_last_step() {
        assert!(measured(1).is_empty());
        assert_eq!(measured(2), [1]);
        assert_eq!(measured(6), [1, 2, 3, 4, 5]);
        let steps = measured(50);
        assert!(steps.len() <= 16 && steps.is_sorted_by(|a, b| a < b), "{steps:?}");
        assert_eq!((steps[0], steps[steps.len() - 1]), (1, 49));
    }

    #[test]
    fn costs_are_errors_times_the_sensitivity_between_measured_steps() {
        let mut record = Record::new(4);
        record.errors = vec![vec![0.0, 1.0, 2.0, 3.0]; 4];
        record.sensitivity = vec![(1, 2.0, 2.0), (3, 1.0, 4.0)];
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let cost = record.cost(1.0);
        assert!(near(cost[0][1], 1.0) && near(cost[0][3], 12.0), "{cost:?}");
        assert!(near(cost[0][2], 4.0), "the geometric mean of 1 and 4, times 2");
        assert!(near(record.cost(0.5)[0][2], 2.0));
    }
}
