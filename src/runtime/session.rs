//! A loaded graph, and the checks that both engines share.

use std::path::{Path, PathBuf};

use hydit_graphs::manifest::GraphEntry;

use super::{
    RuntimeError, Stop, TensorInfo, Value,
    error::said,
    magnitudes::Measured,
    onnxruntime,
    promise::Promise,
    tract::{self, VERSION},
    value::Inner,
};

/// A loaded graph. `run` takes `&mut self` because ONNX Runtime's sessions are not safe to share
/// between threads.
pub struct Session {
    graph: PathBuf,
    engine: LoadedGraph,
    stop: Stop,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    /// What a manifest says of its outputs, if one does.
    promise: Option<Promise>,
    /// The outputs of its blocks, which come after its own, if they are measured.
    measured: Option<Measured>,
}

pub(super) enum LoadedGraph {
    Ort(onnxruntime::Graph),
    Tract(tract::Graph),
}

impl Session {
    pub(super) fn new(
        graph: &Path,
        engine: LoadedGraph,
        stop: Stop,
        inputs: Vec<TensorInfo>,
        outputs: Vec<TensorInfo>,
    ) -> Session {
        let (graph, promise, measured) = (graph.to_owned(), None, None);
        Session { graph, engine, stop, inputs, outputs, promise, measured }
    }

    /// The same graph, loaded with the outputs of its blocks, which nobody sees but `measured`.
    pub(super) fn measured(mut self, measured: Option<Measured>) -> Result<Session, RuntimeError> {
        if let Some(measured) = &measured {
            let added = self.outputs[measured.own()..].iter().map(|block| block.name.clone());
            let added: Vec<String> = added.collect();
            self.outputs_to_host(&added.iter().map(String::as_str).collect::<Vec<_>>())?;
            self.outputs.truncate(measured.own());
        }
        Ok(Session { measured, ..self })
    }

    /// The same graph, after a check that its file declares what `entry` of a manifest says. From
    /// now on every run is checked too: its outputs have the shapes of the manifest.
    ///
    /// # Errors
    /// [`RuntimeError::Interface`].
    pub fn promise(mut self, entry: &GraphEntry) -> Result<Session, RuntimeError> {
        self.promise = Some(Promise::of(entry, &self.graph, &self.inputs, &self.outputs)?);
        Ok(self)
    }

    /// The inputs, in the graph's order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The outputs, in the graph's order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Has these outputs brought to the host at the end of each run, for those the host reads every
    /// time. Without it a GPU provider leaves all outputs on the device. On the CPU it changes
    /// nothing.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`] for a name that is no output, [`RuntimeError::Setting`] when
    /// ONNX Runtime refuses.
    pub fn outputs_to_host(&mut self, names: &[&str]) -> Result<(), RuntimeError> {
        for name in names {
            let index = self
                .outputs
                .iter()
                .position(|output| output.name == *name)
                .ok_or_else(|| self.unknown("output", name, &self.outputs))?;
            if let LoadedGraph::Ort(engine) = &mut self.engine {
                engine.output_to_host(index).map_err(|error| RuntimeError::Setting {
                    what: format!("to bring the output `{name}` to the host"),
                    source: error.into(),
                })?;
            }
        }
        Ok(())
    }

    /// Has ONNX Runtime give back at the end of each run on the CPU what the run has allocated, or
    /// keep it for the next. The numbers are the same.
    pub fn set_gives_back(&mut self, gives_back: bool) {
        if let LoadedGraph::Ort(engine) = &mut self.engine {
            engine.set_shrinks(gives_back);
        }
    }

    /// Runs the graph on inputs by name, in any order. The outputs come in the graph's order and
    /// stay where the engine put them; they are new tensors, so those of an earlier run can be
    /// kept.
    ///
    /// # Errors
    /// An input that is missing, unknown, given twice, of another engine, or of the wrong element
    /// type or shape; [`RuntimeError::Stopped`]; or [`RuntimeError::Run`] with the engine's reason.
    pub fn run(&mut self, inputs: &[(&str, &Value)]) -> Result<Vec<Value>, RuntimeError> {
        if self.stop.is_due() {
            return Err(RuntimeError::Stopped);
        }
        let order = self.check(inputs)?;
        let ran = match &mut self.engine {
            LoadedGraph::Ort(engine) => engine
                .run(inputs.iter().filter_map(|(name, value)| match &value.0 {
                    Inner::Ort(tensor) => Some((*name, tensor)),
                    Inner::Tract(_) => None,
                }))
                .map(|outputs| {
                    outputs.into_iter().map(|tensor| Value(Inner::Ort(tensor))).collect()
                })
                .map_err(said),
            LoadedGraph::Tract(engine) => engine
                .run(
                    order
                        .iter()
                        .filter_map(|&given| match &inputs[given].1.0 {
                            Inner::Tract(tensor) => Some(tensor.clone()),
                            Inner::Ort(_) => None,
                        })
                        .collect(),
                )
                .map(|outputs| {
                    outputs.into_iter().map(|tensor| Value(Inner::Tract(tensor))).collect()
                }),
        };
        let mut ran: Vec<Value> = ran.map_err(|source| RuntimeError::Run {
            graph: self.graph.clone(),
            engine: match &self.engine {
                LoadedGraph::Ort(engine) => engine.describe.clone(),
                LoadedGraph::Tract(_) => format!("tract {VERSION}"),
            },
            shapes: inputs
                .iter()
                .map(|(name, value)| format!("{name} {}", found(value)))
                .collect::<Vec<_>>()
                .join(", "),
            source,
        })?;
        if let Some(measured) = &self.measured {
            measured.take(&self.outputs, &mut ran)?;
        }
        if let Some(promise) = &self.promise {
            promise.check(&self.graph, order.iter().map(|&given| inputs[given].1), &ran)?;
        }
        Ok(ran)
    }

