//! Rows of tensors put together and taken apart where they lie: f32 on the host by copying, which
//! is quicker than a call of the engine; elsewhere by graphs of one node, made in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Deref, Range};

use hydit_graphs::arithmetic::{MAX_AXES, rows as rows_graph, stack as stack_graph};
use hydit_graphs::{DType as GraphDType, GraphDef};

use crate::error::Result;
use crate::runtime::{Backend, DType, Session, Value, in_memory};

/// Puts the rows of tensors together, and takes them apart.
pub struct Stacker {
    backend: Backend,
    /// Loaded when they are first needed.
    graphs: RefCell<HashMap<Kind, Session>>,
    /// Whether graphs are called where copying would do.
    only_graphs: bool,
}

/// A graph, for tensors of a type with so many axes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Stack { dtype: GraphDType, axes: usize, parts: usize },
    Rows { dtype: GraphDType, axes: usize },
}

/// The tensor of a group or of a member: one that there is, or a new one.
pub(crate) enum Stacked<'a> {
    Only(&'a Value),
    Copy(Value),
}

impl Stacker {
    /// Nothing is loaded yet.
    pub fn new(backend: &Backend) -> Stacker {
        Stacker { backend: backend.clone(), graphs: RefCell::default(), only_graphs: false }
    }

    /// The rows of `parts` one after the other: the only part itself, where there is one.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) fn stacked<'a>(
        &self,
        parts: impl Iterator<Item = &'a Value>,
    ) -> Result<Stacked<'a>> {
        let parts: Vec<&Value> = parts.collect();
        match *parts {
            [only] => Ok(Stacked::Only(only)),
            _ => Ok(Stacked::Copy(self.joined(parts)?)),
        }
    }

    /// The rows of `parts`, one at least, one after the other.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) fn joined<'a>(&self, parts: impl IntoIterator<Item = &'a Value>) -> Result<Value> {
        let parts: Vec<&Value> = parts.into_iter().collect();
        let copied = !self.only_graphs && parts.iter().all(|part| part.host_f32().is_some());
        match (copied, graph_type(parts[0])) {
            (false, Some((dtype, axes))) => {
                let names: Vec<String> = (0..parts.len()).map(|i| format!("part_{i}")).collect();
                let inputs: Vec<(&str, &Value)> =
                    names.iter().map(String::as_str).zip(parts).collect();
                self.run(Kind::Stack { dtype, axes, parts: names.len() }, &inputs)
            }
            _ => Ok(Value::stacked(&parts)?),
        }
    }

    /// A copy of some `rows` of `value`, which has them.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) fn rows(&self, value: &Value, rows: Range<usize>) -> Result<Value> {
        let copied = !self.only_graphs && value.host_f32().is_some();
        match (copied, graph_type(value)) {
            (false, Some((dtype, axes))) => {
                let start = self.backend.tensor_i64(&[1], &[rows.start as i64])?;
                let end = self.backend.tensor_i64(&[1], &[rows.end as i64])?;
                let inputs = [("all", value), ("start", &start), ("end", &end)];
                self.run(Kind::Rows { dtype, axes }, &inputs)
            }
            _ => Ok(value.rows(rows)?),
        }
    }

    /// Some `rows` of `value`: itself, where these are all.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) fn part<'a>(&self, value: &'a Value, rows: Range<usize>) -> Result<Stacked<'a>> {
        let whole = rows.len() == value.shape()[0];
        Ok(if whole { Stacked::Only(value) } else { Stacked::Copy(self.rows(value, rows)?) })
    }

    fn run(&self, kind: Kind, inputs: &[(&str, &Value)]) -> Result<Value> {
        let mut graphs = self.graphs.borrow_mut();
        let session = match graphs.entry(kind) {
            Entry::Occupied(loaded) => loaded.into_mut(),
            Entry::Vacant(place) => {
                place.insert(in_memory::load(&self.backend, &kind.graph(), &[])?)
            }
        };
        Ok(session.run_single(inputs)?)
    }
}

