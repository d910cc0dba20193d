//! A LoRA file: its changes, checked, and what they add to weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydit_graphs::Component;
use hydit_graphs::naming::Rows;
use hydit_input::file;
use hydit_input::safetensors::{Dtype, Stored, floats, header};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, shown};
use crate::keys::{Key, PEFT, Part};
use crate::layers::Layers;
use crate::scale::{PeftConfig, Scales};

/// The most bytes of a file: several times those of the published ones.
const MAX_BYTES: u64 = 4 << 30;

/// The most bytes of an `adapter_config.json`.
const MAX_CONFIG: u64 = 1 << 20;

/// The most layers that [`Adapter::survey`] tells of.
pub const MOST_UNFIT: usize = 20;

/// The name that PEFT gives the file.
const PEFT_FILE: &str = "adapter_model.safetensors";

/// A LoRA, all of whose changes fit the model.
#[derive(Debug)]
pub struct Adapter {
    /// The changes, at most one of a layer from each tensor of the file.
    pub changes: Vec<Change>,
    /// SHA-256 of the file, in 64 hexadecimal digits.
    pub sha256: String,
    bytes: Vec<u8>,
}

/// A change of one layer: `scale * up @ down` is added to its weight.
#[derive(Debug)]
pub struct Change {
    /// The component of the layer.
    pub component: Component,
    /// The layer, by its name in diffusers or transformers.
    pub module: String,
    /// The shape of the layer's weight.
    pub shape: Vec<usize>,
    /// The size that `down` and `up` share.
    pub rank: usize,
    /// The factor of the change.
    pub scale: f64,
    down: Stored,
    up: Stored,
    rows: Rows,
}

/// The tensors of one layer, by the names that they have in the file.
#[derive(Default)]
struct Group<'a> {
    root: bool,
    layer: &'a str,
    down: Option<(&'a str, &'a Stored)>,
    up: Option<(&'a str, &'a Stored)>,
    alpha: Option<(&'a str, &'a Stored)>,
}

impl Adapter {
    /// Reads the LoRA at `path`, a safetensors file or the folder of one that PEFT saved.
    /// `adapter_config.json` beside it is followed if PEFT saved it.
    ///
    /// # Errors
    /// A file cannot be read, is damaged or no LoRA, or changes something that `layers` does not
    /// have.
    pub fn open(path: &Path, layers: &Layers) -> Result<Adapter> {
        let (adapter, unfit) = Adapter::read(path, layers, 1)?;
        match unfit.into_iter().next() {
            None => Ok(adapter),
            Some(problem) => Err(Error::Content { path: file_of(path), problem }),
        }
    }

    /// As [`Adapter::open`], with what does not fit `layers` apart: a line for each of the first
    /// [`MOST_UNFIT`] layers, behind which nothing is looked at.
    ///
    /// # Errors
    /// A file cannot be read, is damaged or no LoRA.
    pub fn survey(path: &Path, layers: &Layers) -> Result<(Adapter, Vec<String>)> {
        Adapter::read(path, layers, MOST_UNFIT)
    }

