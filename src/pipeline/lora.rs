//! LoRAs as inputs of the graphs.

use std::collections::HashMap;
use std::rc::Rc;

use hydit_graphs::lora::{GRAPHS, Stack, stacks};
use hydit_graphs::{DType, Manifest};

use crate::error::Result;
use crate::lora::{Chosen, rank};
use crate::request::CheckedRequest;
use crate::runtime::{Backend, Value};

/// Bytes of inputs that are kept for requests to come. Those of one request may be more.
const KEPT_BYTES: usize = 1 << 30;

/// What the graphs with slots read of a request's LoRAs, where they compute. Nothing, of an export
/// without slots.
pub struct LoraInputs {
    /// By graph, in the order of [`GRAPHS`]: names and values.
    graphs: [Vec<(&'static str, Value)>; GRAPHS.len()],
    bytes: usize,
}

impl LoraInputs {
    /// The inputs for the LoRAs of `request`, which was checked against the model of `manifest`.
    ///
    /// # Errors
    /// When `backend` cannot make them.
    pub fn of(
        manifest: &Manifest,
        backend: &Backend,
        request: &CheckedRequest,
    ) -> Result<LoraInputs> {
        LoraInputs::new(manifest, backend, request.chosen_loras())
    }

    fn new(manifest: &Manifest, backend: &Backend, chosen: &[Chosen]) -> Result<LoraInputs> {
        let mut inputs = LoraInputs { graphs: Default::default(), bytes: 0 };
        let dtype = manifest.precision.compute();
        for Matrices { graph, name, shape, numbers } in matrices(manifest, chosen) {
            let value = match dtype {
                DType::F16 => backend.tensor_f16(&shape, &numbers)?,
                DType::BF16 => backend.tensor_bf16(&shape, &numbers)?,
                _ => backend.tensor_f32(&shape, &numbers)?,
            };
            inputs.bytes += numbers.len() * dtype.size();
            inputs.graphs[graph].push((name, backend.to_device(value)?));
        }
        Ok(inputs)
    }

    /// The inputs of `graph`, names and values; none, if it has no slots.
    pub fn of_graph<'a>(&'a self, graph: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let place = GRAPHS.iter().position(|known| *known == graph);
        let values = place.map_or(&[][..], |place| &self.graphs[place]);
        values.iter().map(|(name, value)| (*name, value))
    }
}

/// An input of a graph with slots.
pub(super) struct Matrices {
    /// The graph's place in [`GRAPHS`].
    pub graph: usize,
    pub name: &'static str,
    pub shape: [usize; 3],
    pub numbers: Vec<f32>,
}

/// The inputs of all graphs for `chosen`, in the order of the graphs; none, of an export without
/// slots.
pub(super) fn matrices(manifest: &Manifest, chosen: &[Chosen]) -> impl Iterator<Item = Matrices> {
    let (dit, n) = (manifest.model.transformer.hunyuan_dit(), manifest.cache_at_branch);
    let dit = dit.filter(|_| manifest.lora_slots.is_some());
    let rank = rank(chosen);
    let graphs = dit.into_iter().flat_map(|dit| GRAPHS.map(|name| (name, dit)));
    let stacks = graphs.enumerate().flat_map(move |(graph, (name, dit))| {
        stacks(name, dit, n).into_iter().map(move |stack| (graph, stack))
    });
    stacks.flat_map(move |(graph, stack)| {
        let slots = stack.modules.len();
        let shapes = [[slots, stack.inputs, rank], [slots, rank, stack.outputs]];
        let filled = filled(&stack, rank, chosen);
        let inputs = stack.names.into_iter().zip(shapes).zip(filled);
        inputs.map(move |((name, shape), numbers)| Matrices { graph, name, shape, numbers })
    })
}

/// The numbers of the two inputs of `stack`. The LoRAs lie side by side along the rank, each with its
/// scale and weight in `b`; where one has less rank than the others, or none, zeros do.
fn filled(stack: &Stack, rank: usize, chosen: &[Chosen]) -> [Vec<f32>; 2] {
    let Stack { inputs, outputs, modules, .. } = stack;
    let places: HashMap<&str, usize> =
        modules.iter().enumerate().map(|(i, module)| (module.as_str(), i)).collect();
    let mut a = vec![0.0; modules.len() * inputs * rank];
    let mut b = vec![0.0; modules.len() * rank * outputs];
    let mut taken = vec![0; modules.len()];
    for (adapter, weight) in chosen {
        for change in &adapter.changes {
            let Some(&slot) = places.get(change.module.as_str()) else { continue };
            let start = taken[slot];
            taken[slot] += change.rank;
            let a = &mut a[slot * inputs * rank..][..inputs * rank];
            for (r, row) in adapter.down(change).chunks(*inputs).enumerate() {
                for (i, value) in row.iter().enumerate() {
                    a[i * rank + start + r] = *value;
                }
            }
            let b = &mut b[slot * rank * outputs..][..rank * outputs];
            let factor = change.scale * f64::from(*weight);
            for (o, row) in adapter.up(change).chunks(change.rank).enumerate() {
                for (r, value) in row.iter().enumerate() {
                    b[(start + r) * outputs + o] = (factor * f64::from(*value)) as f32;
                }
            }
        }
    }
    [a, b]
}

/// Inputs that were made for earlier requests, by the content of their LoRAs: a request with the
/// same ones is spared making them, and nothing else of it is known.
#[derive(Default)]
pub(crate) struct LoraCache {
    /// The last used first.
    kept: Vec<(Content, Rc<LoraInputs>)>,
}

/// The SHA-256 of each file, and its weight.
type Content = Vec<(String, f32)>;

impl LoraCache {
    /// The inputs for `chosen`.
    pub fn get(
        &mut self,
        manifest: &Manifest,
        backend: &Backend,
        chosen: &[Chosen],
    ) -> Result<Rc<LoraInputs>> {
        let key: Content =
            chosen.iter().map(|(adapter, weight)| (adapter.sha256.clone(), *weight)).collect();
        let known = self.kept.iter().position(|(known, _)| *known == key);
        let entry = match known {
            Some(place) => self.kept.remove(place),
            None => (key, Rc::new(LoraInputs::new(manifest, backend, chosen)?)),
        };
        let inputs = entry.1.clone();
        self.kept.insert(0, entry);
        let mut bytes = 0;
        let fits = self.kept.iter().take_while(|(_, inputs)| {
            bytes += inputs.bytes;
            bytes <= KEPT_BYTES
        });
        let fits = fits.count().max(1);
        self.kept.truncate(fits);
        Ok(inputs)
    }
}
