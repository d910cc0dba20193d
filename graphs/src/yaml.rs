//! YAML text -> values, with errors of one line.

use serde::de::DeserializeOwned;

/// Parses `text`.
///
/// # Errors
/// One line that says line, column and field.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}
