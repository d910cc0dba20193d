//! An image as the Open Inference Protocol sees it: tensors in, tensors out. No HTTP.

use hydit::lora::LoraChoice;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::server::control::FIELD;
use crate::server::http::drawing::EncodedImages;
use crate::server::http::error::ApiError;
use crate::server::http::fields::read;
use crate::server::http::image::ImageFields;

/// The version of every model: folders have none.
pub const VERSION: &str = "1";

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
#[allow(missing_docs)] // the protocol's names
pub enum Datatype {
    /// Strings of bytes; those of inputs are UTF-8.
    Bytes,
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
}

impl Datatype {
    /// Whether the elements are numbers.
    pub fn is_number(self) -> bool {
        !matches!(self, Datatype::Bytes | Datatype::Bool)
    }

    /// The numbers that an integer of this type can be; `None` for other types.
    pub fn integers(self) -> Option<(i64, u64)> {
        Some(match self {
            Datatype::Uint8 => (0, u8::MAX.into()),
            Datatype::Uint16 => (0, u16::MAX.into()),
            Datatype::Uint32 => (0, u32::MAX.into()),
            Datatype::Uint64 => (0, u64::MAX),
            Datatype::Int8 => (i8::MIN.into(), i8::MAX as u64),
            Datatype::Int16 => (i16::MIN.into(), i16::MAX as u64),
            Datatype::Int32 => (i32::MIN.into(), i32::MAX as u64),
            Datatype::Int64 => (i64::MIN, i64::MAX as u64),
            _ => return None,
        })
    }
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
pub const INPUTS: [Declared; 22] = [
    one("prompt", Datatype::Bytes),
    one("negative_prompt", Datatype::Bytes),
    one("seed", Datatype::Int64),
    one("steps", Datatype::Int32),
    one("width", Datatype::Int32),
    one("height", Datatype::Int32),
    one("guidance", Datatype::Fp32),
    one("guidance_interval", Datatype::Bytes),
    one("pag_scale", Datatype::Fp32),
    one("pag_adaptive_scale", Datatype::Fp32),
    one("sampler", Datatype::Bytes),
    one("spacing", Datatype::Bytes),
    one("cache", Datatype::Bytes),
    one("n", Datatype::Int32),
    one("output_format", Datatype::Bytes),
    one("lora", Datatype::Bytes),
    one("image", Datatype::Bytes),
    one("mask", Datatype::Bytes),
    one("strength", Datatype::Fp32),
    one("control", Datatype::Bytes),
    one("image_prompt", Datatype::Bytes),
    one("image_prompt_weight", Datatype::Fp32),
];

/// The outputs of every model: the files of the images, their seeds, and how often the deep core
/// ran.
pub const OUTPUTS: [Declared; 3] = [
    Declared { name: IMAGE, datatype: Datatype::Bytes, elements: -1 },
    Declared { name: "seed", datatype: Datatype::Int64, elements: -1 },
    one("core_runs", Datatype::Int32),
];

/// The output with the files.
pub const IMAGE: &str = "image";

/// The elements of an output, by its [`Datatype`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements<'a> {
    Bytes(&'a [Vec<u8>]),
    Int64(&'a [u64]),
    Int32(i32),
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

/// The declaration of the output `name`.
///
/// # Errors
/// 400 when there is no such output.
pub fn output(name: &str) -> Result<Declared, ApiError> {
    OUTPUTS.into_iter().find(|output| output.name == name).ok_or_else(|| {
        let known = OUTPUTS.map(|output| output.name).join(", ");
        ApiError::field("outputs", format!("there is no output {name:?}; there are {known}"))
    })
}

/// The fields that `inputs` are for the model of this name: names, each with its element.
///
/// # Errors
/// 400 that names the input.
pub fn fields(model: &str, inputs: Vec<(&str, Value)>) -> Result<ImageFields, ApiError> {
    let mut fields = Map::new();
    for (name, value) in inputs {
        // A seed below 0 is for its own reader to judge.
        if name != "seed" && value.as_i64().is_some_and(|number| number < 0) {
            return Err(refuse(name, "negative"));
        }
        if fields.insert(name.to_string(), value).is_some() {
            return Err(refuse(name, "given twice"));
        }
    }
    if !fields.contains_key("prompt") {
        let message = "the input prompt is missing: say what to draw";
        return Err(ApiError::field("prompt", message));
    }
    if let Some(text) = fields.get("lora").and_then(Value::as_str) {
        let loras: Result<Vec<LoraChoice>, String> = text.split(',').map(str::parse).collect();
        let loras = loras.map_err(|problem| refuse("lora", &problem))?;
        fields.insert("lora".to_string(), json!(loras));
    }
    if let Some(text) = fields.get(FIELD).and_then(Value::as_str) {
        let expected =
            r#"expected ControlNets as a JSON text, such as [{"name": "canny", "image": BASE64}]"#;
        let nets: Value = serde_json::from_str(text).map_err(|_| refuse(FIELD, expected))?;
        fields.insert(FIELD.to_string(), nets);
    }
    // What came as an FP32 means the number that is written shortest: 0.7 of 10 steps are 7.
    if let Some(strength) = fields.get("strength").and_then(Value::as_f64)
        && f64::from(strength as f32) == strength
    {
        let shortest: f64 = (strength as f32).to_string().parse().expect("it was written so");
        fields.insert("strength".to_string(), json!(shortest));
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

/// The elements of the output that is declared so.
pub fn elements(output: Declared, images: &EncodedImages) -> Elements<'_> {
    let EncodedImages { files, figures } = images;
    match output.datatype {
        Datatype::Bytes => Elements::Bytes(files),
        Datatype::Int64 => Elements::Int64(&figures.seeds),
        _ => Elements::Int32(i32::try_from(figures.core_runs).expect("fewer runs than steps")),
    }
}

fn refuse(name: &str, what: &str) -> ApiError {
    ApiError::field(name, format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_of_an_fp32_is_the_number_that_was_meant() {
        for (given, meant) in
            [(f64::from(0.7_f32), 0.7), (0.7, 0.7), (0.123_456_789, 0.123_456_789)]
        {
            let inputs = vec![("prompt", json!("a cat")), ("strength", json!(given))];
            assert_eq!(fields("emoji", inputs).expect("fields").strength, Some(meant));
        }
    }
}
