//! How large the values become that graphs make: whether a number format has the range for them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hydit_graphs::blocks::{self, Opened};
use hydit_input::file;

use super::{BoxError, DType, MAX_GRAPH, RuntimeError, TensorInfo, Value};

/// The magnitudes of all outputs and blocks of the graphs that a backend runs: see
/// [`Backend::measuring`](super::Backend::measuring). Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Magnitudes(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    values: Vec<Magnitude>,
    /// Places in `values` of those that left the finite range, in the order in which they did.
    left: Vec<usize>,
}

/// How large an output or a block's output became in all runs of its graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Magnitude {
    /// Stem of the graph's file.
    pub graph: String,
    /// Name of the output, or of the block's weights in the checkpoint.
    pub name: String,
    /// Whether it is a block, whose output the graph usually keeps to itself.
    pub is_block: bool,
    /// The element type.
    pub dtype: DType,
    /// The largest absolute value among the finite elements.
    pub largest: f32,
    /// The number of runs of the graph.
    pub runs: usize,
    /// The run, counted from 1, in which an element was first infinite or NaN.
    pub left: Option<usize>,
}

impl Magnitudes {
    /// All of them, in the order in which they were first made.
    pub fn all(&self) -> Vec<Magnitude> {
        self.seen(|seen| seen.values.clone())
    }

    /// Those that were infinite or NaN, in the order in which they were so first.
    pub fn left(&self) -> Vec<Magnitude> {
        self.seen(|seen| seen.left.iter().map(|&place| seen.values[place].clone()).collect())
    }

    fn seen<T>(&self, read: impl FnOnce(&mut Seen) -> T) -> T {
        // The numbers of a thread that panicked are still numbers.
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// Adds a run that made `value`.
    fn add(
        &mut self,
        graph: &str,
        name: &str,
        is_block: bool,
        value: &Value,
    ) -> Result<(), RuntimeError> {
        let elements = value.read_f32()?;
        let finite = elements.iter().filter(|x| x.is_finite());
        let largest = finite.fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let known =
            |old: &Magnitude| old.is_block == is_block && old.name == name && old.graph == graph;
        let place = self.values.iter().position(known).unwrap_or_else(|| {
            let (graph, name) = (graph.to_string(), name.to_string());
            let (dtype, runs, left) = (value.dtype(), 0, None);
            self.values.push(Magnitude { graph, name, is_block, dtype, largest, runs, left });
            self.values.len() - 1
        });
        let magnitude = &mut self.values[place];
        magnitude.runs += 1;
        magnitude.largest = magnitude.largest.max(largest);
        if magnitude.left.is_none() && !elements.iter().all(|x| x.is_finite()) {
            magnitude.left = Some(magnitude.runs);
            self.left.push(place);
        }
        Ok(())
    }
}

/// A graph whose runs are measured.
pub(super) struct Measured {
    magnitudes: Magnitudes,
    graph: String,
    opened: Opened,
}

impl Measured {
    /// Reads the file of `graph` and opens its blocks.
    pub fn open(graph: &Path, magnitudes: &Magnitudes) -> Result<Measured, BoxError> {
        let opened = blocks::open(&file::read(graph, MAX_GRAPH)?)?;
        let stem = graph.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Measured { magnitudes: magnitudes.clone(), graph: stem, opened })
    }

    /// The ONNX file to load in place of the graph's own.
    pub fn file(&self) -> &[u8] {
        &self.opened.file
    }

    /// The number of outputs that the graph has itself.
    pub fn own(&self) -> usize {
        self.opened.own
    }

    /// Adds a run that `made` the graph's own `outputs` and those of the blocks; leaves the own.
    pub fn take(&self, outputs: &[TensorInfo], made: &mut Vec<Value>) -> Result<(), RuntimeError> {
        let graph = &self.graph;
        self.magnitudes.seen(|seen| {
            for block in &self.opened.blocks {
                seen.add(graph, &block.name, true, &made[block.output])?;
            }
            made.truncate(self.opened.own);
            let mut own = outputs.iter().zip(&*made);
            own.try_for_each(|(output, value)| seen.add(graph, &output.name, false, value))
        })
    }
}
