//! Arithmetic on image tokens where they lie, for cache policies: sums on the host by a loop, which
//! is quicker than a call of the engine; elsewhere, and for matrix products, by graphs of a few
//! nodes, made in memory.

use std::collections::VecDeque;

use hydit_graphs::Manifest;
use hydit_graphs::arithmetic::{align, blend, correct, distance as distance_graph};

use super::host_math::{aligned, distance, sum};
use crate::cache::{Compared, Correction, RANK};
use crate::error::Result;
use crate::runtime::{Backend, Session, Value, in_memory};

/// Sums and distances of the deep core's outputs.
pub struct DeviceMath {
    backend: Backend,
    /// Channels of a token.
    hidden: usize,
    /// The graphs for 2 terms, 3, and so on, as far as they were needed.
    blends: Vec<Blend>,
    change: Option<Session>,
    correct: Option<Session>,
    align: Option<Session>,
}

struct Blend {
    session: Session,
    weights: Vec<Value>,
    names: Vec<[String; 2]>,
}

impl DeviceMath {
    /// Nothing is loaded yet.
    pub fn new(manifest: &Manifest, backend: &Backend) -> DeviceMath {
        DeviceMath {
            backend: backend.clone(),
            hidden: manifest.model.transformer.shape().hidden_size,
            blends: Vec::new(),
            change: None,
            correct: None,
            align: None,
        }
    }

    /// Loads what blends of up to `terms` tensors need, and what is done with the shallow encoder's
    /// outputs that are `compared`, so that no step waits for it. Nothing for loops on the host.
    ///
    /// # Errors
    /// When the temporary folder cannot be written, or what the backend says.
    pub fn prepare(&mut self, terms: usize, compared: Compared) -> Result<()> {
        if compared == Compared::LastRefresh {
            self.correct_session()?;
        }
        if self.backend.provider().is_on_host() {
            return Ok(());
        }
        if terms >= 2 {
            self.blend_of(terms)?;
        }
        match compared {
            Compared::Nothing | Compared::LastRefresh => {}
            Compared::StepBefore => {
                self.change_session()?;
            }
            Compared::LastTwoRefreshes => {
                self.align_session()?;
            }
        }
        Ok(())
    }

    /// The graph that adds `terms` tensors, 2 or more.
    fn blend_of(&mut self, terms: usize) -> Result<&mut Blend> {
        for terms in self.blends.len() + 2..=terms {
            let graph = blend(self.hidden, terms);
            let session = in_memory::load(&self.backend, &graph, &[])?;
            let mut weights = Vec::with_capacity(terms);
            for _ in 0..terms {
                weights.push(self.backend.tensor_f32(&[1], &[0.0])?);
            }
            let names = (0..terms).map(|i| [format!("deep_{i}"), format!("weight_{i}")]).collect();
            self.blends.push(Blend { session, weights, names });
        }
        Ok(&mut self.blends[terms - 2])
    }

    fn change_session(&mut self) -> Result<&mut Session> {
        if self.change.is_none() {
            let graph = distance_graph(self.hidden);
            let mut session = in_memory::load(&self.backend, &graph, &[])?;
            session.outputs_to_host(&["distance"])?;
            self.change = Some(session);
        }
        Ok(self.change.as_mut().expect("loaded above"))
    }

    /// The sum of the first `weights.len()` of `features`, `[rows, tokens, hidden]` each, times
    /// their weights.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// # Panics
    /// With fewer than 2 weights, or fewer features than weights.
    #[track_caller]
    pub fn blend(&mut self, features: &VecDeque<Value>, weights: &[f32]) -> Result<Value> {
        assert!(features.len() >= weights.len(), "{} weights", weights.len());
        let terms = features.iter().zip(weights);
        let on_host: Option<Vec<(&[f32], f32)>> =
            terms.map(|(feature, &weight)| Some((feature.host_f32()?, weight))).collect();
        if let Some(terms) = on_host {
            return Ok(features[0].with_f32(sum(&terms))?);
        }
        self.blend_by_graph(features, weights)
    }

    fn blend_by_graph(&mut self, features: &VecDeque<Value>, weights: &[f32]) -> Result<Value> {
        let Blend { session, weights: values, names } = self.blend_of(weights.len())?;
        for (value, weight) in values.iter_mut().zip(weights) {
            value.write_f32(&[*weight])?;
        }
        let mut inputs = Vec::with_capacity(2 * weights.len());
        for (([deep, weight], feature), value) in names.iter().zip(features).zip(&*values) {
            inputs.extend([(deep.as_str(), feature), (weight.as_str(), value)]);
        }
        Ok(session.run_single(&inputs)?)
    }

    fn correct_session(&mut self) -> Result<&mut Session> {
        if self.correct.is_none() {
            let graph = correct(self.hidden, RANK);
            self.correct = Some(in_memory::load(&self.backend, &graph, &[])?);
        }
        Ok(self.correct.as_mut().expect("loaded above"))
    }

