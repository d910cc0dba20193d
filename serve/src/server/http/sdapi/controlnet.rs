//! ControlNets and image prompts as clients of the web UI's ControlNet extension ask for them: units
//! among `alwayson_scripts`, and the lists that their menus are filled with.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use hydit::control::Preprocess;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::desk::Desk;
use super::lists::short_hash;
use super::png_info::from_base64;
use crate::server::app::App;
use crate::server::control::ControlField;
use crate::server::http::error::ApiError;
use crate::server::http::fields::read;
use crate::server::http::guard::Client;

/// The field of a request.
pub const SCRIPTS: &str = "alwayson_scripts";

/// The module of units that are an image prompt, and the model that they have here.
const IP_ADAPTER: &str = "ip-adapter";

/// The version of the extension's API that is spoken; clients ask for this one or any.
const VERSION: u32 = 2;

/// What units ask for.
#[derive(Debug, Default)]
pub struct Units {
    /// The nets, each with its image.
    pub nets: Vec<(ControlField, Bytes)>,
    /// The image beside the prompt, with its weight.
    pub image_prompt: Option<(Bytes, Option<f32>)>,
}

/// The version of the extension's API.
pub async fn version() -> Json<Value> {
    Json(json!({ "version": VERSION }))
}

/// The ControlNets of the client's model, and its IP-Adapter.
pub async fn models(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
) -> Result<Json<Value>, ApiError> {
    let (_, artifacts) = app.scheduler.model(desk.model(&client).as_deref())?;
    let nets = artifacts.manifest.controls.iter().map(|net| net.name.as_str());
    let adapter = artifacts.manifest.ip_adapter.iter().map(|_| IP_ADAPTER);
    let title = |name: &str| format!("{name} [{}]", short_hash(artifacts));
    Ok(Json(json!({ "model_list": nets.chain(adapter).map(title).collect::<Vec<_>>() })))
}

/// The scripts that requests may name: the extension, where the client's model has a use for it.
pub async fn scripts(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
) -> Result<Json<Value>, ApiError> {
    let (_, artifacts) = app.scheduler.model(desk.model(&client).as_deref())?;
    let used = !artifacts.manifest.controls.is_empty() || artifacts.manifest.ip_adapter.is_some();
    let names = if used { vec!["controlnet"] } else { Vec::new() };
    Ok(Json(json!({ "txt2img": names, "img2img": names })))
}

/// What is made of the images of units.
pub async fn modules() -> Json<Value> {
    let names = ["none", "canny", IP_ADAPTER];
    let detail = |name: &str| (name.to_string(), json!({ "model_free": false, "sliders": [] }));
    let details: Map<String, Value> = names.into_iter().map(detail).collect();
    Json(json!({ "module_list": names, "module_detail": details }))
}

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

/// What `scripts` ask for. Units without an image read `init`, which the picture is made from.
///
/// # Errors
/// 400 that names the field of the unit.
pub fn units(scripts: &Map<String, Value>, init: Option<&Bytes>) -> Result<Units, ApiError> {
    let mut units = Units::default();
    let named = scripts.iter().find(|(name, _)| name.eq_ignore_ascii_case("controlnet"));
    let Some((_, script)) = named else { return Ok(units) };
    let Some(args) = script.get("args").and_then(Value::as_array) else {
        return Err(refuse("controlnet: expected an object with the list args"));
    };
    for unit in args {
        let Value::Object(unit) = unit else {
            return Err(refuse("controlnet: expected units that are objects"));
        };
        let unit: Unit = read(unit.clone()).map_err(|error| refuse(&error.message))?;
        if unit.enabled == Some(false) {
            continue;
        }
        if unit.is_image_prompt() {
            if units.image_prompt.replace(unit.image_prompt(init)?).is_some() {
                return Err(refuse("module: a request has one image prompt, not several"));
            }
        } else {
            units.nets.push(unit.control(init)?);
        }
    }
    Ok(units)
}

impl Unit {
    fn module(&self) -> String {
        self.module.as_deref().unwrap_or("none").to_lowercase()
    }

    /// The model's name. Titles are a name and a hash: `canny [0123abcd]`.
    fn model(&self) -> Option<&str> {
        let title = self.model.as_deref().unwrap_or_default();
        let name = title.split(" [").next().unwrap_or_default().trim();
        (!name.is_empty() && !name.eq_ignore_ascii_case("none")).then_some(name)
    }

