//! Inputs made from their names, by the rule at the top of `tests/reference/synthetic.py`. The
//! weights made by the same rule are `hydit_export::synth`'s.

use hydit_export::synth::rule::{Spread, bits, fnv1a64};

use super::tensor::Tensor;

/// A float input of size up to `scale`.
pub fn floats(name: &str, shape: &[usize], scale: f64) -> Tensor {
    let (spread, state) = (Spread { offset: 0.0, scale }, fnv1a64(&format!("input.{name}")));
    let count = shape.iter().product::<usize>() as u64;
    Tensor::f32(shape, (0..count).map(|i| spread.value(state, i)).collect())
}

/// An integer input from 0 to below `range`.
pub fn integers(name: &str, shape: &[usize], range: u64) -> Tensor {
    let state = fnv1a64(&format!("input.{name}"));
    let count = shape.iter().product::<usize>() as u64;
    Tensor::i64(shape, (0..count).map(|i| (bits(state, i) % range) as i64).collect())
}

/// A row of `length` per entry of `lengths`: as many ones as it says, then zeros.
pub fn prefix_mask(lengths: &[usize], length: usize) -> Tensor {
    let row = |ones: &usize| (0..length).map(|i| i64::from(i < *ones)).collect::<Vec<_>>();
    Tensor::i64(&[lengths.len(), length], lengths.iter().flat_map(row).collect())
}
