//! An image as the Open Inference Protocol sees it: tensors in, tensors out. No HTTP.

use serde_json::{Map, Value, json};

use crate::server::http::drawing::EncodedImages;
use crate::server::http::error::ApiError;
use crate::server::http::fields::read;
use crate::server::http::image::ImageFields;

/// The version of every model: folders have none.
pub const VERSION: &str = "1";

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// Strings of bytes; those of inputs are UTF-8.
    Bytes,
    /// 64 bits, signed.
    Int64,
    /// 32 bits, signed.
    Int32,
    /// IEEE, 32 bits.
    Fp32,
}

/// The elements of a tensor, by their [`Datatype`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Bytes(Vec<Vec<u8>>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Fp32(Vec<f32>),
}

/// A tensor with a name; its shape is `[elements]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub data: Data,
}

/// What is known of an input or output before any request.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    pub name: &'static str,
    pub datatype: Datatype,
    /// Number of elements; -1 for the number of images.
    pub elements: i64,
}

const fn one(name: &'static str, datatype: Datatype) -> Declared {
    Declared { name, datatype, elements: 1 }
}

/// The inputs of every model; only the prompt is required.
pub const INPUTS: [Declared; 11] = [
    one("prompt", Datatype::Bytes),
    one("negative_prompt", Datatype::Bytes),
    one("seed", Datatype::Int64),
    one("steps", Datatype::Int32),
    one("width", Datatype::Int32),
    one("height", Datatype::Int32),
    one("guidance", Datatype::Fp32),
    one("sampler", Datatype::Bytes),
    one("cache", Datatype::Bytes),
    one("n", Datatype::Int32),
    one("output_format", Datatype::Bytes),
];

/// The outputs of every model: the files of the images, their seeds, and how often the deep core
/// ran.
pub const OUTPUTS: [Declared; 3] = [
    Declared { name: "image", datatype: Datatype::Bytes, elements: -1 },
    Declared { name: "seed", datatype: Datatype::Int64, elements: -1 },
    one("core_runs", Datatype::Int32),
];

impl Data {
    /// The type of the elements.
    pub fn datatype(&self) -> Datatype {
        match self {
            Data::Bytes(_) => Datatype::Bytes,
            Data::Int64(_) => Datatype::Int64,
            Data::Int32(_) => Datatype::Int32,
            Data::Fp32(_) => Datatype::Fp32,
        }
    }

    /// The first element as JSON, where it can be written so.
    fn first(&self) -> Option<Value> {
        Some(match self {
            Data::Bytes(data) => json!(str::from_utf8(data.first()?).ok()?),
            Data::Int64(data) => json!(data.first()?),
            Data::Int32(data) => json!(data.first()?),
            Data::Fp32(data) => json!(data.first().filter(|number| number.is_finite())?),
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Bytes(data) => data.len(),
            Data::Int64(data) => data.len(),
            Data::Int32(data) => data.len(),
            Data::Fp32(data) => data.len(),
        }
    }
}

/// The declaration of the input `name`.
///
/// # Errors
/// 400 when there is no such input.
pub fn input(name: &str) -> Result<Declared, ApiError> {
    INPUTS.into_iter().find(|input| input.name == name).ok_or_else(|| {
        let known = INPUTS.map(|input| input.name).join(", ");
        ApiError::field("inputs", format!("there is no input {name:?}; there are {known}"))
    })
}

/// The fields that `inputs` are for the model of this name. Each input has one element.
///
/// # Errors
/// 400 that names the input.
pub fn fields(model: &str, inputs: Vec<Tensor>) -> Result<ImageFields, ApiError> {
    let mut fields = Map::new();
    for Tensor { name, data } in inputs {
        let value =
            data.first().ok_or_else(|| refuse(&name, "neither UTF-8 nor a finite number"))?;
        if value.as_i64().is_some_and(|number| number < 0) {
            return Err(refuse(&name, "negative"));
        }
        if fields.contains_key(&name) {
            return Err(refuse(&name, "given twice"));
        }
        fields.insert(name, value);
    }
    if !fields.contains_key("prompt") {
        let message = "the input prompt is missing: say what to draw";
        return Err(ApiError::field("prompt", message));
    }
    match (fields.remove("width"), fields.remove("height")) {
        (None, None) => {}
        (Some(width), Some(height)) => {
            fields.insert("size".to_string(), json!(format!("{width}x{height}")));
        }
        (Some(_), None) => return Err(refuse("height", "given with width only")),
        (None, Some(_)) => return Err(refuse("width", "given with height only")),
    }
    fields.insert("model".to_string(), json!(model));
    read(fields)
}

/// The tensors of an answer.
pub fn outputs(images: EncodedImages) -> [Tensor; 3] {
    let EncodedImages { files, figures } = images;
    let seeds = figures.seeds.iter().map(|seed| seed.cast_signed()).collect();
    let core_runs = i32::try_from(figures.core_runs).expect("fewer runs than steps");
    let datas = [Data::Bytes(files), Data::Int64(seeds), Data::Int32(vec![core_runs])];
    let mut outputs = OUTPUTS.iter().zip(datas);
    std::array::from_fn(|_| {
        let (declared, data) = outputs.next().expect("a tensor for each output");
        Tensor { name: declared.name.to_string(), data }
    })
}

fn refuse(name: &str, what: &str) -> ApiError {
    ApiError::field(name, format!("{name}: {what}"))
}
