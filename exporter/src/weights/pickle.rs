//! The tensors of a file that `torch.save` wrote.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::view::View;

/// Whether a file begins as `torch.save` begins one, today or in its first years. A safetensors file
/// may begin with any byte, but its ninth is a brace.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"PK") || bytes.starts_with(b"\x80")) && bytes.get(8) != Some(&b'{')
}

/// Reads where the tensors are. Those of a dictionary in a dictionary, such as `module`, have its
/// name before theirs.
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, View>, String> {
    let saved = hydit_pickle::read(bytes).map_err(|error| error.to_string())?;
    let tensors = saved.tensors().map_err(|error| error.to_string())?;
    let views = tensors.into_iter().map(|(name, tensor)| {
        let view = View {
            dtype: dtype(tensor.dtype)?,
            shape: tensor.shape.clone(),
            strides: tensor.strides.clone(),
            start: usize::try_from(tensor.start).map_err(|error| error.to_string())?,
        };
        Ok((name, view))
    });
    views.collect()
}

fn dtype(dtype: hydit_pickle::Dtype) -> Result<Dtype, String> {
    use hydit_pickle::Dtype as Saved;
    Ok(match dtype {
        Saved::F64 => Dtype::F64,
        Saved::F32 => Dtype::F32,
        Saved::F16 => Dtype::F16,
        Saved::BF16 => Dtype::BF16,
        Saved::F8E4M3 => Dtype::F8_E4M3,
        Saved::F8E5M2 => Dtype::F8_E5M2,
        Saved::I64 => Dtype::I64,
        Saved::I32 => Dtype::I32,
        Saved::I16 => Dtype::I16,
        Saved::I8 => Dtype::I8,
        Saved::U64 => Dtype::U64,
        Saved::U32 => Dtype::U32,
        Saved::U16 => Dtype::U16,
        Saved::U8 => Dtype::U8,
        Saved::Bool => Dtype::BOOL,
        other => return Err(format!("tensors of {other:?} are not known")),
    })
}
