//! A checkpoint in diffusers' folder layout, its safetensors mapped into memory.
//!
//! Nothing in it is trusted: sizes are checked before use, shard names may not leave the folder.
//! All problems of all tensors are reported at once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use hydit_graphs::GraphDef;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result, io};

/// Largest header and JSON file we read; real ones are below 1 MiB.
const MAX_HEADER: u64 = 16 << 20;
const MAX_JSON: u64 = 4 << 20;

/// A part of the pipeline with a folder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the folder names of a diffusers pipeline
pub enum Component {
    Transformer,
    TextEncoder,
    TextEncoder2,
    Vae,
}

impl Component {
    /// Name of the folder.
    pub fn folder(self) -> &'static str {
        match self {
            Component::Transformer => "transformer",
            Component::TextEncoder => "text_encoder",
            Component::TextEncoder2 => "text_encoder_2",
            Component::Vae => "vae",
        }
    }

    /// Parts of older names and what they are called today, as diffusers and transformers rename
    /// on loading.
    fn renames(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Component::Vae => &[
                (".attentions.0.query.", ".attentions.0.to_q."),
                (".attentions.0.key.", ".attentions.0.to_k."),
                (".attentions.0.value.", ".attentions.0.to_v."),
                (".attentions.0.proj_attn.", ".attentions.0.to_out.0."),
            ],
            Component::TextEncoder2 => &[("encoder.embed_tokens.", "shared.")],
            _ => &[],
        }
    }

    /// Prefixes of tensors that text-to-image never needs.
    fn unneeded(self) -> &'static [&'static str] {
        match self {
            Component::Vae => &["encoder.", "quant_conv."],
            Component::TextEncoder => &["pooler.", "embeddings.position_ids"],
            Component::TextEncoder2 => &["decoder.", "lm_head."],
            Component::Transformer => &[],
        }
    }
}

/// Where a tensor's bytes are.
#[derive(Clone, Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// The weights of one component, by today's names.
pub struct Weights {
    component: Component,
    shards: Vec<Mmap>,
    tensors: BTreeMap<String, Place>,
}

/// A tensor of a checkpoint.
pub struct Tensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Little-endian elements.
    pub bytes: &'a [u8],
}

impl Weights {
    /// Maps all shards of `component` of the checkpoint at `root` and reads their headers.
    pub fn open(root: &Path, component: Component) -> Result<Weights> {
        let folder = root.join(component.folder());
        let mut weights = Weights { component, shards: Vec::new(), tensors: BTreeMap::new() };
        for path in shards(&folder)? {
            weights.open_shard(&path)?;
        }
        Ok(weights)
    }

    fn open_shard(&mut self, path: &Path) -> Result<()> {
        let bad = |message: String| Error::File { path: path.to_path_buf(), message };
        let map = map(path)?;
        check_header(&map).map_err(bad)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| bad(format!("not a whole safetensors file ({error})")))?;
        let data = 8 + header;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data + start,
                end: data + end,
            };
            let renames = self.component.renames().iter();
            let name = renames.fold(name, |name, (old, new)| name.replace(old, new));
            self.tensors.insert(name, place);
        }
        self.shards.push(map);
        Ok(())
    }

    /// Whose weights they are.
    pub fn component(&self) -> Component {
        self.component
    }

    /// The tensor `name`, which [`Weights::compare`] has found.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor(&self, name: &str) -> Tensor<'_> {
        let place = &self.tensors[name];
        Tensor { dtype: place.dtype, bytes: &self.shards[place.shard][place.start..place.end] }
    }

    /// Gives the memory of the tensor `name` back; reading it again reads the file again. So an
    /// export needs the memory of one tensor, not of the checkpoint.
    pub fn release(&self, name: &str) {
        let place = &self.tensors[name];
        // SAFETY: the mapping is shared with the file and never written, so pages that are dropped
        // come back with the same bytes.
        #[allow(unsafe_code)]
        let advised = unsafe {
            let length = place.end - place.start;
            let advice = UncheckedAdvice::DontNeed;
            self.shards[place.shard].unchecked_advise_range(advice, place.start, length)
        };
        drop(advised); // advice only: an export works without it
    }

    /// Compares what `graphs` declare with what is there; appends to `report`.
    pub fn compare<'a>(&self, graphs: impl Iterator<Item = &'a GraphDef>, report: &mut Report) {
        let mut used = BTreeMap::new();
        used.extend(graphs.flat_map(GraphDef::tensors));
        let say = |text: String| format!("{}: {text}", self.component.folder());
        for (name, dims) in &used {
            match self.tensors.get(*name) {
                None => report.missing.push(say(format!("{name} {dims:?}"))),
                Some(place) if place.shape != **dims => {
                    let text = format!("{name} is {:?}, expected {dims:?}", place.shape);
                    report.mismatched.push(say(text));
                }
                Some(place) if !matches!(place.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
                    let text = format!("{name} is {:?}, expected F32, F16 or BF16", place.dtype);
                    report.mismatched.push(say(text));
                }
                Some(_) => {}
            }
        }
        let unneeded = |name: &str| self.component.unneeded().iter().any(|p| name.starts_with(p));
        let unused = self.tensors.keys().filter(|name| !used.contains_key(name.as_str()));
        report.unused.extend(unused.filter(|name| !unneeded(name)).map(|name| say(name.clone())));
    }
}

