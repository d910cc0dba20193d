//! What a manifest says of a graph, held against its file and its runs: nobody vouches for the file
//! of an export that came from elsewhere, and the pipeline relies on shapes.

use std::path::Path;

use hydit_graphs::manifest::GraphEntry;
use hydit_graphs::{DType as Promised, Sizes, Symbol, TensorSpec};

use super::{DType, RuntimeError, TensorInfo, Value};

/// Inputs and outputs as a manifest has them.
pub(super) struct Promise {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Promise {
    /// What `entry` says, after a check that the file of `graph` declares the same `inputs` and
    /// `outputs`.
    pub fn of(
        entry: &GraphEntry,
        graph: &Path,
        inputs: &[TensorInfo],
        outputs: &[TensorInfo],
    ) -> Result<Promise, RuntimeError> {
        for (side, promised, declared) in
            [("input", &entry.inputs, inputs), ("output", &entry.outputs, outputs)]
        {
            let longest = promised.len().max(declared.len());
            let differs = (0..longest).find(|&i| match (promised.get(i), declared.get(i)) {
                (Some(spec), Some(info)) => !declares(info, spec),
                _ => true,
            });
            if let Some(i) = differs {
                return Err(RuntimeError::Interface {
                    graph: graph.to_owned(),
                    side,
                    declared: declared.get(i).map(|info| format!("{} {info}", info.name)),
                    promised: promised.get(i).map(ToString::to_string),
                });
            }
        }
        Ok(Promise { inputs: entry.inputs.clone(), outputs: entry.outputs.clone() })
    }

    /// Checks the outputs `made` of a run on inputs `given`, both in the graph's order.
    pub fn check<'a>(
        &self,
        graph: &Path,
        given: impl Iterator<Item = &'a Value>,
        made: &[Value],
    ) -> Result<(), RuntimeError> {
        let mut sizes = Sizes {
            batch: 1,
            grid_height: 1,
            grid_width: 1,
            height: 1,
            width: 1,
            ..Sizes::default()
        };
        for (spec, value) in self.inputs.iter().zip(given) {
            for (dim, size) in spec.shape.iter().zip(value.shape()) {
                match dim.solve(size) {
                    Some((Symbol::Batch, size)) => sizes.batch = size,
                    Some((Symbol::GridHeight, size)) => sizes.grid_height = size,
                    Some((Symbol::GridWidth, size)) => sizes.grid_width = size,
                    Some((Symbol::Height, size)) => sizes.height = size,
                    Some((Symbol::Width, size)) => sizes.width = size,
                    // No output has them.
                    Some((Symbol::Rank | Symbol::ControlTokens | Symbol::ImageTokens, _)) => {}
                    None => {}
                }
            }
        }
        for (spec, value) in self.outputs.iter().zip(made) {
            let (dtype, shape) = (value.dtype(), value.shape());
            let fits = |(dim, size): (&hydit_graphs::Dim, &usize)| dim.at(&sizes) == *size as u64;
            let good = dtype == runtime_type(spec.dtype)
                && shape.len() == spec.shape.len()
                && spec.shape.iter().zip(&shape).all(fits);
            if !good {
                return Err(RuntimeError::Output {
                    graph: graph.to_owned(),
                    found: format!("{dtype} {shape:?}"),
                    promised: spec.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// Whether a file declares a tensor as the manifest does. What it leaves open the runs must show.
fn declares(info: &TensorInfo, spec: &TensorSpec) -> bool {
    let fits = |(declared, promised): (&Option<usize>, &hydit_graphs::Dim)| {
        declared.zip(promised.known()).is_none_or(|(declared, promised)| declared == promised)
    };
    info.name == spec.name
        && info.dtype == runtime_type(spec.dtype)
        && (info.dims.is_empty()
            || info.dims.len() == spec.shape.len() && info.dims.iter().zip(&spec.shape).all(fits))
}

fn runtime_type(dtype: Promised) -> DType {
    match dtype {
        Promised::F32 => DType::F32,
        Promised::F16 => DType::F16,
        Promised::BF16 => DType::BF16,
        Promised::I64 => DType::I64,
        Promised::I32 => DType::I32,
        Promised::Bool => DType::Bool,
        Promised::U8 | Promised::I8 | Promised::F8E4M3FN => DType::Other,
    }
}
