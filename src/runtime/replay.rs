//! Runs that read and write at the same addresses each time, as CUDA graphs want it: what was captured
//! of a run is replayed where that was, whatever the next run is given.
//!
//! For inputs of some shapes a session has a [`Place`]. What a run is given is copied there, and what it
//! has made is copied away. After a capture the arena of the session hands out again what the captured
//! run computes in, so nothing that outlives a run may lie in that arena: copies lie in those of ort's
//! sessions that copy.

use ort::{
    memory::{AllocationDevice, MemoryInfo},
    session::{IoBinding, RunOptions, Session},
    value::{DynTensor, DynTensorValueType},
};

use super::onnxruntime::memory;

/// How many shapes of inputs a session has places for. A place stays for as long as the session, and so
/// does what was captured there; runs of further shapes are not captured.
const PLACES: usize = 8;

/// The places of a session.
pub struct Replay {
    device: AllocationDevice<'static>,
    places: Vec<Place>,
}

/// Where runs on inputs of the same shapes read and write.
struct Place {
    inputs: Vec<(String, DynTensor)>,
    /// It keeps the outputs of its first run, which later ones write into.
    binding: IoBinding,
    options: RunOptions,
}

impl Replay {
    /// Of a session that computes on `device`.
    pub fn on(device: AllocationDevice<'static>) -> Replay {
        Replay { device, places: Vec::new() }
    }

