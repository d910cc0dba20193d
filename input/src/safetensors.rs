//! The header of a safetensors file: which tensors are in it, and where.

use std::collections::BTreeMap;
use std::ops::Range;

pub use ::safetensors::Dtype;
use ::safetensors::SafeTensors;
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// The largest header that is read; real ones have less than 1 MiB.
const MAX_HEADER: u64 = 16 << 20;

/// What the header says.
#[derive(Debug)]
pub struct Header {
    /// Texts that the writer added, by name.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, by name.
    pub tensors: BTreeMap<String, Stored>,
}

/// A tensor, whose elements lie row by row and little-endian.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// The bytes of the file that are its elements.
    pub bytes: Range<usize>,
}

/// Reads the header of a file's `bytes`, and checks it against their number.
///
/// # Errors
/// What is wrong with the file, in a line without its name.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    check(bytes)?;
    let (length, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| format!("not a whole safetensors file ({error})"))?;
    let data = 8 + length;
    let tensors = header.tensors().into_iter().map(|(name, info)| {
        let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
        (name, Stored { dtype: info.dtype, shape: info.shape.clone(), bytes })
    });
    let metadata = header.metadata().iter().flatten();
    let metadata = metadata.map(|(name, text)| (name.clone(), text.clone()));
    Ok(Header { metadata: metadata.collect(), tensors: tensors.collect() })
}

/// Little-endian elements of type F32, F16 or BF16 as 32-bit floats.
///
/// # Panics
/// If `dtype` is another one.
pub fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => {
            let halves: Vec<f16> = halves.map(|b| f16::from_le_bytes(*b)).collect();
            halves.to_f32_vec()
        }
        Dtype::BF16 => halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        other => unreachable!("{other:?} was refused before"),
    }
}

/// Checks what the safetensors parser takes on trust: offsets so large that sums overflow.
fn check(bytes: &[u8]) -> Result<(), String> {
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