    /// As [`run`](Session::run), of a graph with one output.
    ///
    /// # Errors
    /// As [`run`](Session::run), or [`RuntimeError::UnknownName`] without an output.
    pub fn run_single(&mut self, inputs: &[(&str, &Value)]) -> Result<Value, RuntimeError> {
        let mut outputs = self.run(inputs)?;
        outputs.pop().ok_or_else(|| self.unknown("output", "", &self.outputs))
    }

    /// As [`run`](Session::run), with the outputs by name.
    ///
    /// # Errors
    /// As [`run`](Session::run).
    pub fn run_by_name(&mut self, inputs: &[(&str, &Value)]) -> Result<Outputs<'_>, RuntimeError> {
        let values = self.run(inputs)?;
        Ok(Outputs { session: self, values: values.into_iter().map(Some).collect() })
    }

    /// Checks the inputs against what the file declares; returns, for each input of the graph,
    /// which one given it is.
    fn check(&self, given: &[(&str, &Value)]) -> Result<Vec<usize>, RuntimeError> {
        let graph = || self.graph.clone();
        if let Some((name, _)) =
            given.iter().find(|(name, _)| self.inputs.iter().all(|input| input.name != *name))
        {
            return Err(self.unknown("input", name, &self.inputs));
        }
        let mut order = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let mut places = given.iter().enumerate().filter(|(_, (name, _))| *name == input.name);
            let name = || input.name.clone();
            let Some((place, (_, value))) = places.next() else {
                return Err(RuntimeError::MissingInput {
                    graph: graph(),
                    name: name(),
                    expected: input.to_string(),
                });
            };
            if places.next().is_some() {
                return Err(RuntimeError::RepeatedInput { graph: graph(), name: name() });
            }
            if matches!(
                (&self.engine, &value.0),
                (LoadedGraph::Ort(_), Inner::Tract(_)) | (LoadedGraph::Tract(_), Inner::Ort(_))
            ) {
                return Err(RuntimeError::ForeignValue { graph: graph(), name: name() });
            }
            if !input.accepts(value.dtype(), &value.shape()) {
                let (expected, found) = (input.to_string(), found(value));
                return Err(RuntimeError::InputMismatch {
                    graph: graph(),
                    name: name(),
                    expected,
                    found,
                });
            }
            order.push(place);
        }
        Ok(order)
    }

    fn unknown(&self, side: &'static str, name: &str, known: &[TensorInfo]) -> RuntimeError {
        let known = known.iter().map(|info| info.name.as_str()).collect::<Vec<_>>().join(", ");
        RuntimeError::UnknownName { graph: self.graph.clone(), side, name: name.into(), known }
    }
}

/// The outputs of a run.
pub struct Outputs<'a> {
    session: &'a Session,
    /// In the graph's order; `None` once taken.
    values: Vec<Option<Value>>,
}

impl Outputs<'_> {
    /// The output `name`, which is taken once.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`].
    pub fn take(&mut self, name: &str) -> Result<Value, RuntimeError> {
        let infos = &self.session.outputs;
        let index = infos.iter().position(|info| info.name == name);
        let value = index.and_then(|index| self.values[index].take());
        value.ok_or_else(|| self.session.unknown("output", name, infos))
    }

    /// The outputs `names` in their order, each of which is taken once.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`].
    pub fn take_all(
        &mut self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Vec<Value>, RuntimeError> {
        names.into_iter().map(|name| self.take(name.as_ref())).collect()
    }
}

/// `f32 [2, 3]`
fn found(value: &Value) -> String {
    format!("{} {:?}", value.dtype(), value.shape())
}
