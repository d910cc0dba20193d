//! Which rows of a call are perturbed, as an input of the graphs.

use hydit_graphs::Manifest;
use hydit_graphs::lora::GRAPHS;
use hydit_graphs::pag::INPUT;

use super::stack::Stacker;
use crate::error::Result;
use crate::runtime::{Backend, Value};

/// The perturbed rows of a call, of a model that has [layers](hydit_graphs::pag) for them.
pub(crate) struct PerturbedRows {
    /// `[rows]`: 1 for those that are perturbed.
    rows: Value,
    /// The graphs that read it.
    graphs: Vec<&'static str>,
}

impl PerturbedRows {
    /// A call whose row `i` is perturbed where `rows[i]` is true; `None` of a model without layers
    /// for that.
    pub fn new(
        manifest: &Manifest,
        backend: &Backend,
        rows: &[bool],
    ) -> Result<Option<PerturbedRows>> {
        let dit = manifest.model.transformer.hunyuan_dit();
        let Some(dit) = dit.filter(|_| !manifest.pag_layers.is_empty()) else { return Ok(None) };
        let (layers, n) = (manifest.graph_options().pag_layers, manifest.cache_at_branch);
        let graphs = GRAPHS.into_iter().filter(|graph| layers.is_read_by(graph, dit, n)).collect();
        let numbers: Vec<f32> = rows.iter().map(|&row| f32::from(u8::from(row))).collect();
        let rows = backend.to_device(backend.tensor_f32(&[rows.len()], &numbers)?)?;
        Ok(Some(PerturbedRows { rows, graphs }))
    }

    /// The rows of all `parts`, which are of one model and not none.
    pub fn stacked<'a>(
        parts: impl Iterator<Item = &'a PerturbedRows>,
        stacker: &Stacker,
    ) -> Result<PerturbedRows> {
        let (rows, graphs): (Vec<&Value>, Vec<&Vec<&str>>) =
            parts.map(|part| (&part.rows, &part.graphs)).unzip();
        Ok(PerturbedRows { rows: stacker.joined(rows)?, graphs: graphs[0].clone() })
    }

    /// What the graph `graph` of a step reads.
    pub fn of_graph(&self, graph: &str) -> Option<(&'static str, &Value)> {
        self.graphs.contains(&graph).then_some((INPUT, &self.rows))
    }
}
