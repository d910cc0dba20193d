//! Small helpers that no other module owns.

use std::io::{Read, Result};

pub use hydit_input::error_chain;
use sha2::{Digest, Sha256};
use strum::VariantArray;

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of pairs of hexadecimal digits, if `digits` are that.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// SHA-256 of all that `reader` has still to give, in 64 hexadecimal digits.
///
/// # Errors
/// What the reader says.
pub fn sha256(reader: &mut impl Read) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&buffer[..n]),
        }
    }
}

/// A name that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}: it must be one of {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

impl UnknownName {
    /// `name`, which is not the name of a `T`; people call a `T` a `what`.
    pub fn of<T: VariantArray + Copy + Into<&'static str>>(
        what: &'static str,
        name: &str,
    ) -> UnknownName {
        let known: Vec<&str> = T::VARIANTS.iter().map(|&known| known.into()).collect();
        UnknownName { what, name: name.to_string(), known: known.join(", ") }
    }
}
