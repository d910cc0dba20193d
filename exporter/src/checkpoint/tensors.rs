//! The weights of one component, by the names that they have inside. All problems of all tensors
//! are reported at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hydit_graphs::GraphDef;
use hydit_input::safetensors::floats;
use hydit_lora::{Adapter, Change};
use safetensors::Dtype;

use crate::error::{Error, Result, ValueError};
use crate::report::TensorReport;
use crate::weights::{View, WeightsFile, find, width};
use hydit_graphs::Component;
use hydit_graphs::naming::{Naming, Rows, anchors};

/// The weights of one component, by the names that its tensors have in diffusers and transformers
/// today.
#[derive(Clone)]
pub struct CheckpointWeights {
    component: Component,
    /// What messages call it.
    name: String,
    naming: Naming,
    files: Vec<Arc<WeightsFile>>,
    tensors: BTreeMap<String, Stored>,
    /// What is added to tensors when they are read.
    merges: BTreeMap<String, Vec<Merge>>,
}

/// A change of a tensor: that with this index of a LoRA, times the weight.
#[derive(Clone)]
struct Merge {
    adapter: Arc<Adapter>,
    change: usize,
    weight: f32,
}

/// A tensor, put together from views of a file.
#[derive(Clone)]
struct Stored {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    views: Vec<View>,
}