    /// `deep` with `correction` added, the shallow encoder's output being `now`, and `before` at the
    /// last refresh: `[rows, tokens, hidden]` all.
    ///
    /// # Errors
    /// What the backend says.
    pub fn correct(
        &mut self,
        deep: &Value,
        correction: &Correction,
        now: &Value,
        before: &Value,
    ) -> Result<Value> {
        let hidden = correction.hidden();
        let down = self.backend.tensor_f32(&[hidden, RANK], correction.down())?;
        let up = self.backend.tensor_f32(&[RANK, hidden], correction.up())?;
        let inputs =
            [("deep", deep), ("now", now), ("before", before), ("down", &down), ("up", &up)];
        Ok(self.correct_session()?.run_single(&inputs)?)
    }

    fn align_session(&mut self) -> Result<&mut Session> {
        if self.align.is_none() {
            self.align = Some(in_memory::load(&self.backend, &align(self.hidden), &[])?);
        }
        Ok(self.align.as_mut().expect("loaded above"))
    }

    /// The latest two of `kept`, continued as [`align`] has it. The shallow encoder has made `now` at
    /// the step, `before` and `earlier` at their refreshes. All are `[rows, tokens, hidden]`.
    ///
    /// # Errors
    /// What the backend says.
    ///
    /// # Panics
    /// With fewer than 2 outputs.
    #[track_caller]
    pub fn align(
        &mut self,
        kept: &VecDeque<Value>,
        now: &Value,
        before: &Value,
        earlier: &Value,
    ) -> Result<Value> {
        let values = [&kept[0], &kept[1], now, before, earlier];
        let on_host: Option<Vec<&[f32]>> = values.iter().map(|value| value.host_f32()).collect();
        match on_host.as_deref() {
            Some(&[deep, deep_before, now, before, earlier]) => {
                let row = deep.len() / kept[0].shape()[0];
                let aligned = aligned([deep, deep_before], [now, before, earlier], row);
                Ok(kept[0].with_f32(aligned)?)
            }
            _ => self.align_by_graph(values),
        }
    }

    fn align_by_graph(&mut self, values: [&Value; 5]) -> Result<Value> {
        let names = ["deep", "deep_before", "now", "before", "earlier"];
        let inputs: Vec<(&str, &Value)> = names.into_iter().zip(values).collect();
        Ok(self.align_session()?.run_single(&inputs)?)
    }

    /// How far `now` is from `before`: root mean square of the difference over that of `before`.
    ///
    /// # Errors
    /// What the backend says.
    pub fn change(&mut self, now: &Value, before: &Value) -> Result<f32> {
        match change_on_host(now, before) {
            Some(change) => Ok(change),
            None => self.change_by_graph(now, before),
        }
    }

    fn change_by_graph(&mut self, now: &Value, before: &Value) -> Result<f32> {
        let change = self.change_session()?.run_single(&[("now", now), ("before", before)])?;
        Ok(change.read_f32()?[0])
    }
}

/// As [`DeviceMath::change`], where both are f32 in the memory of the host.
pub(crate) fn change_on_host(now: &Value, before: &Value) -> Option<f32> {
    Some(distance(now.host_f32()?, before.host_f32()?))
}

#[cfg(test)]
mod tests {
    use hydit_testing::emoji;

    use super::*;
    use crate::artifacts::Artifacts;
    use crate::cache::Plan;
    use crate::runtime::{BackendChoice, RuntimeOptions};
    use crate::sampler::SamplerKind;
    use crate::{Pipeline, Request};

    #[test]
    fn the_graphs_compute_what_the_loops_do() {
        let Artifacts { manifest, .. } = Artifacts::open(&emoji::artifacts()).expect("an export");
        for backend in [BackendChoice::Ort, BackendChoice::Tract] {
            let options = RuntimeOptions { backend, threads: Some(2), ..Default::default() };
            let backend = Backend::open(&options).expect("an engine");
            let mut math = DeviceMath::new(&manifest, &backend);
            let shape = [2, 5, manifest.model.transformer.shape().hidden_size];
            let size: usize = shape.iter().product();
            let value = |k: usize| {
                let numbers: Vec<f32> = (0..size).map(|i| ((i * k) % 17) as f32 / 8.0).collect();
                backend.tensor_f32(&shape, &numbers).expect("a tensor")
            };
            let kept: VecDeque<Value> = (3..6).map(value).collect();
            for weights in [&[1.5, -0.5][..], &[1.75, -1.0, 0.25]] {
                let by_graph = math.blend_by_graph(&kept, weights).expect("it runs");
                let by_loop = math.blend(&kept, weights).expect("it runs");
                let pairs = [by_graph, by_loop].map(|v| v.read_f32().expect("f32").into_owned());
                let [a, b] = &pairs;
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6) && a[1] != 0.0);
            }
            let by_graph = math.change_by_graph(&kept[0], &kept[1]).expect("it runs");
            let by_loop = math.change(&kept[0], &kept[1]).expect("it runs");
            assert!((by_graph - by_loop).abs() < 1e-6 && by_loop > 0.1, "{by_graph} {by_loop}");

