//! Files that lie where weights should be and are something else, recognised by how they begin.

/// What `bytes` are, and what to do, if they are known not to be weights.
pub(super) fn kind(bytes: &[u8]) -> Option<String> {
    let starts = |with: &[u8]| bytes.starts_with(with);
    let page = bytes.get(..64).unwrap_or(bytes).to_ascii_lowercase();
    let page = page.trim_ascii_start();
    let what = if bytes.is_empty() {
        "empty: download it again"
    } else if page.starts_with(b"<!doctype html") || page.starts_with(b"<html") {
        "a web page, such as a site shows in place of a file that needs a login: download it again"
    } else if starts(b"GGUF") {
        "a GGUF file: take the checkpoint that it was converted from"
    } else if starts(b"\x89HDF") {
        "an HDF5 file of TensorFlow or Keras: take the checkpoint's safetensors"
    } else if starts(b"ustar") || starts(b"\x1f\x8b") || starts(b"7z\xbc\xaf") {
        "an archive: unpack it"
    } else {
        return None;
    };
    Some(what.to_string())
}
