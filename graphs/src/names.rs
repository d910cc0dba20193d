//! Names of the variants of our enums, as flags and files spell them.

use std::fmt::Display;

use strum::VariantArray;

/// A name that is none of the choices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not one of {choices}")]
pub struct UnknownName {
    found: String,
    choices: String,
}

impl UnknownName {
    /// The error for `found`, which names no variant of `T`.
    pub(crate) fn among<T: VariantArray + Display>(found: &str) -> UnknownName {
        let choices: Vec<String> = T::VARIANTS.iter().map(T::to_string).collect();
        UnknownName { found: found.to_string(), choices: choices.join(", ") }
    }
}