            // The second row has not moved, and stays where it is.
            let half = size / 2;
            let moved = |by: f32| {
                let numbers: Vec<f32> =
                    (0..size)
                        .map(|i| {
                            if i < half {
                                by * ((i % 7) as f32 - 2.0) + (i % 3) as f32
                            } else {
                                1.0
                            }
                        })
                        .collect();
                backend.tensor_f32(&shape, &numbers).expect("a tensor")
            };
            let [now, before, earlier] = [1.5, 1.0, 0.0].map(moved);
            let by_graph = math.align_by_graph([&kept[0], &kept[1], &now, &before, &earlier]);
            let by_loop = math.align(&kept, &now, &before, &earlier);
            let [by_graph, by_loop, latest, before] =
                [&by_graph.expect("it runs"), &by_loop.expect("it runs"), &kept[0], &kept[1]]
                    .map(|value| value.read_f32().expect("f32").into_owned());
            assert!(by_graph.iter().zip(&by_loop).all(|(a, b)| (a - b).abs() < 1e-5));
            for (i, aligned) in by_loop.iter().enumerate() {
                let on = if i < half { 0.5 * (latest[i] - before[i]) } else { 0.0 };
                assert!((aligned - latest[i] - on).abs() < 1e-5, "half as far again: {i}");
            }
            let sideways = math.align(&kept, &kept[0], &kept[1], &kept[2]).expect("it runs");
            let sideways = sideways.read_f32().expect("f32").into_owned();
            assert_eq!(sideways, latest, "two lines that do not agree");

            let hidden = shape[2];
            let factor = |k: usize| -> Vec<f32> {
                (0..hidden * RANK).map(|i| ((i * k) % 5) as f32 / 32.0).collect()
            };
            let correction = Correction::new(&factor(3), &factor(7)).expect("factors");
            let corrected = math.correct(&kept[0], &correction, &kept[1], &kept[2]);
            let corrected = corrected.expect("it runs");
            let [deep, now, before, corrected] = [&kept[0], &kept[1], &kept[2], &corrected]
                .map(|value| value.read_f32().expect("f32").into_owned());
            let (down, up) = (correction.down(), correction.up());
            let thin = |r: usize| -> f32 {
                (0..hidden).map(|h| (now[h] - before[h]) * down[h * RANK + r]).sum()
            };
            for column in [0, 1, hidden - 1] {
                let added: f32 = (0..RANK).map(|r| thin(r) * up[r * hidden + column]).sum();
                let by_hand = deep[column] + added;
                assert!(
                    (corrected[column] - by_hand).abs() < 1e-4,
                    "{} {by_hand}",
                    corrected[column]
                );
                assert!(added.abs() > 1e-2, "{added}");
            }
        }
    }

    /// Where tensors lie on a device, one number comes to the host at each step, and a probe decides
    /// by it just as it does here.
    #[test]
    fn a_probe_decides_by_the_graph_as_by_the_loop() {
        let options =
            RuntimeOptions { backend: BackendChoice::Ort, threads: Some(2), ..Default::default() };
        let backend = Backend::open(&options).expect("an engine");
        let mut pipeline = Pipeline::load(&emoji::artifacts(), backend.clone()).expect("a model");
        let mut math = DeviceMath::new(pipeline.manifest(), &backend);
        for (policy, prompt) in
            [("probe:0.4", "a cat on a blue background"), ("probe:0.6-6+taylor1", "红色背景上的狗")]
        {
            let usual = Request::new(pipeline.manifest(), prompt).expect("a request");
            let cache_policy = policy.parse().expect("a policy");
            let sampler = SamplerKind::Dpmms;
            let request = Request { cache_policy, sampler, steps: 20, seed: 7, ..usual };
            let request = request.check(pipeline.artifacts()).expect("it is fine");
            let Plan::Reactive(mut watch) = request.plan().clone() else { panic!("{policy}") };
            let mut state = pipeline.begin(&request).expect("it begins");
            let mut transformer = pipeline.transformer().expect("it is loaded");
            let mut refreshes = 0;
            while !state.is_done() {
                state.write_inputs().expect("inputs");
                let shallow =
                    transformer.encode(&state.groups().expect("groups")).expect("it runs");
                let mut changes = Vec::new();
                for (rows, shallow) in state.running().iter().zip(&shallow) {
                    let Some(before) = &rows.before else { continue };
                    let by_graph = math.change_by_graph(shallow.x(), before).expect("it runs");
                    let by_loop = math.change(shallow.x(), before).expect("it runs");
                    // Sums of squares in fp32, in another order.
                    assert!((by_graph / by_loop - 1.0).abs() < 1e-5, "{by_graph} {by_loop}");
                    changes.push(by_graph);
                }
                let change = changes.iter().sum::<f32>() / changes.len().max(1) as f32;
                let expected = watch.decide(state.steps_done(), change);
                let step = transformer.step(&mut state).expect("a step");
                assert_eq!(step.decision, expected, "{policy}, step {}", step.index);
                refreshes += usize::from(expected.refreshes());
            }
            assert!((3..18).contains(&refreshes), "{policy}: {refreshes} of 20");
        }
    }
}