    fn read(path: &Path, layers: &Layers, most: usize) -> Result<(Adapter, Vec<String>)> {
        let path = file_of(path);
        let reading = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::Read { path, source }
        };
        let bytes = file::read(&path, MAX_BYTES).map_err(reading(&path))?;
        let content = |problem| Error::Content { path: path.clone(), problem };
        let config = path.with_file_name("adapter_config.json");
        let config = match config.exists() && saved_by_peft(&path, &bytes) {
            true => Some(file::read_text(&config, MAX_CONFIG).map_err(reading(&config))?),
            false => None,
        };
        Adapter::fitting(bytes, config.as_deref(), layers, most).map_err(content)
    }

    /// Reads the LoRA in the `bytes` of a safetensors file, with the text of an
    /// `adapter_config.json`.
    ///
    /// # Errors
    /// As [`Adapter::open`], without the name of the file.
    pub fn parse(
        bytes: Vec<u8>,
        config: Option<&str>,
        layers: &Layers,
    ) -> std::result::Result<Adapter, String> {
        let (adapter, unfit) = Adapter::fitting(bytes, config, layers, 1)?;
        unfit.into_iter().next().map_or(Ok(adapter), Err)
    }

    /// The changes that fit `layers`, and why the others do not, of which there are `most`.
    fn fitting(
        bytes: Vec<u8>,
        config: Option<&str>,
        layers: &Layers,
        most: usize,
    ) -> std::result::Result<(Adapter, Vec<String>), String> {
        if bytes.starts_with(b"PK") {
            return Err("it is an archive of torch.save: store it again as safetensors".to_string());
        }
        let header = header(&bytes)?;
        let scales = Scales::new(&header.metadata, config.map(PeftConfig::parse).transpose()?)?;
        let mut groups: BTreeMap<(Option<Component>, String), Group<'_>> = BTreeMap::new();
        for (name, stored) in &header.tensors {
            let key = Key::parse(name)?;
            let group = groups.entry((key.component, key.layer.replace('.', "_"))).or_default();
            group.add(name, stored, &key)?;
        }
        if groups.is_empty() {
            return Err("it has no tensors".to_string());
        }
        let (mut changes, mut unfit) = (Vec::new(), Vec::new());
        for ((component, _), group) in &groups {
            if unfit.len() == most {
                break;
            }
            // Such as a text encoder's pooler, which pictures do not need.
            if component.is_some_and(|part| part.ignores(&format!("{}.", group.layer))) {
                continue;
            }
            match changes_of(&bytes, *component, group, layers, &scales) {
                Ok(found) => changes.extend(found),
                Err(problem) => unfit.push(problem),
            }
        }
        changes.sort_by(|a: &Change, b| (a.component, &a.module).cmp(&(b.component, &b.module)));
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((Adapter { changes, sha256, bytes }, unfit))
    }

    /// The largest rank of a change.
    pub fn rank(&self) -> usize {
        self.changes.iter().map(|change| change.rank).max().unwrap_or(0)
    }

    /// Number of layers of `component` that are changed.
    pub fn count(&self, component: Component) -> usize {
        let mut modules: Vec<&str> = self.of(component).map(|c| c.module.as_str()).collect();
        modules.dedup();
        modules.len()
    }

    /// The changes of `component`, in the order of its layers' names.
    pub fn of(&self, component: Component) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.component == component)
    }

    /// The matrix that a layer's input passes first, `[rank, in]`. The axes of a convolution behind
    /// the first are one.
    pub fn down(&self, change: &Change) -> Vec<f32> {
        values(&self.bytes, &change.down)
    }

    /// The matrix that makes the layer's output, `[out, rank]`, not scaled.
    pub fn up(&self, change: &Change) -> Vec<f32> {
        let all = values(&self.bytes, &change.up);
        match change.rows {
            Rows::All | Rows::First => all,
            Rows::Part(index, parts) => {
                let length = all.len() / parts;
                all[index * length..][..length].to_vec()
            }
            Rows::SwappedHalves => {
                let (first, second) = all.split_at(all.len() / 2);
                [second, first].concat()
            }
            Rows::Transposed => unreachable!("no library transposes a layer that LoRAs change"),
        }
    }

    /// Adds `change`, times `weight`, to the elements of the layer's weight.
    ///
    /// # Panics
    /// If `into` has not as many elements as the layer's weight.
    pub fn add(&self, change: &Change, weight: f32, into: &mut [f32]) {
        let (down, up) = (self.down(change), self.up(change));
        let width = down.len() / change.rank;
        assert_eq!(into.len() * change.rank, width * up.len(), "the weight of {}", change.module);
        let factor = change.scale * f64::from(weight);
        let mut row = vec![0f32; width];
        for (into, up) in into.chunks_mut(width).zip(up.chunks(change.rank)) {
            // A row of the product first, and its scale at the end, as PEFT multiplies.
            row.fill(0.0);
            for (up, down) in up.iter().zip(down.chunks(width)) {
                row.iter_mut().zip(down).for_each(|(sum, down)| *sum += up * down);
            }
            into.iter_mut().zip(&row).for_each(|(into, sum)| {
                *into = (f64::from(*into) + factor * f64::from(*sum)) as f32;
            });
        }
    }
}

