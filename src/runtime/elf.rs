//! Whether a file can be given to the system's loader, which waits for ever at a pipe and ends the
//! process at a library that was cut off.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of the header of a 64-bit ELF file, and of an entry of its table of segments.
const HEADER: usize = 64;
const SEGMENT: usize = 56;
/// The type of a segment that is mapped into memory.
const LOAD: u32 = 1;

/// Checks that `path` is a whole shared library for this machine, as far as its headers tell.
///
/// # Errors
/// Says what it is instead.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let found = fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err("it is no regular file".to_string());
    }
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => cut_off(found.len()),
        _ => unreadable(error),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header[..4]).map_err(failed)?;
    if header[..4] != *b"\x7fELF" {
        return Err("it is no shared library".to_string());
    }
    file.read_exact(&mut header[4..]).map_err(failed)?;
    if let Some(machine) = other_machine(&header) {
        return Err(format!("it is for {machine}, and this machine is {}", std::env::consts::ARCH));
    }
    let mut table = vec![0; number::<2>(&header, 56) as usize * SEGMENT];
    file.seek(SeekFrom::Start(number::<8>(&header, 32))).map_err(failed)?;
    file.read_exact(&mut table).map_err(failed)?;
    for segment in table.chunks_exact(SEGMENT) {
        let end = number::<8>(segment, 8).checked_add(number::<8>(segment, 32));
        let is_mapped = number::<4>(segment, 0) == u64::from(LOAD);
        if is_mapped && end.is_none_or(|end| end > found.len()) {
            return Err(cut_off(found.len()));
        }
    }
    Ok(())
}

fn cut_off(bytes: u64) -> String {
    format!("it was cut off: {bytes} bytes are not all of it; fetch it again")
}

/// The kind of machine that a library is for, if it is not this one.
fn other_machine(header: &[u8; HEADER]) -> Option<String> {
    let machine = match (header[4], header[5], number::<2>(header, 18)) {
        (2, 1, 62) => "x86_64".to_string(),
        (2, 1, 183) => "aarch64".to_string(),
        (1, 1, 3) => "x86".to_string(),
        (_, _, other) => format!("another machine (number {other})"),
    };
    (machine != std::env::consts::ARCH).then_some(machine)
}

/// The little-endian number of `N` bytes at `start`.
fn number<const N: usize>(bytes: &[u8], start: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[start..][..N]);
    u64::from_le_bytes(number)
}
