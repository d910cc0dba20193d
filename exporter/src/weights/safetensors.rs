//! The tensors of a safetensors file.

use std::collections::BTreeMap;

use hydit_input::safetensors::header;

use super::view::View;

/// Reads where the tensors are.
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, View>, String> {
    let tensors = header(bytes)?.tensors.into_iter();
    let views = tensors
        .map(|(name, found)| (name, View::rows_of(found.dtype, found.shape, found.bytes.start)));
    Ok(views.collect())
}