    /// Runs `session` on `inputs`; returns its `outputs`, each in the memory in which it is wanted.
    ///
    /// # Errors
    /// In ONNX Runtime's words.
    pub fn run(
        &mut self,
        session: &mut Session,
        inputs: &[(&str, &DynTensor)],
        outputs: &[(String, MemoryInfo<'static>)],
    ) -> Result<Vec<DynTensor>, ort::Error> {
        let known = self.places.iter().position(|place| place.fits(inputs));
        let mut beyond;
        let place = match (known, self.places.len()) {
            (Some(known), _) => {
                let place = &mut self.places[known];
                place.take(inputs)?;
                place
            }
            (None, PLACES) => {
                beyond = Place::new(session, &self.device, inputs, outputs, None)?;
                &mut beyond
            }
            (None, number) => {
                let place = Place::new(session, &self.device, inputs, outputs, Some(number))?;
                self.places.push(place);
                &mut self.places[number]
            }
        };
        place.run(session, outputs)
    }
}

impl Place {
    /// A place with copies of `inputs` on `device`. Runs there are captured as `number`, if they are.
    fn new(
        session: &Session,
        device: &AllocationDevice<'static>,
        inputs: &[(&str, &DynTensor)],
        outputs: &[(String, MemoryInfo<'static>)],
        number: Option<usize>,
    ) -> Result<Place, ort::Error> {
        let mut options = RunOptions::new()?;
        // The number by which ONNX Runtime knows it; it captures nothing for -1.
        let number = number.map_or("-1".to_string(), |number| number.to_string());
        options.set("gpu_graph_id", number)?;
        let mut binding = session.create_binding()?;
        let mut own = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let tensor = tensor.to(device.clone(), 0)?;
            binding.bind_input(*name, &tensor)?;
            own.push((name.to_string(), tensor));
        }
        let memory = memory(device.clone())?;
        for (name, _) in outputs {
            binding.bind_output_to_device(name.as_str(), &memory)?;
        }
        binding.synchronize_inputs()?;
        Ok(Place { inputs: own, binding, options })
    }

    /// Whether `inputs` are those of this place, in type and shape.
    fn fits(&self, inputs: &[(&str, &DynTensor)]) -> bool {
        let same = |((own, tensor), (name, given)): (&(String, DynTensor), &(&str, &DynTensor))| {
            own == name
                && tensor.data_type() == given.data_type()
                && tensor.shape() == given.shape()
        };
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(same)
    }

    /// Copies `inputs`, which fit, to this place.
    fn take(&mut self, inputs: &[(&str, &DynTensor)]) -> Result<(), ort::Error> {
        let mut pairs = self.inputs.iter_mut().zip(inputs);
        pairs.try_for_each(|((_, own), (_, given))| given.copy_into(own))
    }

    fn run(
        &mut self,
        session: &mut Session,
        outputs: &[(String, MemoryInfo<'static>)],
    ) -> Result<Vec<DynTensor>, ort::Error> {
        let made = session.run_binding_with_options(&self.binding, &self.options)?;
        let copied = made.into_iter().zip(outputs).map(|((_, value), (_, wanted))| {
            let value = value.downcast::<DynTensorValueType>()?;
            value.to(wanted.allocation_device(), wanted.device_id())
        });
        copied.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hydit_testing::emoji;

    use super::*;
    use crate::cache::CachePolicy;
    use crate::runtime::{Backend, BackendChoice, Engine, Inner, RuntimeOptions, Value};
    use crate::{Pipeline, Request};

    fn backend() -> Backend {
        let options = RuntimeOptions { backend: BackendChoice::Ort, ..Default::default() };
        Backend::open(&options).expect("scripts/setup-ort was run")
    }

    /// Where `place` reads and writes.
    fn addresses(place: &Place, session: &mut Session) -> Vec<usize> {
        let made = session.run_binding_with_options(&place.binding, &place.options);
        let made = made.expect("it runs").into_iter();
        let made = made.map(|(_, value)| value.downcast::<DynTensorValueType>().expect("a tensor"));
        let outputs = made.map(|tensor| tensor.data_ptr() as usize);
        place.inputs.iter().map(|(_, own)| own.data_ptr() as usize).chain(outputs).collect()
    }

    #[test]
    fn runs_on_inputs_of_a_shape_stay_in_their_place_and_what_they_made_is_kept() {
        let backend = backend();
        let Engine::Ort(runtime) = &backend.engine else { unreachable!("it was asked for") };
        let graph = "tests/reference/runtime/attention.onnx";
        let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join(graph);
        let (mut plain, ..) = runtime.load(&graph, None, false, true).expect("it loads");
        let mut builder = runtime.builder(true).expect("a builder");
        let session = &mut builder.commit_from_file(&graph).expect("it loads");
        let name = session.outputs()[0].name().to_string();
        let outputs = [(name, memory(AllocationDevice::CPU).expect("a kind of it"))];
        let mut replay = Replay::on(AllocationDevice::CPU);

        let numbers = |made: &DynTensor| {
            let (_, numbers) = made.try_extract_tensor::<f32>().expect("floats");
            numbers.to_vec()
        };
        let (mut known, mut kept) = (Vec::new(), Vec::new());
        for round in 0..3 {
            for tokens in 1..=PLACES + 2 {
                let x = (0..tokens * 8).map(|i| (i as f32 + round as f32).sin()).collect();
                let x = Value::make(true, &[1, tokens, 8], x).expect("a tensor");
                let Inner::Ort(x) = &x.0 else { unreachable!("it was asked for") };
                let made = replay.run(session, &[("x", x)], &outputs).expect("it runs");
                let expected = plain.run([("x", x)].into_iter()).expect("it runs");
                kept.push((made, numbers(&expected[0])));
            }
            for (made, expected) in &kept {
                assert_eq!(&numbers(&made[0]), expected);
            }
            assert_eq!(replay.places.len(), PLACES);
            let now = replay.places.iter().map(|place| addresses(place, session));
            known.push(now.collect::<Vec<_>>());
            assert_eq!(known[round], known[0], "round {round}");
        }
    }

    #[test]
    fn pictures_are_those_of_plain_runs() {
        let draw = |replays: bool| {
            let mut backend = backend();
            let Engine::Ort(runtime) = &mut backend.engine else {
                unreachable!("it was asked for")
            };
            runtime.replays = replays;
            let mut pipeline = Pipeline::load(&emoji::artifacts(), backend).expect("it loads");
            let policies = [(128, "N2"), (64, "N2+taylor2"), (128, "probe:0.1"), (128, "off")];
            policies.map(|(side, policy)| {
                let cache_policy: CachePolicy = policy.parse().expect("a policy");
                let request = Request::new(pipeline.manifest(), "a cat").expect("the defaults");
                let request =
                    Request { height: side, width: side, steps: 6, cache_policy, ..request };
                let request = request.check(pipeline.artifacts()).expect("a good request");
                let made = pipeline.generate(&request, &mut |_| ()).expect("it draws");
                (made.latents, made.images[0].rgb.clone())
            })
        };
        assert!(draw(true) == draw(false));
    }
}
