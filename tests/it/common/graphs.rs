//! Single graphs written by the exporter, run by either engine, or on a GPU:
//! `HYDIT_TEST_PROVIDER=cuda` (or `tensorrt`) has ONNX Runtime with that provider take the place of
//! both. TensorRT rounds fp32 to TF32 unless `NVIDIA_TF32_OVERRIDE=0` is set too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydit::runtime::{Backend, BackendChoice, Provider, RuntimeOptions, Session};
use hydit_export::synth::{Storage, write_weights};
use hydit_export::{CheckpointWeights, Component, Folder, TensorReport, write_graph};
use hydit_graphs::GraphDef;
use hydit_lora::{Adapter, Layers};
use tempfile::TempDir;

use super::golden::Golden;
use super::tensor::{Tensor, Tensors};

/// Where ONNX Runtime computes in these tests: what `HYDIT_TEST_PROVIDER` names, else the CPU.
pub fn provider() -> Provider {
    match std::env::var("HYDIT_TEST_PROVIDER") {
        Ok(name) => name.parse().unwrap_or_else(|error| panic!("HYDIT_TEST_PROVIDER: {error}")),
        Err(_) => Provider::Cpu,
    }
}

/// The engines to test.
pub fn engines() -> &'static [BackendChoice] {
    match provider() {
        Provider::Cpu => &[BackendChoice::Ort, BackendChoice::Tract],
        _ => &[BackendChoice::Ort],
    }
}

/// Opens an engine. ONNX Runtime must be there: run scripts/setup-ort.
pub fn open(engine: BackendChoice) -> Backend {
    let options = RuntimeOptions {
        backend: engine,
        provider: provider(),
        threads: Some(1),
        ..Default::default()
    };
    Backend::open(&options).unwrap_or_else(|error| panic!("{engine}: {error}"))
}

/// The weights of one component, and a folder for the graphs that use them.
pub struct Exporter {
    root: TempDir,
    weights: CheckpointWeights,
}

impl Exporter {
    /// The golden's weights, trained or synthetic: all that `graphs` declare.
    pub fn of_golden(golden: &Golden, component: Component, graphs: &[GraphDef]) -> Exporter {
        match &golden.trained {
            None => Exporter::synthetic(component, graphs),
            Some(folder) => {
                let checkpoint = folder.parent().expect("a checkpoint's folder");
                Exporter::of_checkpoint(checkpoint, component)
            }
        }
    }

    /// The weights of a component of `checkpoint`.
    pub fn of_checkpoint(checkpoint: &Path, component: Component) -> Exporter {
        let root = tempfile::tempdir().expect("a folder");
        let weights = CheckpointWeights::open(checkpoint, component).expect("a checkpoint");
        Exporter { root, weights }
    }

    /// Synthetic weights for all that `graphs` declare.
    pub fn synthetic(component: Component, graphs: &[GraphDef]) -> Exporter {
        Exporter::of_seed(component, graphs, 0)
    }

    /// Synthetic weights of another seed.
    pub fn of_seed(component: Component, graphs: &[GraphDef], seed: u64) -> Exporter {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join(component.folder());
        let storage = Storage { seed, ..Storage::default() };
        write_weights(&folder, "model", graphs.iter(), &storage).expect("weights");
        let weights = CheckpointWeights::open(root.path(), component).expect("our own checkpoint");
        Exporter { root, weights }
    }

    /// Merges a LoRA into what `graphs` read.
    pub fn merge(&mut self, lora: &Path, weight: f32, graphs: &[GraphDef]) {
        let component = self.weights.component();
        let tensors = graphs.iter().flat_map(GraphDef::tensors);
        let layers = Layers::new(tensors.map(|(name, shape)| (component, name, shape)));
        let adapter = Adapter::open(lora, &layers).unwrap_or_else(|error| panic!("{error}"));
        self.weights.merge(&Arc::new(adapter), weight);
    }

    /// Writes `graphs` to the folder `name`; returns its path.
    pub fn write(&self, name: &str, graphs: &[GraphDef]) -> PathBuf {
        let mut report = TensorReport::default();
        self.weights.compare(graphs.iter(), &mut report);
        report.check().unwrap_or_else(|error| panic!("{error}"));
        let path = self.root.path().join(name);
        let mut folder = Folder::prepare(&path).expect("a folder");
        for graph in graphs {
            write_graph(graph, &self.weights, &mut folder, &mut ()).expect("a graph");
        }
        folder.settle().expect("renames");
        path
    }
}

/// Loads a graph of a folder that [`Exporter::write`] made.
pub fn load(backend: &Backend, folder: &Path, graph: &GraphDef) -> Session {
    backend.load(&folder.join(graph.file())).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `session` on what it asks for out of `feed`; returns its outputs by name.
pub fn run(backend: &Backend, session: &mut Session, feed: &Tensors) -> Tensors {
    let wanted: Vec<_> = session.inputs().to_vec();
    let values: Vec<_> = wanted
        .iter()
        .map(|input| {
            let tensor = feed.get(&input.name).unwrap_or_else(|| panic!("no `{}`", input.name));
            (input.name.as_str(), tensor.value(backend, input.dtype))
        })
        .collect();
    let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, value)).collect();
    let outputs = session.run(&inputs).unwrap_or_else(|error| panic!("{error}"));
    let names = session.outputs().iter().map(|output| output.name.clone());
    names.zip(outputs.iter().map(Tensor::of_value)).collect()
}
