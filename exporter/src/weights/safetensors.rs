//! The tensors of a safetensors file.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::view::View;

/// The largest header that is read; real ones have less than 1 MiB.
const MAX_HEADER: u64 = 16 << 20;

/// Reads where the tensors are.
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, View>, String> {
    check_header(bytes)?;
    let (header, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| format!("not a whole safetensors file ({error})"))?;
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let start = 8 + header + info.data_offsets.0;
        (name, View::rows_of(info.dtype, info.shape.clone(), start))
    });
    Ok(tensors.collect())
}

/// Checks what the safetensors parser takes on trust: offsets so large that sums overflow.
fn check_header(bytes: &[u8]) -> Result<(), String> {
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
