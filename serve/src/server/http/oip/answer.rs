//! The answer to a request for inference: JSON, and bytes after it for outputs that are wanted so.

use serde::{Serialize, Serializer};

use super::tensors::{Datatype, Declared, Elements, VERSION, elements};
use super::wire::{InferRequest, Wanted};
use crate::server::http::base64::Base64;
use crate::server::http::drawing::EncodedImages;

/// A body.
pub struct Body {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Bytes of the JSON at its front, where more follow.
    pub json: Option<usize>,
}

#[derive(Serialize)]
struct InferResponse<'a> {
    model_name: &'a str,
    model_version: &'static str,
    /// That of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<InferOutput<'a>>,
}

#[derive(Serialize)]
struct InferOutput<'a> {
    name: &'static str,
    datatype: Datatype,
    shape: [usize; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    /// The elements; images in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct OutputParameters {
    /// Bytes after the JSON that are this output's.
    binary_data_size: usize,
}

/// The body with the wanted outputs of `images`, which the model of this name has drawn.
pub fn body(request: &InferRequest, model: &str, images: &EncodedImages) -> Body {
    let wanted = request.outputs.iter();
    let outputs = wanted.clone().map(|wanted| InferOutput::new(wanted, images)).collect();
    let answer = InferResponse {
        model_name: model,
        model_version: VERSION,
        id: request.id.as_deref(),
        outputs,
    };
    let mut bytes = serde_json::to_vec(&answer).expect("strings and numbers are valid JSON");
    let json = wanted.clone().any(|wanted| wanted.binary).then_some(bytes.len());
    for Wanted { output, .. } in wanted.filter(|wanted| wanted.binary) {
        elements(*output, images).write(&mut bytes);
    }
    Body { bytes, json }
}

impl<'a> InferOutput<'a> {
    fn new(wanted: &Wanted, images: &'a EncodedImages) -> InferOutput<'a> {
        let Wanted { output: Declared { name, datatype, .. }, binary } = *wanted;
        let data = elements(wanted.output, images);
        let size = OutputParameters { binary_data_size: data.size() };
        let (parameters, json) = if binary { (Some(size), None) } else { (None, Some(data)) };
        InferOutput { name, datatype, shape: [data.len()], parameters, data: json }
    }
}

impl Elements<'_> {
    pub fn len(self) -> usize {
        match self {
            Elements::Bytes(all) => all.len(),
            Elements::Int64(all) => all.len(),
            Elements::Int32(_) => 1,
        }
    }

    /// Number of bytes that [`Elements::write`] writes.
    fn size(self) -> usize {
        match self {
            Elements::Bytes(all) => all.iter().map(|bytes| 4 + bytes.len()).sum(),
            Elements::Int64(all) => 8 * all.len(),
            Elements::Int32(_) => 4,
        }
    }

    /// Appends numbers in little-endian order, strings each behind its length.
    pub fn write(self, to: &mut Vec<u8>) {
        to.reserve_exact(self.size());
        match self {
            Elements::Bytes(all) => all.iter().for_each(|bytes| {
                to.extend((bytes.len() as u32).to_le_bytes());
                to.extend(bytes);
            }),
            Elements::Int64(all) => all.iter().for_each(|number| to.extend(number.to_le_bytes())),
            Elements::Int32(number) => to.extend(number.to_le_bytes()),
        }
    }
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Elements::Bytes(all) => to.collect_seq(all.iter().map(|bytes| Base64(bytes))),
            Elements::Int64(all) => to.collect_seq(*all),
            Elements::Int32(number) => to.collect_seq([number]),
        }
    }
}
