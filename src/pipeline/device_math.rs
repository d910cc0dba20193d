//! Arithmetic on image tokens where they lie, for cache policies: on the host a loop, which is quicker than a call of
//! the engine; elsewhere, and in half precision, graphs of a few nodes, made in memory.

use std::collections::VecDeque;

use hydit_graphs::arithmetic::{self, blend};
use hydit_graphs::{DType, Manifest, Precision};

use crate::error::Result;
use crate::runtime::in_memory;
use crate::runtime::{Backend, Provider, Session, Value};

/// Sums side by side, so that the processor can add several numbers at once.
const LANES: usize = 16;

/// The graphs that were needed so far, and what they are made from.
pub struct Features {
    precision: Precision,
    hidden: usize,
    /// For 2 terms, 3, ...: the session, and its weights.
    blends: Vec<Blend>,
    change: Option<Session>,
}

struct Blend {
    session: Session,
    weights: Vec<Value>,
    names: Vec<[String; 2]>,
}

impl Features {
    /// Nothing is loaded yet.
    pub fn new(manifest: &Manifest) -> Features {
        let hidden = manifest.model.transformer.hidden_size;
        Features { precision: manifest.precision, hidden, blends: Vec::new(), change: None }
    }

    /// Loads what blends of up to `terms` tensors need, and [`Features::change`] if it is `watched`;
    /// nothing where both are loops on the host.
    ///
    /// # Errors
    /// When the temporary folder cannot be written, or what the engine says.
    pub fn prepare(&mut self, backend: &Backend, terms: usize, watched: bool) -> Result<()> {
        if self.precision.compute() == DType::F32 && backend.provider() == Provider::Cpu {
            return Ok(());
        }
        for terms in self.blends.len() + 2..=terms {
            let session =
                in_memory::load(backend, &blend(self.precision, self.hidden, terms), &[])?;
            let weight = |_| Ok(backend.tensor_f32(&[1], &[0.0])?);
            let weights = (0..terms).map(weight).collect::<Result<_>>()?;
            let names = (0..terms).map(|i| [format!("deep_{i}"), format!("weight_{i}")]).collect();
            self.blends.push(Blend { session, weights, names });
        }
        if watched && self.change.is_none() {
            let mut session =
                in_memory::load(backend, &arithmetic::distance(self.precision, self.hidden), &[])?;
            session.outputs_to_host(&["distance"])?;
            self.change = Some(session);
        }
        Ok(())
    }

    /// The sum of the first `weights.len()` of `features`, each times its weight.
    ///
    /// # Panics
    /// With fewer than 2 weights, fewer features, or if it was not prepared for.
    #[track_caller]
    pub fn blend(&mut self, features: &VecDeque<Value>, weights: &[f32]) -> Result<Value> {
        assert!(features.len() >= weights.len(), "{} weights", weights.len());
        let terms = || features.iter().zip(weights);
        let host: Option<Vec<(&[f32], f32)>> =
            terms().map(|(feature, &weight)| Some((feature.host_f32()?, weight))).collect();
        if let Some(terms) = host {
            return Ok(features[0].with_f32(sum(&terms))?);
        }
        let Blend { session, weights: values, names } = &mut self.blends[weights.len() - 2];
        for (value, weight) in values.iter_mut().zip(weights) {
            value.write_f32(&[*weight])?;
        }
        let terms = names.iter().zip(features).zip(&*values);
        let inputs: Vec<(&str, &Value)> = terms
            .flat_map(|(([deep, weight], feature), value)| {
                [(deep.as_str(), feature), (weight.as_str(), value)]
            })
            .collect();
        Ok(session.run(&inputs)?.remove(0))
    }

    /// How far `now` is from `before`: root mean square of the difference over that of `before`.
    ///
    /// # Panics
    /// If it was not prepared for.
    #[track_caller]
    pub fn change(&mut self, now: &Value, before: &Value) -> Result<f32> {
        if let Some(change) = change_on_host(now, before) {
            return Ok(change);
        }
        let session = self.change.as_mut().expect("prepared");
        Ok(session.run(&[("now", now), ("before", before)])?[0].read_f32()?[0])
    }
}

/// As [`Features::change`], where both are f32 in the memory of the host.
pub fn change_on_host(now: &Value, before: &Value) -> Option<f32> {
    Some(distance(now.host_f32()?, before.host_f32()?))
}

/// In one pass over the two or three terms there are.
fn sum(terms: &[(&[f32], f32)]) -> Vec<f32> {
    match *terms {
        [(x, a), (y, b)] => x.iter().zip(y).map(|(x, y)| x * a + y * b).collect(),
        [(x, a), (y, b), (z, c)] => {
            x.iter().zip(y).zip(z).map(|((x, y), z)| x * a + y * b + z * c).collect()
        }
        _ => panic!("{} terms", terms.len()),
    }
}

fn distance(now: &[f32], before: &[f32]) -> f32 {
    let (mut moved, mut size) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut add = |i: usize, now: f32, before: f32| {
        moved[i] += (now - before) * (now - before);
        size[i] += before * before;
    };
    let (now, now_rest) = now.as_chunks::<LANES>();
    let (before, before_rest) = before.as_chunks::<LANES>();
    for (now, before) in now.iter().zip(before) {
        (0..LANES).for_each(|i| add(i, now[i], before[i]));
    }
    now_rest.iter().zip(before_rest).for_each(|(now, before)| add(0, *now, *before));
    let total = |lanes: [f32; LANES]| lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
    (total(moved) / total(size)).sqrt() as f32
}
