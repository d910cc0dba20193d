//! LoRAs that requests name: a folder of files, read when they are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hydit_graphs::manifest::{Manifest, is_plain};
use hydit_graphs::{Component, lora};
use hydit_lora::{Adapter, Layers, Weighted};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The field of a request.
const FIELD: &str = "loras";

/// Most LoRAs of one request.
const MOST: usize = 16;

/// Number of files that stay in memory, the last ones that were asked for.
const KEPT: usize = 8;

/// The ending of a file, and the file of a folder in which PEFT saved one.
const ENDING: &str = "safetensors";
const PEFT_FILE: &str = "adapter_model.safetensors";

/// A LoRA of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraChoice {
    /// Its name: that of its file without `.safetensors`, or of the folder in which PEFT saved it.
    pub name: String,
    /// The factor of its change, -100 to 100.
    #[serde(default = "one")]
    pub weight: f32,
    /// SHA-256 of the file, which it must have if one is given. A request that was checked has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

fn one() -> f32 {
    1.0
}

/// `name`, or `name:weight`.
impl FromStr for LoraChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<LoraChoice, String> {
        let Weighted { name, weight } = text.parse()?;
        Ok(LoraChoice { name, weight, sha256: None })
    }
}

/// `name:weight`, or `name` alone where the weight is 1.
impl fmt::Display for LoraChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.weight == 1.0 { Ok(()) } else { write!(f, ":{}", self.weight) }
    }
}

/// A LoRA that was read, and its weight.
pub(crate) type Chosen = (Arc<Adapter>, f32);

/// The LoRAs in a folder.
#[derive(Debug, Default)]
pub struct Loras {
    folder: Option<PathBuf>,
    /// Those that were read, the last one first.
    read: Mutex<Vec<Read>>,
}

#[derive(Debug)]
struct Read {
    path: PathBuf,
    /// When it was written, and its size: whether it is another file now.
    stamp: (SystemTime, u64),
    adapter: Arc<Adapter>,
}

impl Loras {
    /// Those in `folder`, which is looked at whenever one is asked for.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(folder: &Path) -> Result<Loras> {
        let loras = Loras { folder: Some(folder.to_path_buf()), read: Mutex::default() };
        loras.names()?;
        Ok(loras)
    }

    /// The names of those that are there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let reading = |source| Error::Read { path: folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(reading)? {
            let path = entry.map_err(reading)?.path();
            let name = match path.is_dir() {
                true if path.join(PEFT_FILE).is_file() => path.file_name(),
                false if path.extension().is_some_and(|ending| ending == ENDING) => {
                    path.file_stem()
                }
                _ => None,
            };
            names.extend(
                name.and_then(|name| name.to_str()).filter(|name| may_be(name)).map(String::from),
            );
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Reads what a request has chosen for the model of `manifest`, and fills in the hashes.
    ///
    /// # Errors
    /// [`Error::Request`], or [`Error::Lora`] for a file that cannot be used.
    pub(crate) fn choose(
        &self,
        manifest: &Manifest,
        choices: &mut [LoraChoice],
    ) -> Result<Vec<Chosen>> {
        if choices.is_empty() {
            return Ok(Vec::new());
        }
        let refuse = |message: String| Err(Error::Request { field: FIELD, message });
        let Some(most) = manifest.lora_slots else {
            return refuse(
                "the model has no slots for LoRAs: export it with --lora-slots 64, or merge them with \
                 hydit-export --lora"
                    .to_string(),
            );
        };
        if choices.len() > MOST {
            return refuse(format!("{} LoRAs; at most {MOST}", choices.len()));
        }
        let layers = layers(manifest);
        let mut chosen = Vec::with_capacity(choices.len());
        for choice in choices {
            if let Err(problem) = Weighted::new(choice.name.as_str(), choice.weight) {
                return refuse(problem);
            }
            let adapter = self.get(&choice.name, &layers)?;
            if let Some(wanted) = choice.sha256.as_ref().filter(|hash| **hash != adapter.sha256) {
                let short: String = wanted.chars().take(12).flat_map(char::escape_debug).collect();
                return refuse(format!(
                    "{:?} is another file than the request means, whose SHA-256 begins with {short}: \
                     name it without sha256 to take the one that is there",
                    choice.name
                ));
            }
            choice.sha256 = Some(adapter.sha256.clone());
            chosen.push((adapter, choice.weight));
        }
        let rank = rank(&chosen);
        if rank > most {
            return refuse(format!(
                "rank {rank} all together, and the model has slots up to {most}: choose fewer, or \
                 export with --lora-slots {rank}"
            ));
        }
        Ok(chosen)
    }

    /// The LoRA `name`, read now unless it was read before and is the same file.
    fn get(&self, name: &str, layers: &Layers) -> Result<Arc<Adapter>> {
        let path = self.path(name)?;
        let cannot = |source| Error::Read { path: path.clone(), source };
        let found = fs::metadata(&path).map_err(cannot)?;
        let stamp = (found.modified().map_err(cannot)?, found.len());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = read.iter().position(|known| known.path == path) {
            let known = read.remove(place);
            if known.stamp == stamp {
                read.insert(0, known);
                return Ok(read[0].adapter.clone());
            }
        }
        let adapter = Adapter::open(&path, layers)
            .map_err(|source| Error::Lora { name: name.to_string(), source })?;
        read.insert(0, Read { path, stamp, adapter: Arc::new(adapter) });
        read.truncate(KEPT);
        Ok(read[0].adapter.clone())
    }

    /// The file of the LoRA `name`.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let refuse = |message: String| Err(Error::Request { field: FIELD, message });
        let Some(folder) = &self.folder else {
            return refuse("no folder of LoRAs is known: name it with --lora-dir".to_string());
        };
        if may_be(name) {
            for file in [folder.join(format!("{name}.{ENDING}")), folder.join(name).join(PEFT_FILE)]
            {
                if file.is_file() {
                    return Ok(file);
                }
            }
        }
        let name: String = name.chars().take(100).collect();
        let names = self.names()?;
        let known = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        refuse(format!("there is no LoRA {name:?}; there is {known}"))
    }
}

/// Whether a LoRA may be called `name`: the name of a file, and no path out of the folder.
fn may_be(name: &str) -> bool {
    is_plain(name) && !name.starts_with('.') && !name.chars().any(char::is_control)
}

/// The layers that have slots.
fn layers(manifest: &Manifest) -> Layers {
    let (dit, n) = (manifest.model.transformer.hunyuan_dit(), manifest.cache_at_branch);
    let graphs = lora::GRAPHS.iter().flat_map(|graph| dit.map(|dit| (graph, dit)));
    let stacks = graphs.flat_map(|(graph, dit)| lora::stacks(graph, dit, n));
    let weights: Vec<(String, [usize; 2])> = stacks
        .flat_map(|stack| {
            let shape = [stack.outputs, stack.inputs];
            stack.modules.into_iter().map(move |module| (format!("{module}.weight"), shape))
        })
        .collect();
    Layers::new(weights.iter().map(|(name, shape)| (Component::Transformer, &name[..], &shape[..])))
}

/// The rank that all changes of one layer have together, for the layer where it is largest.
pub(crate) fn rank(chosen: &[Chosen]) -> usize {
    let mut ranks = BTreeMap::<&str, usize>::new();
    for (adapter, _) in chosen {
        for change in &adapter.changes {
            *ranks.entry(&change.module).or_default() += change.rank;
        }
    }
    ranks.into_values().max().unwrap_or(0)
}
