//! Parameters of requests, inputs and outputs: those of the binary tensor data extension.
//!
//! The protocol lets clients send any others, such as MLServer's `content_type`; they are passed
//! over. Those that would have to change the answer are refused, and so is what looks like ours.

use serde_json::{Map, Value};
use strsim::osa_distance;

use super::tensors::INPUTS;
use crate::server::http::error::ApiError;

type Parameters = Map<String, Value>;

const SIZE: &str = "binary_data_size";
const BINARY: &str = "binary_data";
const ALL_BINARY: &str = "binary_data_output";
/// The parameters that are understood, each in one place, and that place.
const OURS: [(&str, &str); 3] =
    [(SIZE, "an input"), (BINARY, "an output"), (ALL_BINARY, "the request")];
/// Triton's extensions that are not built. Without them an answer would not be what was asked for.
const NOT_BUILT: [&str; 4] =
    ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification"];
/// Number of letters by which a name differs that is taken for a slip.
const SLIP: usize = 2;

/// Whether outputs that do not say themselves come as bytes after the JSON.
///
/// # Errors
/// 400 that names the parameter.
pub fn of_request(parameters: Option<&Parameters>) -> Result<bool, ApiError> {
    let names = parameters.into_iter().flat_map(Parameters::keys);
    if let Some(input) = INPUTS.iter().find(|input| names.clone().any(|name| name == input.name)) {
        let name = input.name;
        let message = format!("the request: {name} is an input, not a parameter: send its tensor");
        return Err(ApiError::field(name, message));
    }
    let value = own(parameters, ALL_BINARY, "the request")?;
    Ok(value.map(|value| switch(value, ALL_BINARY, "the request")).transpose()?.unwrap_or(false))
}

/// Whether an output comes as bytes after the JSON, if it says.
///
/// # Errors
/// 400 that names the parameter.
pub fn of_output(parameters: Option<&Parameters>, place: &str) -> Result<Option<bool>, ApiError> {
    let value = own(parameters, BINARY, place)?;
    value.map(|value| switch(value, BINARY, place)).transpose()
}

/// Bytes after the JSON that are this input's, if they are there.
///
/// # Errors
/// 400 that names the parameter.
pub fn of_input(parameters: Option<&Parameters>, place: &str) -> Result<Option<usize>, ApiError> {
    let encoded = parameters.and_then(|all| all.get("content_type")).is_some_and(|t| t == "base64");
    if encoded {
        return refuse(place, "content_type", "base64 is not decoded: send the text itself");
    }
    let Some(value) = own(parameters, SIZE, place)? else { return Ok(None) };
    match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
        Some(size) => Ok(Some(size)),
        None => refuse(place, SIZE, "expected an integer, 0 or more"),
    }
}

/// The value of the parameter `own`, where one is given.
fn own<'a>(
    parameters: Option<&'a Parameters>,
    own: &str,
    place: &str,
) -> Result<Option<&'a Value>, ApiError> {
    let Some(parameters) = parameters else { return Ok(None) };
    for name in parameters.keys().filter(|name| *name != own) {
        if NOT_BUILT.contains(&name.as_str()) {
            return refuse(place, name, "not built here: omit it");
        }
        if let Some((known, of)) = OURS.iter().find(|(known, _)| known == name) {
            return refuse(place, known, &format!("it is a parameter of {of}"));
        }
        let near = OURS.iter().find(|(known, _)| osa_distance(known, name) <= SLIP);
        if let Some((known, _)) = near {
            return refuse(place, name, &format!("unknown; do you mean {known}?"));
        }
    }
    Ok(parameters.get(own).filter(|value| !value.is_null()))
}

fn switch(value: &Value, name: &str, place: &str) -> Result<bool, ApiError> {
    value.as_bool().map_or_else(|| refuse(place, name, "expected true or false"), Ok)
}

fn refuse<T>(place: &str, name: &str, what: &str) -> Result<T, ApiError> {
    Err(ApiError::field("parameters", format!("{place}: {name}: {what}")))
}