impl<'a> Group<'a> {
    fn add(
        &mut self,
        name: &'a str,
        stored: &'a Stored,
        key: &Key<'a>,
    ) -> std::result::Result<(), String> {
        (self.layer, self.root) = (key.layer, self.root || key.root);
        let place = match key.part {
            Part::Down => &mut self.down,
            Part::Up => &mut self.up,
            Part::Alpha => &mut self.alpha,
        };
        match place.replace((name, stored)) {
            Some((other, _)) => Err(format!(
                "tensors {} and {} are the same part of one change: the file has several LoRAs, \
                 save one alone",
                shown(other),
                shown(name)
            )),
            None => Ok(()),
        }
    }
}

/// The changes that the tensors of `group` are: several, if the layer is several of ours.
fn changes_of(
    bytes: &[u8],
    component: Option<Component>,
    group: &Group<'_>,
    layers: &Layers,
    scales: &Scales,
) -> std::result::Result<Vec<Change>, String> {
    let any = [group.down, group.up, group.alpha].into_iter().flatten().next();
    let (any, _) = any.expect("a group has a tensor");
    let (component, named) = layers
        .find(component, group.layer)
        .map_err(|problem| format!("tensor {}: {problem}", shown(any)))?;
    let (Some(down), Some(up)) = (group.down, group.up) else {
        let missing = if group.down.is_none() { "down (lora_A)" } else { "up (lora_B)" };
        return Err(format!("tensor {}: the matrix {missing} of its layer is missing", shown(any)));
    };
    for (name, stored) in [down, up].into_iter().chain(group.alpha) {
        check_values(bytes, name, stored)?;
    }
    let outputs: usize = named.parts.iter().map(|part| part.shape[0]).sum();
    let inputs: usize = named.parts[0].shape[1..].iter().product();
    let rank = down.1.shape.first().copied().unwrap_or(0);
    let flat = |shape: &[usize]| match shape {
        [first, rest @ ..] => {
            Some((*first, rest.iter().try_fold(1usize, |a, &n| a.checked_mul(n))?))
        }
        [] => None,
    };
    for (name, stored, expected) in
        [(down.0, down.1, (rank, inputs)), (up.0, up.1, (outputs, rank))]
    {
        if rank == 0 || flat(&stored.shape) != Some(expected) {
            let (rows, columns) = expected;
            let expected = match rank {
                0 => "a rank of at least 1".to_string(),
                _ => format!("[{rows}, {columns}] for a layer of {outputs} x {inputs}"),
            };
            let shape = &stored.shape[..stored.shape.len().min(8)];
            return Err(format!("tensor {} is {shape:?}; expected {expected}", shown(name)));
        }
    }
    let alpha = match group.alpha {
        None => None,
        Some((name, stored)) => match values(bytes, stored)[..] {
            [alpha] => Some(f64::from(alpha)),
            _ => return Err(format!("tensor {} has no single value", shown(name))),
        },
    };
    let scale = scales
        .scale(component, group.layer, rank, alpha, group.root)
        .map_err(|problem| format!("tensor {}: {problem}", shown(any)))?;
    let change = |part: &crate::layers::Part| Change {
        component,
        module: part.module.clone(),
        shape: part.shape.clone(),
        rank,
        scale,
        down: down.1.clone(),
        up: up.1.clone(),
        rows: part.rows,
    };
    Ok(named.parts.iter().map(change).collect())
}

/// Checks that a tensor is of floats, and all of them are finite.
fn check_values(bytes: &[u8], name: &str, stored: &Stored) -> std::result::Result<(), String> {
    if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(format!(
            "tensor {} is {:?}; expected F32, F16 or BF16",
            shown(name),
            stored.dtype
        ));
    }
    match values(bytes, stored).iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!(
            "tensor {} has the value {value}: the file is damaged or training diverged",
            shown(name)
        )),
        None => Ok(()),
    }
}

fn values(bytes: &[u8], stored: &Stored) -> Vec<f32> {
    floats(&bytes[stored.bytes.clone()], stored.dtype)
}

/// The file of the LoRA at `path`, which may be the folder in which PEFT saved it.
fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(PEFT_FILE) } else { path.to_path_buf() }
}

/// Whether PEFT saved the file, by its name or that of its tensors.
fn saved_by_peft(path: &Path, bytes: &[u8]) -> bool {
    path.file_name().is_some_and(|name| name == PEFT_FILE)
        || header(bytes).is_ok_and(|header| {
            header.tensors.keys().next().is_some_and(|name| name.starts_with(PEFT))
        })
}
