//! Small helpers that no other module owns.

pub use hydit_input::error_chain;
use strum::VariantArray;

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
