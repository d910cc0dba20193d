//! Tensors in JSON, and as bytes after the JSON: the protocol's binary tensor data extension.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tensors::{Data, Datatype, OUTPUTS, Tensor, VERSION, input};
use crate::server::http::error::ApiError;
use crate::server::http::fields::as_integer;

/// Bytes of the JSON, where more bytes follow it.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request for inference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferRequest {
    /// Comes back in the answer.
    pub id: Option<String>,
    /// Not looked at: the path names the model.
    #[expect(dead_code, reason = "KServe's client sends it")]
    model_name: Option<String>,
    parameters: Option<RequestParameters>,
    /// The prompt, and what else is to differ from the defaults.
    inputs: Vec<InferInput>,
    /// The outputs wanted; all if absent or empty.
    outputs: Option<Vec<OutputRequest>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestParameters {
    /// Whether outputs come as bytes after the JSON, where they do not say themselves.
    binary_data_output: Option<bool>,
}

/// An input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InferInput {
    /// Its name, as in the model's metadata.
    name: String,
    /// `[1]` or `[1, 1]`.
    shape: Vec<u64>,
    datatype: Datatype,
    parameters: Option<InputParameters>,
    /// The element, in an array; absent where it comes as bytes after the JSON.
    data: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputParameters {
    /// Bytes after the JSON that are this input's.
    binary_data_size: Option<usize>,
}

/// An output that is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputRequest {
    /// Its name, as in the model's metadata.
    name: String,
    parameters: Option<OutputParameters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputParameters {
    /// Whether it comes as bytes after the JSON.
    binary_data: Option<bool>,
}

/// The answer to a request for inference.
#[derive(Serialize)]
pub struct InferResponse {
    model_name: String,
    model_version: &'static str,
    /// That of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<InferOutput>,
}

/// An output.
#[derive(Serialize)]
struct InferOutput {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    /// With `binary_data_size`, where it comes as bytes after the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    /// The elements; pictures in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl InferRequest {
    /// Reads a body: the request, and its inputs.
    ///
    /// # Errors
    /// 400 that says what is wrong.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<(InferRequest, Vec<Tensor>), ApiError> {
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
        let request: InferRequest = serde_json::from_slice(json)
            .map_err(|error| bad(format!("not a request for inference: {error}")))?;
        let tensors = request.inputs.iter().map(|input| input.read(&mut rest));
        let tensors = tensors.collect::<Result<Vec<Tensor>, ApiError>>()?;
        if rest.is_some_and(|rest| !rest.is_empty()) {
            return Err(bad(
                "there are more bytes after the JSON than its inputs claim".to_string()
            ));
        }
        for output in request.outputs.iter().flatten() {
            if !OUTPUTS.iter().any(|known| known.name == output.name) {
                let known = OUTPUTS.map(|output| output.name).join(", ");
                return Err(bad(format!(
                    "there is no output {:?}; there are {known}",
                    output.name
                )));
            }
        }
        Ok((request, tensors))
    }

    /// The answer with `tensors`: JSON, and the bytes after it, if any output is to come so.
    pub fn answer(&self, model: &str, tensors: &[Tensor]) -> (InferResponse, Option<Vec<u8>>) {
        let default = self.parameters.as_ref().and_then(|all| all.binary_data_output);
        let wanted: Vec<(&str, Option<bool>)> = match self.outputs.as_deref() {
            None | Some([]) => OUTPUTS.iter().map(|output| (output.name, None)).collect(),
            Some(outputs) => outputs
                .iter()
                .map(|output| (output.name.as_str(), output.parameters.as_ref()))
                .map(|(name, parameters)| (name, parameters.and_then(|all| all.binary_data)))
                .collect(),
        };
        let mut bytes: Option<Vec<u8>> = None;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (name, binary) in wanted {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            let Tensor { name, data } = tensor.expect("the outputs were checked");
            let (parameters, json) = if binary.or(default).unwrap_or(false) {
                let raw = to_bytes(data);
                bytes.get_or_insert_default().extend(&raw);
                (Some(json!({ "binary_data_size": raw.len() })), None)
            } else {
                (None, Some(to_json(data)))
            };
            outputs.push(InferOutput {
                name: name.clone(),
                datatype: data.datatype(),
                shape: vec![data.len()],
                parameters,
                data: json,
            });
        }
        let (model_name, id) = (model.to_string(), self.id.clone());
        (InferResponse { model_name, model_version: VERSION, id, outputs }, bytes)
    }
}

