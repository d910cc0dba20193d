//! A picture as the Open Inference Protocol sees it: tensors in, tensors out. No HTTP.

use utoipa::ToSchema;

use crate::server::http::drawing::Pictures;
use crate::server::http::{ApiError, PictureFields};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, ToSchema)]
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

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Of [`Datatype::Bytes`].
    Bytes(Vec<Vec<u8>>),
    /// Of [`Datatype::Int64`].
    Int64(Vec<i64>),
    /// Of [`Datatype::Int32`].
    Int32(Vec<i32>),
    /// Of [`Datatype::Fp32`].
    Fp32(Vec<f32>),
}

/// A tensor with a name; its shape is `[elements]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// What it is.
    pub name: String,
    /// Its elements.
    pub data: Data,
}

/// What a tensor of the model is.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// The type of its elements.
    pub datatype: Datatype,
    /// How many it has; -1 is as many as pictures.
    pub elements: i64,
}

const fn one(name: &'static str, datatype: Datatype) -> Declared {
    Declared { name, datatype, elements: 1 }
}

/// What the model reads; only the prompt is required.
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

/// What the model gives: the files of the pictures, their seeds, and how often the deep core ran.
pub const OUTPUTS: [Declared; 3] = [
    Declared { name: "image", datatype: Datatype::Bytes, elements: -1 },
    Declared { name: "seed", datatype: Datatype::Int64, elements: -1 },
    one("core_runs", Datatype::Int32),
];

impl Data {
    /// What they are.
    pub fn datatype(&self) -> Datatype {
        match self {
            Data::Bytes(_) => Datatype::Bytes,
            Data::Int64(_) => Datatype::Int64,
            Data::Int32(_) => Datatype::Int32,
            Data::Fp32(_) => Datatype::Fp32,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Data::Bytes(data) => data.len(),
            Data::Int64(data) => data.len(),
            Data::Int32(data) => data.len(),
            Data::Fp32(data) => data.len(),
        }
    }
}

/// What is declared of the input `name`.
///
/// # Errors
/// 400 when there is no such input.
pub fn input(name: &str) -> Result<Declared, ApiError> {
    INPUTS.into_iter().find(|input| input.name == name).ok_or_else(|| {
        let known = INPUTS.map(|input| input.name).join(", ");
        ApiError::field("inputs", format!("there is no input {name:?}; there are {known}"))
    })
}

/// The fields that `inputs` are of the model `model`.
///
/// # Errors
/// 400 that names the input.
pub fn fields(model: &str, inputs: &[Tensor]) -> Result<PictureFields, ApiError> {
    let mut fields = PictureFields { model: Some(model.to_string()), ..Default::default() };
    let (mut prompt, mut width, mut height) = (None, None, None);
    for (i, tensor) in inputs.iter().enumerate() {
        let name = tensor.name.as_str();
        if inputs[..i].iter().any(|other| other.name == name) {
            return Err(ApiError::field(name, format!("{name}: given twice")));
        }
        match name {
            "prompt" => prompt = Some(text(tensor)?),
            "negative_prompt" => fields.negative_prompt = Some(text(tensor)?),
            "seed" => fields.seed = Some(whole(tensor)?),
            "steps" => fields.steps = Some(whole(tensor)? as usize),
            "width" => width = Some(whole(tensor)?),
            "height" => height = Some(whole(tensor)?),
            "guidance" => fields.guidance = Some(number(tensor)?),
            "sampler" => fields.sampler = Some(parsed(tensor)?),
            "cache" => fields.cache = Some(text(tensor)?),
            "n" => fields.n = Some(whole(tensor)? as usize),
            "output_format" => fields.output_format = Some(parsed(tensor)?),
            _ => return Err(input(name).err().unwrap_or_else(|| refuse(tensor, "is not read"))),
        }
    }
    let missing = || ApiError::field("prompt", "the input prompt is missing: say what to draw");
    fields.prompt = prompt.ok_or_else(missing)?;
    fields.size = match (width, height) {
        (None, None) => None,
        (Some(width), Some(height)) => Some(format!("{width}x{height}")),
        (Some(_), None) => return Err(ApiError::field("height", "height: given with width only")),
        (None, Some(_)) => return Err(ApiError::field("width", "width: given with height only")),
    };
    Ok(fields)
}

/// What is given back.
pub fn outputs(pictures: Pictures) -> [Tensor; 3] {
    let Pictures { encoded, figures } = pictures;
    let seeds = figures.seeds.iter().map(|seed| seed.cast_signed()).collect();
    let core_runs = i32::try_from(figures.core_runs).expect("fewer runs than steps");
    let datas = [Data::Bytes(encoded), Data::Int64(seeds), Data::Int32(vec![core_runs])];
    let mut outputs = OUTPUTS.iter().zip(datas);
    std::array::from_fn(|_| {
        let (declared, data) = outputs.next().expect("a tensor for each output");
        Tensor { name: declared.name.to_string(), data }
    })
}

fn refuse(tensor: &Tensor, what: &str) -> ApiError {
    ApiError::field(&tensor.name, format!("{}: {what}", tensor.name))
}

fn text(tensor: &Tensor) -> Result<String, ApiError> {
    match &tensor.data {
        Data::Bytes(data) if data.len() == 1 => {
            let text = String::from_utf8(data[0].clone());
            text.map_err(|_| refuse(tensor, "not UTF-8"))
        }
        _ => Err(refuse(tensor, "expected one string")),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(tensor: &Tensor) -> Result<T, ApiError> {
    text(tensor)?.parse().map_err(|error: T::Err| refuse(tensor, &error.to_string()))
}

fn whole(tensor: &Tensor) -> Result<u64, ApiError> {
    let number = match &tensor.data {
        Data::Int64(data) if data.len() == 1 => data[0],
        Data::Int32(data) if data.len() == 1 => i64::from(data[0]),
        _ => return Err(refuse(tensor, "expected one integer")),
    };
    u64::try_from(number).map_err(|_| refuse(tensor, "negative"))
}

fn number(tensor: &Tensor) -> Result<f64, ApiError> {
    match &tensor.data {
        Data::Fp32(data) if data.len() == 1 => Ok(f64::from(data[0])),
        _ => Err(refuse(tensor, "expected one number")),
    }
}
