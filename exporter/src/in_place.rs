//! Weights that stay where they are: graphs that read the checkpoint's own files, which get second
//! names in the artifact folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydit_graphs::{DType, GraphDef, Place, Source, Transform};
use safetensors::Dtype;

use crate::checkpoint::CheckpointWeights;
use crate::convert::convert;
use crate::error::Result;
use hydit_graphs::Component;

/// The files that graphs read in place, with their names in the artifact folder.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<PathBuf, String>);

impl Files {
    /// Makes `graphs` read what lies in the files of `weights` row by row, after a look at every
    /// value: nobody sees them afterwards.
    ///
    /// # Errors
    /// A value cannot be used in the type that a graph computes in, or not be read where it lies.
    pub fn use_for(&mut self, graphs: &mut [GraphDef], weights: &CheckpointWeights) -> Result<()> {
        for graph in graphs {
            check_values(graph, weights)?;
            let mut places = BTreeMap::new();
            for (tensor, _) in graph.tensors() {
                if let Some((path, offset)) = weights.place(tensor)? {
                    let (file, dtype) = (self.name(path), dtype(weights.tensor(tensor).dtype));
                    places.insert(tensor.to_string(), Place { file, offset, dtype });
                }
            }
            graph.read_in_place(|tensor| places.get(tensor).cloned());
        }
        Ok(())
    }

    /// The files, each with its name in the artifact folder.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.0.iter().map(|(path, name)| (path.as_path(), name.as_str()))
    }

    fn name(&mut self, path: &Path) -> String {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("bin");
        let next = format!("weights-{}.{ending}", self.0.len() + 1);
        self.0.entry(path.to_path_buf()).or_insert(next).clone()
    }
}

/// The bytes of all weights that `graphs` read in no other file than their own.
pub(crate) fn copied(graphs: &[(Component, Vec<GraphDef>)]) -> u64 {
    let layouts = graphs.iter().flat_map(|(_, graphs)| graphs).flat_map(GraphDef::layout);
    let weights = layouts.filter(|(weight, _)| matches!(weight.source, Source::Checkpoint { .. }));
    weights.map(|(_, extent)| extent.length).sum()
}

fn check_values(graph: &GraphDef, weights: &CheckpointWeights) -> Result<()> {
    for initializer in &graph.initializers {
        let Source::Checkpoint { tensor, dims, .. } = &initializer.source else { continue };
        convert(&weights.tensor(tensor), dims, Transform::Keep, initializer.dtype, drop)
            .map_err(weights.values(tensor))?;
        weights.release(tensor);
    }
    Ok(())
}

fn dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => unreachable!("{other:?} was refused before"),
    }
}