impl Kind {
    fn graph(self) -> GraphDef {
        match self {
            Kind::Stack { dtype, axes, parts } => stack_graph(dtype, axes, parts),
            Kind::Rows { dtype, axes } => rows_graph(dtype, axes),
        }
    }
}

/// The type and the number of axes of the graph for `value`, if there is one.
fn graph_type(value: &Value) -> Option<(GraphDType, usize)> {
    let dtype = match value.dtype() {
        DType::F32 => GraphDType::F32,
        DType::F16 => GraphDType::F16,
        DType::BF16 => GraphDType::BF16,
        DType::I64 | DType::I32 | DType::Bool | DType::Other => return None,
    };
    let axes = value.shape().len();
    (1..=MAX_AXES).contains(&axes).then_some((dtype, axes))
}

impl Deref for Stacked<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        match self {
            Stacked::Only(value) => value,
            Stacked::Copy(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use hydit_testing::emoji;

    use super::*;
    use crate::runtime::{BackendChoice, RuntimeOptions};
    use crate::{Pipeline, Request};

    fn backend() -> Backend {
        let options = RuntimeOptions {
            backend: BackendChoice::Ort,
            threads: Some(2),
            ..RuntimeOptions::default()
        };
        Backend::open(&options).expect("an engine")
    }

    /// With ONNX Runtime; tract's tensors lie on the host, and are copied.
    #[test]
    fn the_graphs_put_together_and_take_apart_as_copying_does() {
        let backend = backend();
        let by_graph = Stacker { only_graphs: true, ..Stacker::new(&backend) };
        let by_copy = Stacker::new(&backend);
        for axes in [&[][..], &[3], &[2, 5], &[4, 3, 2]] {
            let row: usize = axes.iter().product();
            let part = |rows: usize| {
                let shape = [&[rows], axes].concat();
                let numbers: Vec<f32> = (0..rows * row).map(|i| (100 * rows + i) as f32).collect();
                backend.tensor_f32(&shape, &numbers).expect("a tensor")
            };
            let parts = [part(2), part(1), part(4)];
            let [ours, theirs] =
                [&by_graph, &by_copy].map(|stacker| stacker.joined(&parts).expect("rows"));
            let same = |a: &Value, b: &Value| {
                assert_eq!(a.shape(), b.shape());
                assert_eq!(a.read_f32().expect("f32"), b.read_f32().expect("f32"));
            };
            same(&ours, &theirs);
            for (rows, part) in [(0..2, 0), (2..3, 1), (3..7, 2)] {
                same(&by_graph.rows(&theirs, rows).expect("rows"), &parts[part]);
            }
        }
    }

    /// As on a device, where nothing is copied by the host.
    #[test]
    fn pictures_drawn_together_are_the_same_by_graphs() {
        let draw = |only_graphs: bool| {
            let mut pipeline = Pipeline::load(&emoji::artifacts(), backend()).expect("a model");
            let stacker = Stacker { only_graphs, ..Stacker::new(pipeline.backend()) };
            pipeline.transformer().expect("it is loaded").stacker = Rc::new(stacker);
            let mut states = Vec::new();
            for (policy, num_images) in [("N2-1000-0", 1), ("N3-1000-0+taylor1", 2), ("off", 1)] {
                let usual = Request::new(pipeline.manifest(), "a cat").expect("a request");
                let cache_policy = policy.parse().expect("a policy");
                let request = Request { cache_policy, num_images, steps: 6, ..usual };
                let request = request.check(pipeline.artifacts()).expect("it is fine");
                states.push(pipeline.begin(&request).expect("it begins"));
            }
            let mut transformer = pipeline.transformer().expect("it is loaded");
            for _ in 0..6 {
                let mut together: Vec<_> = states.iter_mut().collect();
                transformer.step_together(&mut together).expect("a step");
            }
            assert_eq!(transformer.stacker.graphs.borrow().is_empty(), !only_graphs);
            states.iter().map(|state| state.latents().to_vec()).collect::<Vec<_>>()
        };
        assert!(draw(true) == draw(false));
    }
}
