//! Made-up weights as safetensors files. They are streamed: only a piece of one tensor is in
//! memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;
use hydit_graphs::{DType, GraphDef};
use serde_json::{Map, Value, json};

use super::rule::{Spread, state};
use crate::error::{Error, Result};

/// Number of elements that are computed at once.
const CHUNK: u64 = 1 << 18;

/// How made-up weights are computed and stored.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Element type, [`DType::F32`] or [`DType::F16`].
    pub dtype: DType,
    /// Seed of the weights: every seed gives others.
    pub seed: u64,
    /// Number of bytes of weights in a file at most, unless a single tensor has more.
    pub shard_bytes: u64,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { dtype: DType::F32, seed: 0, shard_bytes: 2_000_000_000 }
    }
}

/// The name and the shape of a tensor in the checkpoint.
type Tensor = (String, Vec<usize>);

/// Writes all tensors that `graphs` declare to `folder`: as `<stem>.safetensors`, or as shards of
/// that name with their index.
///
/// # Errors
/// The folder cannot be written to.
pub fn write_weights<'a>(
    folder: &Path,
    stem: &str,
    graphs: impl Iterator<Item = &'a GraphDef>,
    storage: &Storage,
) -> Result<()> {
    let declared = graphs.flat_map(GraphDef::tensors);
    let tensors = declared.map(|(name, dims)| (name.to_string(), dims.to_vec())).collect();
    write_tensors(folder, stem, tensors, storage)
}

/// As [`write_weights`], of `tensors` by their names, with their shapes.
pub(super) fn write_tensors(
    folder: &Path,
    stem: &str,
    tensors: BTreeMap<String, Vec<usize>>,
    storage: &Storage,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::writing(folder))?;
    let size = storage.dtype.size() as u64;
    let bytes = |dims: &[usize]| dims.iter().map(|&n| n as u64).product::<u64>() * size;

    let (mut shards, mut filled) = (vec![Vec::<Tensor>::new()], 0);
    for (name, dims) in tensors {
        let length = bytes(&dims);
        if filled > 0 && filled + length > storage.shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += length;
        shards.last_mut().expect("there is a shard").push((name, dims));
    }
    if let [only] = &shards[..] {
        return write_shard(&folder.join(format!("{stem}.safetensors")), only, storage);
    }
    let (count, mut total, mut files) = (shards.len(), 0, Map::new());
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1);
        write_shard(&folder.join(&file), shard, storage)?;
        total += shard.iter().map(|(_, dims)| bytes(dims)).sum::<u64>();
        files.extend(shard.iter().map(|(name, _)| (name.clone(), Value::from(file.clone()))));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": files });
    let path = folder.join(format!("{stem}.safetensors.index.json"));
    fs::write(&path, index.to_string()).map_err(Error::writing(path))
}

fn write_shard(path: &Path, tensors: &[Tensor], storage: &Storage) -> Result<()> {
    let mut header = json!({ "__metadata__": { "format": "pt" } });
    let mut end = 0;
    for (name, dims) in tensors {
        let start = end;
        end += dims.iter().product::<usize>() * storage.dtype.size();
        let dtype = if storage.dtype == DType::F16 { "F16" } else { "F32" };
        header[name] = json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, end] });
    }
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

    let mut out =
        BufWriter::with_capacity(1 << 20, File::create(path).map_err(Error::writing(path))?);
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(Error::writing(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(header.as_bytes())?;
    for (name, dims) in tensors {
        let (spread, state) = (Spread::of_weight(name, dims), state(name, storage.seed));
        let count = dims.iter().map(|&n| n as u64).product::<u64>();
        for start in (0..count).step_by(CHUNK as usize) {
            let values = (start..count.min(start + CHUNK)).map(|i| spread.value(state, i));
            let bytes: Vec<u8> = match storage.dtype {
                DType::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            };
            put(&bytes)?;
        }
    }
    out.flush().map_err(Error::writing(path))
}