impl InferInput {
    /// Its tensor, from the JSON or from the front of `rest`.
    fn read(&self, rest: &mut Option<&[u8]>) -> Result<Tensor, ApiError> {
        let name = &self.name;
        let refuse = |what: &str| bad(format!("the input {name}: {what}"));
        let declared = input(name)?;
        if self.datatype != declared.datatype {
            return Err(refuse(&format!("its datatype is {}", json!(declared.datatype))));
        }
        if !matches!(self.shape.as_slice(), [1] | [1, 1]) {
            return Err(refuse("its shape is [1] or [1, 1]"));
        }
        let size = self.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
        let data = match (&self.data, size) {
            (Some(data), None) => from_json(data, self.datatype),
            (None, Some(size)) => {
                let parts = rest.and_then(|rest| rest.split_at_checked(size));
                let (front, back) = parts.ok_or_else(|| {
                    refuse("fewer bytes than its binary_data_size follow the JSON")
                })?;
                *rest = Some(back);
                from_bytes(front, self.datatype)
            }
            _ => return Err(refuse("give either data or binary_data_size")),
        };
        let data = data.ok_or_else(|| refuse("its data is not of its datatype"))?;
        if data.len() != 1 {
            return Err(refuse("it has one element"));
        }
        Ok(Tensor { name: name.clone(), data })
    }
}

fn bad(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
}

/// Elements, in an array or in arrays of arrays.
fn from_json(data: &Value, datatype: Datatype) -> Option<Data> {
    fn elements<T>(data: &Value, read: &impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        for element in data.as_array()? {
            match element {
                Value::Array(_) => all.extend(elements(element, read)?),
                element => all.push(read(element)?),
            }
        }
        Some(all)
    }
    Some(match datatype {
        Datatype::Bytes => {
            Data::Bytes(elements(data, &|text| Some(text.as_str()?.as_bytes().to_vec()))?)
        }
        Datatype::Int64 => Data::Int64(elements(data, &integer)?),
        Datatype::Int32 => {
            Data::Int32(elements(data, &|number| i32::try_from(integer(number)?).ok())?)
        }
        Datatype::Fp32 => {
            Data::Fp32(elements(data, &|number| number.as_f64().map(|number| number as f32))?)
        }
    })
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| as_integer(value)?.as_i64())
}

fn to_json(data: &Data) -> Value {
    match data {
        Data::Bytes(data) => {
            data.iter().map(|bytes| json!(BASE64_STANDARD.encode(bytes))).collect()
        }
        Data::Int64(data) => json!(data),
        Data::Int32(data) => json!(data),
        Data::Fp32(data) => json!(data),
    }
}

/// Numbers in little-endian order; strings each behind its length.
fn from_bytes(bytes: &[u8], datatype: Datatype) -> Option<Data> {
    fn numbers<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Option<Vec<T>> {
        let (numbers, rest) = bytes.as_chunks();
        rest.is_empty().then(|| numbers.iter().map(|number| read(*number)).collect())
    }
    Some(match datatype {
        Datatype::Bytes => {
            let (mut rest, mut all) = (bytes, Vec::new());
            while !rest.is_empty() {
                let (length, data) = rest.split_first_chunk()?;
                let (element, after) =
                    data.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                all.push(element.to_vec());
                rest = after;
            }
            Data::Bytes(all)
        }
        Datatype::Int64 => Data::Int64(numbers(bytes, i64::from_le_bytes)?),
        Datatype::Int32 => Data::Int32(numbers(bytes, i32::from_le_bytes)?),
        Datatype::Fp32 => Data::Fp32(numbers(bytes, f32::from_le_bytes)?),
    })
}

fn to_bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::Bytes(data) => {
            let lengths = data.iter().map(|bytes| (bytes.len() as u32).to_le_bytes());
            lengths.zip(data).flat_map(|(length, bytes)| [&length[..], bytes].concat()).collect()
        }
        Data::Int64(data) => data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Data::Int32(data) => data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Data::Fp32(data) => data.iter().flat_map(|number| number.to_le_bytes()).collect(),
    }
}
