//! The parts of a denoising step that calibration takes one by one.

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

/// The guided predictions made with each kept output of the deep core alone, less that made with
/// the output of this step, the latest first.
pub fn reuse_errors(
    transformer: &mut Transformer,
    state: &mut DenoiseState,
    shallow: &[Shallow],
) -> Result<Vec<Vec<f32>>> {
    let deep = transformer.core(&state.groups()?, shallow)?;
    let exact = predict(transformer, state, shallow, &deep)?;
    let mut errors = Vec::new();
    for index in 0..state.kept_outputs() {
        let groups = state.groups()?;
        let kept: Vec<&Value> = groups.iter().map(|group| group.kept(index)).collect();
        let predictions = transformer.decode(&groups, shallow, &kept)?;
        let mut error = state.guided(&predictions)?;
        error.iter_mut().zip(&exact).for_each(|(guided, exact)| *guided -= exact);
        errors.push(error);
    }
    Ok(errors)
}
