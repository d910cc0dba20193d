//! Requests for inference in JSON, and as bytes after the JSON: the protocol's binary tensor data
//! extension.

use std::fmt::Debug;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::parameters;
use super::tensors::{Datatype, Declared, IMAGE, OUTPUTS, input, output};
use crate::server::http::error::ApiError;
use crate::server::http::fields::{as_integer, in_words};

/// Bytes of the JSON, where more bytes follow it.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request for inference, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Option<String>,
    /// Not looked at: the path names the model.
    #[serde(rename = "model_name")]
    _model_name: Option<String>,
    #[serde(rename = "model_version")]
    _model_version: Option<String>,
    parameters: Option<Map<String, Value>>,
    /// Each read apart, so that an error can name it.
    inputs: Vec<Value>,
    outputs: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInput {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    parameters: Option<Map<String, Value>>,
    /// The element, in an array; absent where it comes as bytes after the JSON.
    data: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOutput {
    name: String,
    parameters: Option<Map<String, Value>>,
}

/// A request for inference.
#[derive(Debug)]
pub struct InferRequest {
    /// Comes back in the answer.
    pub id: Option<String>,
    /// The prompt, and what else is to differ from the defaults: names, each with its element.
    pub inputs: Vec<(&'static str, Value)>,
    /// The outputs wanted, each once.
    pub outputs: Vec<Wanted>,
}

/// An output that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub output: Declared,
    /// Whether it comes as bytes after the JSON.
    pub binary: bool,
}

impl InferRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 that says what is wrong.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<InferRequest, ApiError> {
        let (json, mut rest) = match headers.get(JSON_LENGTH) {
            None => (body, None),
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse().ok());
                let parts = length.and_then(|length| body.split_at_checked(length));
                let (json, rest) = parts.ok_or_else(|| {
                    bad(format!(
                        "{JSON_LENGTH}: expected the bytes of the JSON, at most the body's"
                    ))
                })?;
                (json, Some(rest))
            }
        };
        let json: Value = serde_json::from_slice(json)
            .map_err(|error| bad(format!("not a request for inference: {error}")))?;
        let Written { id, parameters, inputs, outputs, .. } = part(json, "the request")?;
        let inputs = inputs.into_iter().enumerate();
        let inputs = inputs.map(|(index, input)| read_input(input, index, &mut rest));
        let inputs = inputs.collect::<Result<Vec<_>, ApiError>>()?;
        if rest.is_some_and(|rest| !rest.is_empty()) {
            return Err(bad(
                "there are more bytes after the JSON than its inputs claim".to_string()
            ));
        }
        let binary = parameters::of_request(parameters.as_ref())?;
        let outputs = read_outputs(outputs.unwrap_or_default(), binary)?;
        Ok(InferRequest { id, inputs, outputs })
    }

    /// How the images come, if they do: as bytes or in base64.
    pub fn image(&self) -> Option<Wanted> {
        self.outputs.iter().find(|wanted| wanted.output.name == IMAGE).copied()
    }
}

/// The outputs wanted; all if none is named.
fn read_outputs(outputs: Vec<Value>, binary: bool) -> Result<Vec<Wanted>, ApiError> {
    if outputs.is_empty() {
        return Ok(OUTPUTS.map(|output| Wanted { output, binary }).to_vec());
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for (index, value) in outputs.into_iter().enumerate() {
        let place = place(&value, "output", index);
        let WrittenOutput { name, parameters } = part(value, &place)?;
        let output = output(&name)?;
        if wanted.iter().any(|other| other.output.name == output.name) {
            return Err(ApiError::field("outputs", format!("{place} is asked for twice")));
        }
        let own = parameters::of_output(parameters.as_ref(), &place)?;
        wanted.push(Wanted { output, binary: own.unwrap_or(binary) });
    }
    Ok(wanted)
}

/// The name of an input and its element, from the JSON or from the front of `rest`.
fn read_input(
    value: Value,
    index: usize,
    rest: &mut Option<&[u8]>,
) -> Result<(&'static str, Value), ApiError> {
    let place = place(&value, "input", index);
    let WrittenInput { name, shape, datatype, parameters, data } = part(value, &place)?;
    let given = Given::check(&place, &name, &datatype, &shape)?;
    let size = parameters::of_input(parameters.as_ref(), &place)?;
    let element = match (&data, size) {
        (Some(data), None) => from_json(data, given.datatype),
        (None, Some(size)) => {
            let parts = rest.and_then(|rest| rest.split_at_checked(size));
            let (front, back) = parts.ok_or_else(|| {
                given.refuse("fewer bytes than its binary_data_size follow the JSON")
            })?;
            *rest = Some(back);
            from_bytes(front, given.datatype)
        }
        _ => return Err(given.refuse("give either data or binary_data_size")),
    };
    given.element(element)
}

/// An input as it is given: with one element, of a type that fits.
pub struct Given<'a> {
    declared: Declared,
    datatype: Datatype,
    place: &'a str,
}

