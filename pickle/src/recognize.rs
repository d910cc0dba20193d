//! What a file is that `torch.save` did not write, or not so that it can be read here.

use crate::error::Error;

/// The signature of the first member of a zip archive, at byte 0 of a checkpoint.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// The first number in the files of torch before 1.6, as a pickle has it.
const MAGIC_NUMBER: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

const SAVE_AGAIN: &str = "save it again with torch 1.6 or newer: \
     torch.save(torch.load(path, map_location='cpu', weights_only=True), path)";
const DOWNLOAD: &str = "download the file itself";
const UNPACK: &str = "unpack it first";
const NO_CHECKPOINT: &str = "expected a file that torch.save wrote";

pub(crate) const TORCHSCRIPT: Error = Error::Stranger {
    found: "a TorchScript archive, a program with its weights",
    remedy: "save its weights alone: torch.save(torch.jit.load(path).state_dict(), path)",
};

pub(crate) const BIG_ENDIAN: Error = Error::Stranger {
    found: "a checkpoint of a big-endian machine",
    remedy: "load it with torch.load and save it again on a little-endian machine",
};

/// The refusal of a file that is not a zip archive with a member at its first byte.
pub(crate) fn stranger(bytes: &[u8]) -> Option<Error> {
    if bytes.starts_with(ARCHIVE) {
        return None;
    }
    let begins = |with: &[u8]| bytes.starts_with(with);
    let (found, remedy) = if bytes.is_empty() {
        ("empty", DOWNLOAD)
    } else if begins(b"version https://git-lfs.github.com/spec/") {
        ("a pointer of Git LFS, not the file that it stands for", "fetch it with git lfs pull")
    } else if is_html(bytes) {
        ("an HTML page", "download the file itself, perhaps after signing in")
    } else if is_safetensors(bytes) {
        ("a safetensors file", "give it the ending .safetensors")
    } else if bytes[..bytes.len().min(64)].windows(MAGIC_NUMBER.len()).any(|w| w == MAGIC_NUMBER) {
        ("a checkpoint in the format of torch before 1.6", SAVE_AGAIN)
    } else if bytes.get(257..262) == Some(b"ustar") {
        ("a tar archive, perhaps a checkpoint of torch before 0.1.10", SAVE_AGAIN)
    } else if begins(b"\x80") && bytes.get(1).is_some_and(|protocol| *protocol <= 5) {
        ("a bare pickle, which torch.save does not write", "make tensors of it and torch.save them")
    } else if begins(b"PK\x05\x06") {
        ("an empty zip archive", NO_CHECKPOINT)
    } else if begins(b"PK\x07\x08") {
        ("one part of a zip archive in several", UNPACK)
    } else if begins(b"\x1f\x8b") || begins(b"\xfd7zXZ") || begins(b"\x28\xb5\x2f\xfd") {
        ("a compressed file", UNPACK)
    } else if begins(b"GGUF") {
        ("a GGUF file", NO_CHECKPOINT)
    } else if begins(b"\x89HDF") {
        ("an HDF5 file", NO_CHECKPOINT)
    } else if begins(b"\x93NUMPY") {
        ("an array of NumPy", NO_CHECKPOINT)
    } else if bytes.len() > 22 && bytes[bytes.len() - 22..].starts_with(b"PK\x05\x06") {
        ("a zip archive with something before it", "download it again, or save it again")
    } else {
        ("no checkpoint of torch.save", "expected a zip archive, which begins with `PK`")
    };
    Some(Error::Stranger { found, remedy })
}

fn is_html(bytes: &[u8]) -> bool {
    let text = &bytes[..bytes.len().min(1024)];
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let begins =
        |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    begins(b"<!doctype html") || begins(b"<html")
}

fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    rest.starts_with(b"{") && u64::from_le_bytes(*length) <= rest.len() as u64
}