/// A tensor of a checkpoint.
pub(crate) struct Tensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// The elements of the tensor row by row, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl CheckpointWeights {
    /// Maps the weights of `component` in the checkpoint folder `root`, which has diffusers'
    /// layout, and reads their headers.
    ///
    /// # Errors
    /// A file is missing, damaged or cannot be read.
    pub fn open(root: &Path, component: Component) -> Result<CheckpointWeights> {
        let found = find(&root.join(component.folder()), None)?;
        let files = found.files.iter().map(|path| WeightsFile::open(path).map(Arc::new));
        CheckpointWeights::of(component, files.collect::<Result<_>>()?, None)
    }

    /// The tensors of `component` in `files`, which may have those of others too. Where several of
    /// its kind are in them, such as averaged weights beside others, `variant` chooses.
    ///
    /// # Errors
    /// A tensor cannot be parted as its name asks.
    pub(crate) fn of(
        component: Component,
        files: Vec<Arc<WeightsFile>>,
        variant: Option<&str>,
    ) -> Result<CheckpointWeights> {
        let names = || files.iter().flat_map(|file| file.tensors.keys());
        let prefix = prefix(component, names(), variant).unwrap_or_default().to_string();
        let inside: BTreeSet<&str> =
            names().filter_map(|name| name.strip_prefix(&prefix)).collect();
        let naming = Naming::of(component, |name| inside.contains(name));
        let levels = (0..).take_while(|level| {
            let start = format!("decoder.up.{level}.");
            inside.range(start.as_str()..).next().is_some_and(|name| name.starts_with(&start))
        });
        let levels = levels.count();
        let mut tensors = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for (name, view) in &file.tensors {
                let Some(rest) = name.strip_prefix(&prefix) else { continue };
                for (current, rows) in naming.current(component, rest, levels) {
                    let stored = stored(index, view, &current, rows).map_err(|why| {
                        Error::content(&file.path)(format!("tensor `{name}` {why}"))
                    })?;
                    tensors.insert(current, stored);
                }
            }
        }
        let (name, merges) = (component.folder().to_string(), BTreeMap::new());
        Ok(CheckpointWeights { component, name, naming, files, tensors, merges })
    }

    /// The same, called `name` in messages: there may be several of one component.
    pub(crate) fn called(self, name: String) -> CheckpointWeights {
        CheckpointWeights { name, ..self }
    }

    /// Takes over those tensors of `other` whose names are `wanted`.
    pub(crate) fn take(&mut self, other: &CheckpointWeights, wanted: impl Fn(&str) -> bool) {
        let before = self.files.len();
        self.files.extend(other.files.iter().cloned());
        for (name, stored) in other.tensors.iter().filter(|(name, _)| wanted(name)) {
            let stored = Stored { file: before + stored.file, ..stored.clone() };
            self.tensors.insert(name.clone(), stored);
        }
    }

    /// Adds the changes of `adapter` to this component, times `weight`, to its tensors whenever they
    /// are read.
    pub fn merge(&mut self, adapter: &Arc<Adapter>, weight: f32) {
        for (change, Change { component, module, .. }) in adapter.changes.iter().enumerate() {
            if *component == self.component {
                let merges = self.merges.entry(format!("{module}.weight")).or_default();
                merges.push(Merge { adapter: Arc::clone(adapter), change, weight });
            }
        }
    }

    /// The component that the weights belong to.
    pub fn component(&self) -> Component {
        self.component
    }

    /// Whose names the tensors have in their files.
    pub(crate) fn naming(&self) -> Naming {
        self.naming
    }

    /// The files that the tensors are in.
    pub(crate) fn files(&self) -> impl Iterator<Item = &WeightsFile> {
        self.files.iter().map(|file| &**file)
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`, if there is one.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| &stored.shape[..])
    }

    /// Whether they are those of a transformer that draws classes.
    pub(crate) fn draws_classes(&self) -> bool {
        self.shape("class_embedder.embedding_table.weight").is_some()
    }

    /// Number of elements of all tensors that text-to-image needs, by their type.
    pub(crate) fn parameters(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (name, stored) in &self.tensors {
            if !self.component.ignores(name) {
                let count = stored.shape.iter().map(|&n| n as u64).product::<u64>();
                *counts.entry(format!("{:?}", stored.dtype)).or_default() += count;
            }
        }
        counts
    }

    /// The tensor `name`, which [`CheckpointWeights::compare`] has found, with what LoRAs add to it:
    /// computed in fp32, and rounded only when it is converted.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub(crate) fn tensor(&self, name: &str) -> Tensor<'_> {
        let stored = &self.tensors[name];
        let (dtype, bytes) = (stored.dtype, self.files[stored.file].bytes(&stored.views));
        let Some(merges) = self.merges.get(name) else { return Tensor { dtype, bytes } };
        let mut values = floats(&bytes, dtype);
        for Merge { adapter, change, weight } in merges {
            adapter.add(&adapter.changes[*change], *weight, &mut values);
        }
        let bytes: Vec<[u8; 4]> = values.into_iter().map(f32::to_le_bytes).collect();
        Tensor { dtype: Dtype::F32, bytes: Cow::Owned(bytes.into_flattened()) }
    }

    /// The file of the tensor `name` and the byte where it begins there; `None` where its elements
    /// do not lie in it row by row, or a LoRA changes them.
    ///
    /// # Errors
    /// It begins where its elements cannot be read.
    pub(crate) fn place(&self, name: &str) -> Result<Option<(&Path, u64)>> {
        if self.merges.contains_key(name) {
            return Ok(None);
        }
        let Stored { file, dtype, views, .. } = &self.tensors[name];
        let (path, [view]) = (&self.files[*file].path, &views[..]) else { return Ok(None) };
        if view.start.is_multiple_of(width(*dtype)) {
            return Ok(view.is_contiguous().then_some((path, view.start as u64)));
        }
        let (start, size) = (view.start, width(*dtype));
        Err(Error::content(path)(format!(
            "its tensor `{name}` begins at byte {start}, which is not a multiple of {size}: store it \
             again with a current safetensors, or export with --weights copy"
        )))
    }

    /// Turns what is wrong with a value of the tensor `name` into an error that names both.
    pub(crate) fn values(&self, name: &str) -> impl FnOnce(ValueError) -> Error {
        |source| Error::Values { component: self.name.clone(), tensor: name.to_string(), source }
    }

    /// Gives the memory of the tensor `name` back.
    pub(crate) fn release(&self, name: &str) {
        let stored = &self.tensors[name];
        stored.views.iter().for_each(|view| self.files[stored.file].release(view));
    }

    /// Compares the tensors that `graphs` declare with those of the checkpoint, and adds what does
    /// not fit to `report`.
    pub fn compare<'a>(
        &self,
        graphs: impl Iterator<Item = &'a GraphDef>,
        report: &mut TensorReport,
    ) {
        let declared: BTreeMap<&str, &[usize]> = graphs.flat_map(GraphDef::tensors).collect();
        let folder = &self.name;
        for (name, dims) in &declared {
            let Some(Stored { dtype, shape, .. }) = self.tensors.get(*name) else {
                report.missing.push(format!("{folder}: {name} {dims:?}"));
                continue;
            };
            if shape != dims {
                let line = format!("{folder}: {name} is {shape:?}, expected {dims:?}");
                report.mismatched.push(line);
            } else if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let line = format!("{folder}: {name} is {dtype:?}, expected F32, F16 or BF16");
                report.mismatched.push(line);
            }
        }
        let unused = self
            .tensors
            .keys()
            .filter(|name| !declared.contains_key(name.as_str()) && !self.component.ignores(name));
        report.unused.extend(unused.map(|name| format!("{folder}: {name}")));
    }
}

/// What the names of `component` begin with among `names`: nothing, or such as `module.`, `bert.`
/// or `text_encoders.mt5xl.transformer.`. `None` where the component is not among them.
pub(crate) fn prefix<'a>(
    component: Component,
    names: impl Iterator<Item = &'a String>,
    variant: Option<&str>,
) -> Option<&'a str> {
    const WANTED: [&str; 3] = ["", "ema", "module"];
    let anchors = anchors(component);
    let found = names.flat_map(|name| anchors.iter().filter_map(|end| name.strip_suffix(end)));
    found.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')).min_by_key(|prefix| {
        let first = prefix.split('.').next().unwrap_or_default();
        let wanted = WANTED.iter().position(|name| *name == first).unwrap_or(WANTED.len());
        (variant != Some(first), wanted, prefix.len())
    })
}

/// The rows of `view` that are the tensor `name`.
fn stored(file: usize, view: &View, name: &str, rows: Rows) -> std::result::Result<Stored, String> {
    let count = view.shape.first().copied().unwrap_or(0);
    let part = |index: usize, parts: usize| {
        if count == 0 || !count.is_multiple_of(parts) {
            return Err(format!("is {:?}: its rows cannot be parted by {parts}", view.shape));
        }
        Ok(view.rows(index * count / parts..(index + 1) * count / parts))
    };
    let mut views = match rows {
        Rows::All => vec![view.clone()],
        Rows::Part(index, parts) => vec![part(index, parts)?],
        Rows::SwappedHalves => vec![part(1, 2)?, part(0, 2)?],
        Rows::First if count == 0 => return Err(format!("is {:?}: it has no row", view.shape)),
        Rows::First => vec![view.rows(0..1)],
        Rows::Transposed if view.shape.len() != 2 => {
            return Err(format!("is {:?}: expected a matrix", view.shape));
        }
        Rows::Transposed => vec![view.transposed()],
    };
    if name.contains("coder.mid_block.attentions.") {
        // Convolutions of 1x1 in the latent-diffusion code.
        views = views.into_iter().map(|view| view.squeezed(2)).collect();
    }
    let mut shape = views[0].shape.clone();
    if rows == Rows::SwappedHalves {
        shape[0] = count;
    }
    Ok(Stored { file, dtype: view.dtype, shape, views })
}
