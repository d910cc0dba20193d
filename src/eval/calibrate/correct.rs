//! Fits the correction of a step, and tries it on pictures that it was not fitted to.

use super::low_rank::Moments;
use super::step::Fitting;
use crate::cache::{Correction, Decision, Forecast};
use crate::error::Result;
use crate::pipeline::transformer::Transformer;
use crate::runtime::Value;

/// Parts of the pictures, each tried with what is fitted to the others.
const FOLDS: usize = 4;

/// Tokens of a row that are fitted to, at most, evenly spread.
const TOKENS: usize = 256;

/// The share of the squared error that a correction must take away on pictures it has not seen.
const GAIN: f64 = 0.02;

/// The correction of what `forecast` leaves over at the step under way of `pictures`, as strong as
/// serves those that it was not fitted to; `None` where it serves them too little.
///
/// Fitted are all rows, and for each picture the combination of its rows that guidance makes, by
/// which an error counts.
pub fn correction(
    transformer: &mut Transformer,
    pictures: &mut [Fitting<'_>],
    forecast: &Forecast,
) -> Result<Option<Correction>> {
    let folds = FOLDS.min(pictures.len());
    if folds < 2 {
        return Ok(None);
    }
    let mut fitted: Vec<Moments> = Vec::new();
    for (i, picture) in pictures.iter_mut().enumerate() {
        let (moved, left) = samples(picture, forecast)?;
        let hidden = picture.deep[0].shape()[2];
        if i < folds {
            fitted.push(Moments::new(hidden));
        }
        fitted[i % folds].include(&moved, &left);
    }
    let sum = |skipped: Option<usize>| {
        let parts = fitted.iter().enumerate().filter(|(fold, _)| Some(*fold) != skipped);
        parts.map(|(_, moments)| moments.clone()).reduce(|sum, part| sum + &part)
    };
    // With e the error of the forecast and d what the correction changes: |e + s d|^2.
    let [mut ee, mut ed, mut dd] = [0.0; 3];
    for fold in 0..folds {
        let Some(others) = sum(Some(fold)).and_then(|others| others.fit(1.0)) else {
            return Ok(None);
        };
        let corrected = forecast.clone().corrected(Some(others));
        for picture in pictures.iter_mut().skip(fold).step_by(folds) {
            let before = picture.error_of(transformer, Decision::Reuse(forecast.clone()))?;
            let after = picture.error_of(transformer, Decision::Reuse(corrected.clone()))?;
            for (before, after) in before.iter().zip(&after) {
                let (e, d) = (f64::from(*before), f64::from(after - before));
                (ee, ed, dd) = (ee + e * e, ed + e * d, dd + d * d);
            }
        }
    }
    let strength = (-ed / dd.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let gained = -(2.0 * strength * ed + strength * strength * dd);
    if gained < GAIN * ee {
        return Ok(None);
    }
    Ok(sum(None).and_then(|all| all.fit(strength)))
}

/// How far the encoder's output of `picture` has moved since the last refresh, and what `forecast`
/// lacks of the core's output: `[n, hidden]` each, row by row.
fn samples(picture: &mut Fitting<'_>, forecast: &Forecast) -> Result<(Vec<f32>, Vec<f32>)> {
    let (mut moved, mut left) = (Vec::new(), Vec::new());
    let mut shape = Vec::new();
    for ((group, shallow), deep) in
        picture.state.groups()?.iter_mut().zip(picture.shallow).zip(&picture.deep)
    {
        let rows = group.rows().next().expect("the rows of one request");
        shape = deep.shape();
        let before = rows.before.as_ref().expect("the first step has refreshed");
        add(&mut moved, shallow.x(), &[1.0, -1.0], [before])?;
        let kept = forecast.weights().iter().map(|weight| -weight);
        let weights: Vec<f32> = std::iter::once(1.0).chain(kept).collect();
        add(&mut left, deep, &weights, rows.kept.iter())?;
    }
    let [_, tokens, hidden] = shape[..] else { unreachable!("rows, tokens, hidden") };
    let request = picture.state.request();
    let row = tokens * hidden;
    let stride = hidden * tokens.div_ceil(TOKENS);
    let thinned = |all: Vec<f32>| -> Vec<f32> {
        let part = all.len() / request.rows_per_image();
        let mut guided = Vec::new();
        if request.guided() {
            let g = request.guidance_scale;
            let (negative, positive) = (&all[..part], &all[part..2 * part]);
            guided.extend(negative.iter().zip(positive).map(|(n, p)| g * p - (g - 1.0) * n));
        }
        let rows = all.chunks(row).chain(guided.chunks(row));
        rows.flat_map(|row| row.chunks(stride)).flat_map(|some| &some[..hidden]).copied().collect()
    };
    Ok((thinned(moved), thinned(left)))
}

/// Appends the sum of `first` and `others`, each times its weight, to `all`.
fn add<'v>(
    all: &mut Vec<f32>,
    first: &Value,
    weights: &[f32],
    others: impl IntoIterator<Item = &'v Value>,
) -> Result<()> {
    let start = all.len();
    all.extend(first.read_f32()?.iter().map(|number| weights[0] * number));
    for (value, weight) in others.into_iter().zip(&weights[1..]) {
        let numbers = value.read_f32()?;
        all[start..].iter_mut().zip(&*numbers).for_each(|(sum, number)| *sum += weight * number);
    }
    Ok(())
}
