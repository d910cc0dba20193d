//! The parts of a denoising step that calibration takes one by one.

use crate::cache::Decision;
use crate::error::Result;
use crate::pipeline::denoise::DenoiseState;
use crate::pipeline::transformer::{Shallow, Transformer};
use crate::runtime::Value;

/// How much of the way back to the uncached image a step that reuses is to go, besides being exact.
/// All of it serves the learned images better still, and of others those worse that are far away
/// already.
const BACK: f32 = 0.5;

/// The same of a step that refreshes: there each image's own kept outputs, beside the new one, tell
/// what went wrong since.
const BACK_REFRESHED: f32 = 1.0;

/// What the shallow encoder makes of `state`, for each of its calls.
pub fn encode(transformer: &mut Transformer, state: &mut DenoiseState) -> Result<Vec<Shallow>> {
    state.write_inputs()?;
    transformer.encode(&state.groups()?)
}

/// The guided prediction made with `deep` for the deep core's output.
pub fn predict(
    transformer: &mut Transformer,
    state: &mut DenoiseState,
    shallow: &[Shallow],
    deep: &[Value],
) -> Result<Vec<f32>> {
    let deep: Vec<&Value> = deep.iter().collect();
    let predictions = transformer.decode(&state.groups()?, shallow, &deep)?;
    state.guided(&predictions)
}

/// A step of a picture under way, with all that tells how well a forecast suits it.
pub struct Fitting<'a> {
    pub state: &'a mut DenoiseState,
    pub shallow: &'a [Shallow],
    /// What the core would make of it, for each call, where it reuses.
    pub deep: Vec<Value>,
    /// The guided prediction that is aimed at.
    aim: Vec<f32>,
}

impl<'a> Fitting<'a> {
    /// A step that reuses: runs the core, and keeps nothing of it. `next` are the latents that the
    /// step leads to without a cache.
    pub fn reusing(
        transformer: &mut Transformer,
        state: &'a mut DenoiseState,
        shallow: &'a [Shallow],
        next: &[f32],
    ) -> Result<Fitting<'a>> {
        let deep = transformer.core(&state.groups()?, shallow)?;
        let exact = predict(transformer, state, shallow, &deep)?;
        Ok(Fitting::new(state, shallow, deep, exact, BACK, next))
    }

    /// A step at which the core has run, likewise.
    pub fn refreshed(
        transformer: &mut Transformer,
        state: &'a mut DenoiseState,
        shallow: &'a [Shallow],
        next: &[f32],
    ) -> Result<Fitting<'a>> {
        let exact = predict_with_kept(transformer, state, shallow, 0)?;
        let exact = state.guided(&exact)?;
        Ok(Fitting::new(state, shallow, Vec::new(), exact, BACK_REFRESHED, next))
    }

    /// Aims at `exact`, and `share` of the way back to what leads to `next`.
    fn new(
        state: &'a mut DenoiseState,
        shallow: &'a [Shallow],
        deep: Vec<Value>,
        exact: Vec<f32>,
        share: f32,
        next: &[f32],
    ) -> Fitting<'a> {
        let start = state.sampler_state();
        let step = |prediction: &[f32]| {
            let mut state = start.clone();
            state.advance(prediction);
            state.latents
        };
        let back = back(step, &exact, next);
        let mut aim = exact;
        aim.iter_mut().zip(back).for_each(|(aim, back)| *aim += share * back);
        Fitting { state, shallow, deep, aim }
    }

    /// The guided predictions made with each kept output of the core alone, less the one aimed at,
    /// the latest first; without the variances, whose errors weigh next to nothing in a step.
    pub fn errors(&mut self, transformer: &mut Transformer) -> Result<Vec<Vec<f32>>> {
        let mut errors = Vec::new();
        for index in 0..self.state.kept_outputs() {
            let predictions = predict_with_kept(transformer, self.state, self.shallow, index)?;
            errors.push(self.error(&predictions)?);
        }
        Ok(errors)
    }

    /// The guided prediction made as `decision` has it, less the one aimed at, likewise.
    pub fn error_of(
        &mut self,
        transformer: &mut Transformer,
        decision: Decision,
    ) -> Result<Vec<f32>> {
        self.state.decide(decision);
        let predictions = transformer.predict(&mut self.state.groups()?, self.shallow)?;
        self.error(&predictions)
    }

    fn error(&mut self, predictions: &[Value]) -> Result<Vec<f32>> {
        let mut error = self.state.guided(predictions)?;
        error.truncate(self.state.latents().len());
        error.iter_mut().zip(&self.aim).for_each(|(guided, aim)| *guided -= aim);
        Ok(error)
    }
}

/// The predictions made with the kept output of the core that has this `index`, the latest's is 0.
fn predict_with_kept(
    transformer: &mut Transformer,
    state: &mut DenoiseState,
    shallow: &[Shallow],
    index: usize,
) -> Result<Vec<Value>> {
    let groups = state.groups()?;
    let kept: Vec<&Value> = groups.iter().map(|group| group.kept(index)).collect();
    transformer.decode(&groups, shallow, &kept)
}

/// What has to be added to the prediction `exact` for `step` to lead to the latents `next`; `step` is
/// linear in its prediction. Nothing where the prediction does not matter.
fn back(step: impl Fn(&[f32]) -> Vec<f32>, exact: &[f32], next: &[f32]) -> Vec<f32> {
    let mut more = exact.to_vec();
    more[..next.len()].iter_mut().for_each(|number| *number += 1.0);
    let (exactly, moved) = (step(exact), step(&more));
    let sum: f64 = moved.iter().zip(&exactly).map(|(a, b)| f64::from(a - b)).sum();
    let slope = (sum / next.len() as f64) as f32;
    let back = |(next, led): (&f32, &f32)| if slope == 0.0 { 0.0 } else { (next - led) / slope };
    next.iter().zip(&exactly).map(back).collect()
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;
    use crate::sampler::{NoiseSchedule, Sampler, SamplerKind, Spacing, TorchGenerator};

    const STEPS: usize = 6;

    #[test]
    fn a_prediction_with_what_is_added_leads_to_where_it_is_wanted() {
        let config = include_str!("../../../models/emoji/scheduler/scheduler_config.json");
        let schedule =
            NoiseSchedule::from_scheduler_config(config).expect("the checkpoint's config");
        for &kind in SamplerKind::VARIANTS {
            let spacing = kind.own_spacing().unwrap_or(Spacing::Leading);
            let mut sampler = Sampler::new(kind, &schedule, spacing, STEPS).expect("a sampler");
            let mut noise = vec![TorchGenerator::new(7)];
            let mut latents = noise[0].randn(32);
            for index in 0..STEPS {
                let exact: Vec<f32> = latents.iter().map(|x| 0.8 * x.sin()).collect();
                let step = |prediction: &[f32]| {
                    let (mut sampler, mut latents) = (sampler.clone(), latents.clone());
                    sampler.step(index, prediction, &mut latents, &mut noise.clone());
                    latents
                };
                let near = |x: f32| x + 0.01 * (100.0 * x).cos();
                let next: Vec<f32> = step(&exact).into_iter().map(near).collect();
                let back = back(step, &exact, &next);
                let aim: Vec<f32> = exact.iter().zip(&back).map(|(a, b)| a + b).collect();
                let off =
                    step(&aim).iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-4, "{kind}, step {index}: {off} off");
                sampler.step(index, &exact, &mut latents, &mut noise);
            }
        }
    }
}
