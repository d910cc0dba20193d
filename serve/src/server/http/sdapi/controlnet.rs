//! ControlNets as clients of the web UI's ControlNet extension ask for them: units among
//! `alwayson_scripts`.

use axum::body::Bytes;
use hydit::control::Preprocess;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::png_info::from_base64;
use crate::server::control::ControlField;
use crate::server::http::error::ApiError;
use crate::server::http::fields::read;

/// The field of a request.
pub const SCRIPTS: &str = "alwayson_scripts";

/// The fields of a unit that mean something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unit {
    enabled: Option<bool>,
    module: Option<String>,
    model: Option<String>,
    image: Option<Value>,
    input_image: Option<Value>,
    weight: Option<f32>,
    guidance_start: Option<f64>,
    guidance_end: Option<f64>,
}

/// The nets that `scripts` ask for, with their images.
///
/// # Errors
/// 400 that names the field of the unit.
pub fn units(scripts: &Map<String, Value>) -> Result<Vec<(ControlField, Bytes)>, ApiError> {
    let named = scripts.iter().find(|(name, _)| name.eq_ignore_ascii_case("controlnet"));
    let Some((_, script)) = named else { return Ok(Vec::new()) };
    let Some(args) = script.get("args").and_then(Value::as_array) else {
        return Err(refuse("controlnet: expected an object with the list args"));
    };
    let mut units = Vec::new();
    for unit in args {
        let Value::Object(unit) = unit else {
            return Err(refuse("controlnet: expected units that are objects"));
        };
        let unit: Unit = read(unit.clone()).map_err(|error| refuse(&error.message))?;
        if unit.enabled != Some(false) {
            units.push(unit.control()?);
        }
    }
    Ok(units)
}

impl Unit {
    fn control(self) -> Result<(ControlField, Bytes), ApiError> {
        // Titles are a name and a hash: `canny [0123abcd]`.
        let model = self.model.as_deref().unwrap_or_default();
        let name = model.split(" [").next().unwrap_or_default().trim();
        if name.is_empty() || name.eq_ignore_ascii_case("none") {
            return Err(refuse("model: name one of the model's ControlNets"));
        }
        let module = self.module.as_deref().unwrap_or("none").to_lowercase();
        let Ok(preprocess) = module.parse::<Preprocess>() else {
            let message = format!("module: there is no {module:?}, only none and canny");
            return Err(refuse(&message));
        };
        let image = match self.image.or(self.input_image) {
            Some(Value::Object(mut image)) => image.remove("image").unwrap_or_default(),
            image => image.unwrap_or_default(),
        };
        let Value::String(image) = image else {
            return Err(refuse("image: expected a file in base64"));
        };
        let file = from_base64(SCRIPTS, &image)?.into();
        let field = ControlField {
            name: name.to_string(),
            image: None,
            weight: self.weight,
            start: self.guidance_start,
            end: self.guidance_end,
            preprocess: Some(preprocess),
        };
        Ok((field, file))
    }
}

fn refuse(message: &str) -> ApiError {
    ApiError::field(SCRIPTS, format!("{SCRIPTS}: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(unit: &Value) -> Result<Vec<(ControlField, Bytes)>, ApiError> {
        let scripts = json!({ "ControlNet": { "args": [unit] }, "other": { "args": [] } });
        units(scripts.as_object().expect("an object"))
    }

    #[test]
    fn a_unit_is_read_as_clients_send_it() {
        let unit = json!({
            "enabled": true, "module": "Canny", "model": "edges [0123abcd]", "weight": 0.8,
            "image": "data:image/png;base64,AAEC", "guidance_start": 0.1, "guidance_end": 0.6,
            "resize_mode": "Crop and Resize", "pixel_perfect": true, "processor_res": 512,
        });
        let found = of(&unit).expect("a unit");
        let [(field, file)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((field.name.as_str(), &file[..]), ("edges", &[0, 1, 2][..]));
        assert_eq!((field.weight, field.start, field.end), (Some(0.8), Some(0.1), Some(0.6)));
        assert_eq!(field.preprocess, Some(Preprocess::Canny));
        let nested = json!({ "model": "edges", "input_image": { "image": "AAEC", "mask": "" } });
        let found = of(&nested).expect("a unit");
        assert_eq!(
            (&found[0].1[..], found[0].0.preprocess),
            (&[0, 1, 2][..], Some(Preprocess::None))
        );
        assert!(of(&json!({ "enabled": false })).expect("none").is_empty());
        assert!(units(&Map::new()).expect("none").is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (unit, words) in [
            (json!({ "model": "None", "image": "AAEC" }), "model: name one"),
            (json!({ "model": "edges" }), "image: expected a file in base64"),
            (json!({ "model": "edges", "image": "?" }), "expected a file in base64"),
            (
                json!({ "model": "edges", "image": "AAEC", "module": "depth_midas" }),
                "only none and",
            ),
            (json!({ "model": "edges", "image": "AAEC", "weight": "x" }), "weight: invalid type"),
            (json!("edges"), "units that are objects"),
        ] {
            let error = of(&unit).expect_err("a refusal");
            assert_eq!(error.param.as_deref(), Some(SCRIPTS));
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
