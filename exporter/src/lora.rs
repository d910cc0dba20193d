//! LoRAs that are merged into the weights of an export.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydit_graphs::manifest::LoraEntry;
use hydit_graphs::{Component, GraphDef};
use hydit_lora::{Adapter, Layers, Weighted};

use crate::error::{Error, Result};

/// A LoRA that was read, and how much of it is wanted.
pub(crate) struct Lora {
    pub adapter: Arc<Adapter>,
    pub weight: f32,
    path: PathBuf,
}

/// What a LoRA changes.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The file.
    pub path: PathBuf,
    /// The factor with which it is merged.
    pub weight: f32,
    /// The largest rank of its changes.
    pub rank: usize,
    /// The components that it changes: the layers that are changed, and all that there are.
    pub layers: Vec<(Component, usize, usize)>,
}

/// Reads `loras`, whose every tensor must change something that `graphs` read.
///
/// # Errors
/// A file cannot be read or used.
pub(crate) fn read(
    loras: &[Weighted],
    graphs: &[(Component, Vec<GraphDef>)],
    mut told: impl FnMut(&Merged),
) -> Result<Vec<Lora>> {
    if loras.is_empty() {
        return Ok(Vec::new());
    }
    let layers = layers(graphs);
    let read = |lora: &Weighted| {
        let path = PathBuf::from(&lora.name);
        check_there(&path)?;
        let adapter = Arc::new(Adapter::open(&path, &layers)?);
        told(&Merged {
            path: path.clone(),
            weight: lora.weight,
            rank: adapter.rank(),
            layers: changed(&adapter, &layers),
        });
        Ok(Lora { adapter, weight: lora.weight, path })
    };
    loras.iter().map(read).collect()
}

/// The layers that LoRAs can change.
pub(crate) fn layers(graphs: &[(Component, Vec<GraphDef>)]) -> Layers {
    let tensors = graphs.iter().flat_map(|(component, graphs)| {
        let tensors = graphs.iter().flat_map(GraphDef::tensors);
        tensors.map(|(name, shape)| (*component, name, shape))
    });
    let fixed = [Component::Vae, Component::ImageEncoder, Component::ControlNet];
    Layers::new(tensors.filter(|(component, ..)| !fixed.contains(component)))
}

/// The components that `adapter` changes: the layers that are changed, and all that there are.
pub(crate) fn changed(adapter: &Adapter, layers: &Layers) -> Vec<(Component, usize, usize)> {
    let counts = Component::ALL.map(|c| (c, adapter.count(c), layers.count(c)));
    counts.into_iter().filter(|(_, changed, _)| *changed > 0).collect()
}

/// Checks that something is at `path`.
pub(crate) fn check_there(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let hint = "expected a LoRA as safetensors, or the folder in which PEFT saved one";
    Err(Error::Missing { path: path.to_path_buf(), hint: hint.to_string() })
}

/// What the manifest has of `loras`.
pub(crate) fn entries(loras: &[Lora]) -> Vec<LoraEntry> {
    let name = |path: &Path| match path.canonicalize().unwrap_or(path.to_path_buf()).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => path.display().to_string(),
    };
    let entry = |lora: &Lora| LoraEntry {
        file: name(&lora.path),
        sha256: lora.adapter.sha256.clone(),
        weight: lora.weight,
    };
    loras.iter().map(entry).collect()
}
