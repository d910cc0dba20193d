//! The parts of a denoising step that calibration takes one by one.

use crate::cache::Decision;
use crate::error::Result;
use crate::pipeline::denoise::DenoiseState;
use crate::pipeline::transformer::{Shallow, Transformer};
use crate::runtime::Value;

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

/// A step of a picture that could reuse, with all that tells how well.
pub struct Reusing<'a> {
    pub state: &'a mut DenoiseState,
    pub shallow: &'a [Shallow],
    /// What the core makes of it, for each call.
    pub deep: Vec<Value>,
    /// The guided prediction that follows.
    exact: Vec<f32>,
}

impl<'a> Reusing<'a> {
    /// Runs the core, and keeps nothing of it.
    pub fn new(
        transformer: &mut Transformer,
        state: &'a mut DenoiseState,
        shallow: &'a [Shallow],
    ) -> Result<Reusing<'a>> {
        let deep = transformer.core(&state.groups()?, shallow)?;
        let exact = predict(transformer, state, shallow, &deep)?;
        Ok(Reusing { state, shallow, deep, exact })
    }

    /// The guided predictions made with each kept output of the core alone, less the exact one, the
    /// latest first; without the variances, whose errors weigh next to nothing in a step.
    pub fn errors(&mut self, transformer: &mut Transformer) -> Result<Vec<Vec<f32>>> {
        let mut errors = Vec::new();
        for index in 0..self.state.kept_outputs() {
            let groups = self.state.groups()?;
            let kept: Vec<&Value> = groups.iter().map(|group| group.kept(index)).collect();
            let predictions = transformer.decode(&groups, self.shallow, &kept)?;
            errors.push(self.error(&predictions)?);
        }
        Ok(errors)
    }

    /// The guided prediction made as `decision` has it, less the exact one, likewise.
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
        error.iter_mut().zip(&self.exact).for_each(|(guided, exact)| *guided -= exact);
        Ok(error)
    }
}