    /// Whether its module is one that prepares any image for an IP-Adapter; those for faces are not.
    fn is_image_prompt(&self) -> bool {
        let module = self.module();
        let rest = module.strip_prefix(IP_ADAPTER);
        rest.is_some_and(|rest| matches!(rest, "" | "-auto") || rest.starts_with("_clip"))
    }

    fn image_prompt(self, init: Option<&Bytes>) -> Result<(Bytes, Option<f32>), ApiError> {
        if let Some(model) = self.model().filter(|model| *model != IP_ADAPTER) {
            let module = self.module();
            return Err(refuse(&format!(
                "model: {model:?} cannot be had with the module {module}; take {IP_ADAPTER}"
            )));
        }
        if self.guidance_start.is_some_and(|start| start != 0.0)
            || self.guidance_end.is_some_and(|end| end != 1.0)
        {
            let message = "guidance_start, guidance_end: an image prompt counts at all steps here; \
                           leave them out";
            return Err(refuse(message));
        }
        let weight = self.weight;
        Ok((self.file(init)?, weight))
    }

    /// The file of the unit's image, or `init` for a unit without one.
    ///
    /// # Errors
    /// 400 when there is neither, or it is not in base64.
    fn file(self, init: Option<&Bytes>) -> Result<Bytes, ApiError> {
        let image = match self.image.or(self.input_image) {
            Some(Value::Object(mut image)) => image.remove("image").unwrap_or_default(),
            image => image.unwrap_or_default(),
        };
        match (image, init) {
            (Value::String(image), _) => Ok(from_base64(SCRIPTS, &image)?.into()),
            (Value::Null, Some(init)) => Ok(init.clone()),
            _ => Err(refuse("image: expected a file in base64")),
        }
    }

    fn control(self, init: Option<&Bytes>) -> Result<(ControlField, Bytes), ApiError> {
        let module = self.module();
        let Ok(preprocess) = module.parse::<Preprocess>() else {
            let message =
                format!("module: there is no {module:?}, only none, canny and {IP_ADAPTER}");
            return Err(refuse(&message));
        };
        let Some(name) = self.model() else {
            return Err(refuse("model: name one of the model's ControlNets"));
        };
        let field = ControlField {
            name: name.to_string(),
            image: None,
            weight: self.weight,
            start: self.guidance_start,
            end: self.guidance_end,
            preprocess: Some(preprocess),
        };
        Ok((field, self.file(init)?))
    }
}

fn refuse(message: &str) -> ApiError {
    ApiError::field(SCRIPTS, format!("{SCRIPTS}: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_all(args: &Value) -> Result<Units, ApiError> {
        let scripts = json!({ "ControlNet": { "args": args }, "other": { "args": [] } });
        units(scripts.as_object().expect("an object"), None)
    }

    fn of(unit: &Value) -> Result<Vec<(ControlField, Bytes)>, ApiError> {
        of_all(&json!([unit])).map(|units| units.nets)
    }

    #[test]
    fn a_unit_of_the_ip_adapter_is_an_image_prompt() {
        let unit = json!({
            "module": "ip-adapter_clip_sd15", "model": "ip-adapter [0123abcd]", "weight": 0.7,
            "image": "AAEC", "guidance_start": 0, "guidance_end": 1.0,
        });
        let found = of_all(&json!([unit, { "model": "edges", "image": "AAEC" }])).expect("units");
        let (file, weight) = found.image_prompt.expect("an image prompt");
        assert_eq!((&file[..], weight, found.nets.len()), (&[0, 1, 2][..], Some(0.7), 1));
        let error = of_all(&json!([unit, unit])).expect_err("a refusal");
        assert!(error.message.contains("module: a request has one"), "{}", error.message);
        for (name, value, words) in [
            ("guidance_end", json!(0.5), "counts at all steps"),
            ("model", json!("edges"), "model: \"edges\" cannot be had with the module ip-adapter"),
            ("module", json!("ip-adapter_face_id"), "module: there is no \"ip-adapter_face_id\""),
            ("image", json!(null), "image: expected a file in base64"),
        ] {
            let mut wrong = unit.clone();
            wrong[name] = value;
            let error = of_all(&json!([wrong])).expect_err(words);
            assert!(error.message.contains(words), "{}", error.message);
        }
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
        assert!(units(&Map::new(), None).expect("none").nets.is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (unit, words) in [
            (json!({ "model": "None", "image": "AAEC" }), "model: name one"),
            (json!({ "model": "edges" }), "image: expected a file in base64"),
            (json!({ "model": "edges", "image": "?" }), "expected a file in base64"),
            (
                json!({ "model": "edges", "image": "AAEC", "module": "depth_midas" }),
                "only none, canny and ip-adapter",
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
