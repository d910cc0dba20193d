//! YAML text to values, and back.

use serde::{Serialize, de::DeserializeOwned};

/// The reason why a text is not the YAML that was expected: line, column, field and what is wrong,
/// on one line.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct YamlError(Box<serde_saphyr::Error>);

/// Parses YAML text, with errors that fit on one line.
///
/// # Errors
/// The text is not YAML, or not of the form of `T`.
pub fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| YamlError(Box::new(error)))
}

/// `value`, whose maps all have texts for keys, as YAML text.
pub fn to_yaml(value: &impl Serialize) -> String {
    serde_saphyr::to_string(value).expect("it has a YAML form")
}