impl<'a> Given<'a> {
    /// Checks what is said of the input `name` at `place`.
    ///
    /// # Errors
    /// 400 that says what is wrong.
    pub fn check<T: Copy + Into<i128> + Debug>(
        place: &'a str,
        name: &str,
        datatype: &str,
        shape: &[T],
    ) -> Result<Given<'a>, ApiError> {
        let declared = input(name)?;
        let given = Given { declared, datatype: declared.datatype, place };
        let datatype = fitting(datatype, declared.datatype).map_err(|what| given.refuse(&what))?;
        if shape.iter().any(|side| Into::<i128>::into(*side) != 1) {
            let what = format!("its shape is {shape:?}; expected [1], for one element");
            return Err(given.refuse(&what));
        }
        Ok(Given { datatype, ..given })
    }

    /// The type that its element is given in.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// An error in the input.
    pub fn refuse(&self, what: &str) -> ApiError {
        ApiError::field(self.declared.name, format!("{}: {what}", self.place))
    }

    /// The name of the input and its element, if it was one of its type.
    ///
    /// # Errors
    /// 400 that says what is wrong.
    pub fn element(&self, element: Option<Value>) -> Result<(&'static str, Value), ApiError> {
        let Declared { name, datatype, .. } = self.declared;
        let given: &str = self.datatype.into();
        let element =
            element.ok_or_else(|| self.refuse(&format!("its data is not one {given}")))?;
        if datatype.integers().is_none() {
            return Ok((name, element));
        }
        let integer = if element.is_f64() { as_integer(&element) } else { Some(element) };
        Ok((name, integer.ok_or_else(|| self.refuse("expected a whole number"))?))
    }
}

/// The datatype that is written so, if it can be given for a `declared` one: any number for a
/// number.
fn fitting(written: &str, declared: Datatype) -> Result<Datatype, String> {
    let given = written.parse().ok();
    let same = |given: &Datatype| *given == declared || (given.is_number() && declared.is_number());
    given.filter(same).ok_or_else(|| {
        let more = if declared.is_number() { " or another number" } else { "" };
        let declared: &str = declared.into();
        format!("its datatype is {written:?}; expected {declared}{more}")
    })
}

/// Reads a part of the request; an error names it and the field in it.
fn part<T: DeserializeOwned>(value: Value, place: &str) -> Result<T, ApiError> {
    if !value.is_object() {
        return Err(bad(format!("{place}: expected an object"))); // serde reads arrays too
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!("{path}: ") };
        bad(format!("{place}: {field}{}", in_words(error.inner())))
    })
}

/// How errors call an input or output: by its name, if it has one.
fn place(value: &Value, what: &str, index: usize) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("the {what} {name}"),
        None => format!("the {what} number {}", index + 1),
    }
}

fn bad(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
}

/// The one element of this type, in an array or in arrays of arrays.
fn from_json(data: &Value, datatype: Datatype) -> Option<Value> {
    let mut element = data.as_array()?.first_chunk().map(|[element]| element)?;
    let one = |value: &Value| value.as_array().is_none_or(|all| all.len() == 1);
    if !one(data) {
        return None;
    }
    while let Value::Array(inner) = element {
        element = inner.first().filter(|_| one(element))?;
    }
    let fits = match datatype {
        Datatype::Bytes => element.is_string(),
        Datatype::Bool => element.is_boolean(),
        number => match number.integers() {
            None => element.is_number(),
            Some((least, most)) => {
                let integer = as_integer(element).unwrap_or_else(|| element.clone());
                integer.as_i64().is_some_and(|n| n >= least && (n < 0 || n.cast_unsigned() <= most))
                    || integer.as_u64().is_some_and(|n| n <= most)
            }
        },
    };
    fits.then(|| element.clone())
}

/// The one element of this type: a number in little-endian order, a string behind its length.
pub fn from_bytes(bytes: &[u8], datatype: Datatype) -> Option<Value> {
    macro_rules! number {
        ($type:ty) => {
            json!(<$type>::from_le_bytes(bytes.try_into().ok()?))
        };
    }
    let half = || Some(u16::from_le_bytes(bytes.try_into().ok()?));
    let value = match datatype {
        Datatype::Bytes => {
            let (length, text) = bytes.split_first_chunk()?;
            let whole = text.len() == u32::from_le_bytes(*length) as usize;
            json!(str::from_utf8(text).ok().filter(|_| whole)?)
        }
        Datatype::Bool => return None,
        Datatype::Uint8 => number!(u8),
        Datatype::Uint16 => number!(u16),
        Datatype::Uint32 => number!(u32),
        Datatype::Uint64 => number!(u64),
        Datatype::Int8 => number!(i8),
        Datatype::Int16 => number!(i16),
        Datatype::Int32 => number!(i32),
        Datatype::Int64 => number!(i64),
        Datatype::Fp16 => json!(half::f16::from_bits(half()?).to_f32()),
        Datatype::Bf16 => json!(half::bf16::from_bits(half()?).to_f32()),
        Datatype::Fp32 => number!(f32),
        Datatype::Fp64 => number!(f64),
    };
    Some(value).filter(|value| !value.is_null()) // JSON has no infinities
}

#[cfg(test)]
mod tests;
