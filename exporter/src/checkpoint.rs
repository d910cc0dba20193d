//! The weights of a checkpoint in diffusers' folder layout, mapped into memory.
//!
//! Nothing in the files is trusted: sizes are checked before use, and shard names may not leave the
//! folder. All problems of all tensors are reported at once.

use std::collections::BTreeMap;
use std::path::Path;

use hydit_graphs::GraphDef;
use hydit_input::file;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};

use crate::component::Component;
use crate::error::{Error, Result};
use crate::report::TensorReport;
use crate::shards;

/// The largest safetensors header that is read; real ones have less than 1 MiB.
const MAX_HEADER: u64 = 16 << 20;

/// The weights of one component, by the names that its tensors have today.
pub struct CheckpointWeights {
    component: Component,
    shards: Vec<Mmap>,
    tensors: BTreeMap<String, ByteRange>,
}

/// The bytes of a shard that hold a tensor.
#[derive(Clone, Debug)]
struct ByteRange {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// A tensor of a checkpoint.
pub(crate) struct Tensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// The elements of the tensor, little-endian.
    pub bytes: &'a [u8],
}

impl CheckpointWeights {
    /// Maps all shards of `component` in the checkpoint folder `root` and reads their headers.
    ///
    /// # Errors
    /// A file is missing, damaged or cannot be read.
    pub fn open(root: &Path, component: Component) -> Result<CheckpointWeights> {
        let mut weights =
            CheckpointWeights { component, shards: Vec::new(), tensors: BTreeMap::new() };
        for path in shards::find(&root.join(component.folder()))? {
            weights.open_shard(&path)?;
        }
        Ok(weights)
    }

    fn open_shard(&mut self, path: &Path) -> Result<()> {
        let map = map(path)?;
        check_header(&map).map_err(Error::content(path))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
            Error::content(path)(format!("not a whole safetensors file ({error})"))
        })?;
        let data = 8 + header;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let range = ByteRange {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data + start,
                end: data + end,
            };
            self.tensors.insert(self.component.current_name(name), range);
        }
        self.shards.push(map);
        Ok(())
    }

    /// The component that the weights belong to.
    pub(crate) fn component(&self) -> Component {
        self.component
    }

    /// The tensor `name`, which [`CheckpointWeights::compare`] has found.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub(crate) fn tensor(&self, name: &str) -> Tensor<'_> {
        let range = &self.tensors[name];
        Tensor { dtype: range.dtype, bytes: &self.shards[range.shard][range.start..range.end] }
    }

    /// Gives the memory of the tensor `name` back; reading it again reads the file again. So an
    /// export needs the memory of one tensor, not that of the checkpoint.
    pub(crate) fn release(&self, name: &str) {
        let range = &self.tensors[name];
        // SAFETY: the mapping is shared with the file and never written, so pages that are dropped
        // come back with the same bytes.
        #[allow(unsafe_code)]
        let advised = unsafe {
            let length = range.end - range.start;
            let advice = UncheckedAdvice::DontNeed;
            self.shards[range.shard].unchecked_advise_range(advice, range.start, length)
        };
        drop(advised); // advice only: an export works without it
    }

    /// Compares the tensors that `graphs` declare with those of the checkpoint, and adds what does
    /// not fit to `report`.
    pub fn compare<'a>(
        &self,
        graphs: impl Iterator<Item = &'a GraphDef>,
        report: &mut TensorReport,
    ) {
        let declared: BTreeMap<&str, &[usize]> = graphs.flat_map(GraphDef::tensors).collect();
        let folder = self.component.folder();
        for (name, dims) in &declared {
            let Some(ByteRange { dtype, shape, .. }) = self.tensors.get(*name) else {
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

/// Maps a file for reading.
fn map(path: &Path) -> Result<Mmap> {
    let file = file::open(path).map_err(Error::reading(path))?;
    // SAFETY: the mapping is read-only and private to this process. Like every reader of mapped
    // weights we rely on nobody truncating the file during the export; the writer never writes
    // into a checkpoint's folder.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(Error::reading(path))
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