/// All that is wrong with a checkpoint's tensors.
#[derive(Debug, Default)]
pub struct Report {
    /// Declared by a graph, not in the checkpoint.
    pub missing: Vec<String>,
    /// Of another shape or an unusable type.
    pub mismatched: Vec<String>,
    /// In the checkpoint, not declared by any graph: only worth a warning.
    pub unused: Vec<String>,
}

impl Report {
    /// An error if tensors are missing or mismatched.
    pub fn check(self) -> Result<Vec<String>> {
        match self.missing.is_empty() && self.mismatched.is_empty() {
            true => Ok(self.unused),
            false => Err(Error::Tensors(self)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, mismatched) = (self.missing.len(), self.mismatched.len());
        write!(f, "the checkpoint does not fit its config: {missing} tensors missing, ")?;
        write!(f, "{mismatched} mismatched, {} unused", self.unused.len())?;
        for (kind, names) in
            [("missing", &self.missing), ("mismatched", &self.mismatched), ("unused", &self.unused)]
        {
            names.iter().try_for_each(|name| write!(f, "\n  {kind} {name}"))?;
        }
        write!(f, "\nCheck that the folder is complete and that config.json belongs to it.")
    }
}

/// Reads a text file of at most `MAX_JSON` bytes.
pub fn read_text(path: &Path, mend: &str) -> Result<String> {
    let missing = || Error::Missing { path: path.to_path_buf(), mend: mend.to_string() };
    let size = std::fs::metadata(path).map_err(|_| missing())?.len();
    if size > MAX_JSON {
        let message = format!("{size} bytes; expected at most {MAX_JSON}");
        return Err(Error::File { path: path.to_path_buf(), message });
    }
    std::fs::read_to_string(path).map_err(io(path))
}

/// Maps a file for reading.
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(io(path))?;
    // SAFETY: the mapping is read-only and private to this process. Like every reader of mapped
    // weights we rely on nobody truncating the file during the export; the writer never writes
    // into a checkpoint's folder.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(io(path))
}

/// Checks what the safetensors parser takes on trust: offsets so large that sums overflow.
fn check_header(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err("truncated: shorter than a safetensors header".to_string());
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("not a safetensors file: a header of {length} bytes"));
    }
    let Some(header) = rest.get(..length as usize) else {
        return Err(format!("truncated: {} bytes, the header alone has {length}", bytes.len()));
    };
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|error| format!("damaged safetensors header: {error}"))?;
    let data = (rest.len() - length as usize) as u64;
    for (name, info) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let end = info["data_offsets"][1].as_u64().ok_or_else(|| {
            format!("damaged safetensors header: tensor `{name}` has no data_offsets")
        })?;
        if end > data {
            return Err(format!(
                "truncated: tensor `{name}` ends at {end} of {data} bytes of data"
            ));
        }
    }
    Ok(())
}

/// The safetensors files of a component: those of its index, or the single one.
fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let mend = "expected a component of a diffusers checkpoint (see model_index.json)";
    let missing =
        |mend: &str| Error::Missing { path: folder.to_path_buf(), mend: mend.to_string() };
    let entries = std::fs::read_dir(folder).map_err(|_| missing(mend))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    // The plain name sorts before variants such as `model.fp16.safetensors`.
    names.sort_by_key(|name| (name.matches('.').count(), name.clone()));

    if let Some(index) = names.iter().find(|name| name.ends_with(".safetensors.index.json")) {
        return indexed_shards(folder, index);
    }
    let single = names.iter().find(|name| {
        name.ends_with(".safetensors") && !name.contains("-of-") // a shard without its index
    });
    match single {
        Some(name) => Ok(vec![folder.join(name)]),
        None if names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt")) => {
            Err(missing(
                "no .safetensors file; convert the pickled weights with diffusers' \
                save_pretrained(safe_serialization=True)",
            ))
        }
        None => Err(missing("no .safetensors file and no .safetensors.index.json in it")),
    }
}

fn indexed_shards(folder: &Path, index: &str) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(index);
    let bad = |message: String| Error::File { path: path.clone(), message };
    let text = read_text(&path, "it was there a moment ago")?;
    let index: Index = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let mut shards: Vec<&String> = index.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    if shards.is_empty() {
        return Err(bad("weight_map names no shard".to_string()));
    }
    for name in &shards {
        if name.contains(['/', '\\']) || !name.ends_with(".safetensors") {
            return Err(bad(format!("shard `{name}` is not the name of a safetensors file")));
        }
        if !folder.join(name).is_file() {
            let mend = format!("a shard named by {}: download it again", path.display());
            return Err(Error::Missing { path: folder.join(name), mend });
        }
    }
    Ok(shards.into_iter().map(|name| folder.join(name)).collect())
}
