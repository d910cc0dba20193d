//! `POST /sdapi/v1/txt2img` and `img2img`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydit::sampler::{SamplerKind, Spacing};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::controlnet::{SCRIPTS, Units, units};
use super::desk::{Desk, Ticket};
use super::lists::{KARRAS, sampler, sampler_name, short_hash};
use super::lora_tags;
use super::options::{MODEL, chosen};
use super::png_info::{PARAMETERS, from_base64};
use crate::server::app::App;
use crate::server::http::base64::Base64;
use crate::server::http::body::Place;
use crate::server::http::drawing::{Carried, Drawing, EncodedImages, ImageSpec};
use crate::server::http::error::ApiError;
use crate::server::http::fields::{Fields, read};
use crate::server::http::guard::Client;
use crate::server::http::image::ImageFields;
use crate::server::init_image::Files;
use crate::server::output::texts;
use crate::server::scheduler::{TaskEvent, TaskOutput};

/// Sides of images are multiples of it.
const UNIT: f64 = 16.0;
/// The largest side that is read, and the most images: the server's limits come after it.
const MOST: f64 = 9999.0;

/// Share of the steps that `img2img` takes if nothing else is said.
const STRENGTH: f64 = 0.75;

/// The fields that mean something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    seed: Option<f64>,
    steps: Option<f64>,
    cfg_scale: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    batch_size: Option<f64>,
    n_iter: Option<f64>,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    scheduler: Option<String>,
    enable_hr: Option<bool>,
    send_images: Option<bool>,
    override_settings: Option<Map<String, Value>>,
    init_images: Option<Vec<String>>,
    mask: Option<String>,
    inpainting_mask_invert: Option<f64>,
    denoising_strength: Option<f64>,
    alwayson_scripts: Option<Map<String, Value>>,
    /// These four of our own.
    guidance_interval: Option<String>,
    pag_scale: Option<f64>,
    pag_adaptive_scale: Option<f64>,
    cache: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    images: Vec<Base64<'a>>,
    parameters: &'a Map<String, Value>,
    info: String,
}

/// Draws images. A client that closes the connection cancels them; one that interrupts them is answered
/// without images.
pub async fn from_text(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
    place: Option<Extension<Place>>,
    Fields(given): Fields,
) -> Result<Response, ApiError> {
    let asked: Asked = read(given.clone())?;
    let (place, send) = (place.map(|Extension(place)| place), asked.send_images);
    let fields = ImageFields { place, ..asked.image_fields(desk.model(&client), None)? };
    draw(&app, &desk, &client, given, fields, send).await
}

/// As [`from_text`], from the one image of `init_images`.
pub async fn from_image(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
    place: Option<Extension<Place>>,
    Fields(mut given): Fields,
) -> Result<Response, ApiError> {
    let asked: Asked = read(given.clone())?;
    let (place, send) = (place.map(|Extension(place)| place), asked.send_images);
    let (files, strength) = (asked.files()?, Some(asked.denoising_strength.unwrap_or(STRENGTH)));
    let fields = asked.image_fields(desk.model(&client), files.image.as_ref())?;
    let Files { controls, image_prompt, .. } = fields.files;
    let files = Files { controls, image_prompt, ..files };
    let fields = ImageFields { files, strength, place, ..fields };
    // As there, the answer repeats the request without its images.
    given.remove("init_images");
    given.remove("mask");
    draw(&app, &desk, &client, given, fields, send).await
}

async fn draw(
    app: &Arc<App>,
    desk: &Arc<Desk>,
    client: &Client,
    mut given: Map<String, Value>,
    fields: ImageFields,
    send: Option<bool>,
) -> Result<Response, ApiError> {
    // As there, the answer repeats the request without its images.
    if !fields.files.controls.is_empty() || fields.files.image_prompt.is_some() {
        given.remove(SCRIPTS);
    }
    let mut drawing = Drawing::begin(app, client, fields, 0, Carried::Base64).await?;
    let ticket = desk.begin(drawing.id(), client, drawing.spec().request.steps_taken());
    let body = match finish(&mut drawing, &ticket).await {
        Ok(output) => {
            let send = send.unwrap_or(true);
            let write = move |spec: &ImageSpec, images| answer(spec, &images, &given, send);
            drawing.encode(*output, write).await?
        }
        Err(error) if error.code == "cancelled" => {
            let info = json!({ "interrupted": true }).to_string();
            json(&Answer { images: Vec::new(), parameters: &given, info })
        }
        Err(error) => return Err(error),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Waits for the images, and tells the desk of each step.
async fn finish(drawing: &mut Drawing, ticket: &Ticket) -> Result<Box<TaskOutput>, ApiError> {
    let mut steps = 0;
    loop {
        match drawing.next().await? {
            TaskEvent::Step { .. } => {
                steps += 1;
                ticket.step(steps);
            }
            TaskEvent::Done(output) => return Ok(output),
            _ => {}
        }
    }
}

impl Asked {
    /// The image, and the mask that is white where it is painted anew.
    fn files(&self) -> Result<Files, ApiError> {
        let [image] = self.init_images.as_deref().unwrap_or_default() else {
            let message = "init_images: expected one image, in base64";
            return Err(ApiError::field("init_images", message));
        };
        if self.inpainting_mask_invert.is_some_and(|invert| invert != 0.0) {
            let message = "inpainting_mask_invert: what is white in the mask is painted anew here; \
                           invert the mask itself";
            return Err(ApiError::field("inpainting_mask_invert", message));
        }
        let image = from_base64("init_images", image)?.into();
        let mask = self.mask.as_deref().filter(|mask| !mask.is_empty());
        let mask = mask.map(|mask| from_base64("mask", mask)).transpose()?.map(Bytes::from);
        Ok(Files { image: Some(image), mask, is_white: true, ..Files::default() })
    }

    /// The fields as the other APIs have them; the model is `model` unless they name one. Units without
    /// an image read `init`. It takes what was asked, whose images in base64 are large, so that they are
    /// not in memory while the picture is drawn.
    fn image_fields(
        self,
        model: Option<String>,
        init: Option<&Bytes>,
    ) -> Result<ImageFields, ApiError> {
        if self.enable_hr == Some(true) {
            let message = "enable_hr: there is no second pass here; ask for the size itself";
            return Err(ApiError::field("enable_hr", message));
        }
        let named = self.override_settings.as_ref().and_then(|settings| settings.get(MODEL));
        let size = match (self.width, self.height) {
            (None, None) => None,
            (width, height) => {
                let [width, height] = [("width", width), ("height", height)]
                    .map(|(name, side)| side.map(|side| rounded(name, side)).transpose());
                let (width, height) = (width?, height?);
                let one = width.or(height).unwrap_or_default();
                Some(format!("{}x{}", width.unwrap_or(one), height.unwrap_or(one)))
            }
        };
        let count = self.batch_size.unwrap_or(1.0) * self.n_iter.unwrap_or(1.0);
        let taken_out = self.prompt.as_deref().map(lora_tags::taken_out).transpose()?;
        let (prompt, loras) = taken_out.unzip();
        let mut request = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            request.extend(value.map(|value| (name.to_string(), value)));
        };
        put("prompt", prompt.map(Value::from));
        put("lora", loras.filter(|loras| !loras.is_empty()).map(|loras| json!(loras)));
        put("negative_prompt", self.negative_prompt.clone().map(Value::from));
        put("seed", self.seed.map(Value::from));
        put("steps", self.steps.map(Value::from));
        put("guidance", self.cfg_scale.map(Value::from));
        put("guidance_interval", self.guidance_interval.clone().map(Value::from));
        put("pag_scale", self.pag_scale.map(Value::from));
        put("pag_adaptive_scale", self.pag_adaptive_scale.map(Value::from));
        put("n", Some(Value::from(count)));
        let (sampler, spacing) = self.sampler()?;
        put("sampler", sampler.map(|sampler| json!(sampler)));
        put("spacing", spacing.map(|spacing| json!(spacing)));
        let asked = self.alwayson_scripts.as_ref().map(|scripts| units(scripts, init));
        let Units { nets, image_prompt } = asked.transpose()?.unwrap_or_default();
        let (nets, controls): (Vec<_>, Vec<_>) = nets.into_iter().unzip();
        let (image_prompt, weight) = image_prompt.unzip();
        Ok(ImageFields {
            control: Some(nets),
            image_prompt_weight: weight.flatten(),
            files: Files { controls, image_prompt, ..Files::default() },
            model: chosen(named)?.or(model),
            size,
            cache: self.cache.clone(),
            metadata: Some(true),
            request,
            ..ImageFields::default()
        })
    }

    /// The sampler and its spacing, where they are asked for.
    fn sampler(&self) -> Result<(Option<SamplerKind>, Option<Spacing>), ApiError> {
        let automatic = |name: &&str| !["", "automatic"].contains(&name.to_lowercase().as_str());
        let scheduler = self.scheduler.as_deref().filter(automatic);
        if let Some(scheduler) = scheduler.filter(|name| !name.eq_ignore_ascii_case(KARRAS)) {
            let message =
                format!("scheduler: there is no {scheduler:?}, only Automatic and Karras");
            return Err(ApiError::field("scheduler", message));
        }
        let spacing = scheduler.map(|_| Spacing::Karras);
        let name = self.sampler_name.as_deref().or(self.sampler_index.as_deref()).filter(automatic);
        let Some(name) = name else { return Ok((None, spacing)) };
        match sampler(name) {
            Some((kind, karras)) => Ok((Some(kind), spacing.or(karras.then_some(Spacing::Karras)))),
            None => {
                let message = format!(
                    "sampler_name: there is no {name:?}; /sdapi/v1/samplers lists those that there are"
                );
                let error = ApiError::new(StatusCode::NOT_FOUND, "sampler_not_found", message);
                Err(ApiError { param: Some("sampler_name".to_string()), ..error })
            }
        }
    }
}

/// A side as the nearest multiple of [`UNIT`], as the web UI rounds what a model cannot draw.
fn rounded(name: &str, side: f64) -> Result<usize, ApiError> {
    if (1.0..=MOST).contains(&side) {
        return Ok(((side / UNIT).round().max(1.0) * UNIT) as usize);
    }
    Err(ApiError::field(name, format!("{name}: {side}; expected 1 to {MOST} pixels")))
}

/// The body of an answer.
fn answer(
    spec: &ImageSpec,
    images: &EncodedImages,
    given: &Map<String, Value>,
    send: bool,
) -> Bytes {
    let EncodedImages { files, figures } = images;
    let request = &spec.request;
    let count = files.len();
    let truncated = ["prompt", "negative_prompt"].into_iter();
    let truncated: Vec<&'static str> =
        truncated.filter(|name| figures.truncated.iter().any(|cut| cut == name)).collect();
    let infotexts = (0..count).map(|index| {
        let texts = texts(&spec.artifacts, request, index, &truncated);
        texts.into_iter().find(|(key, _)| key == PARAMETERS).map_or(String::new(), |(_, text)| text)
    });
    let info = json!({
        "prompt": request.prompt,
        "all_prompts": vec![&request.prompt; count],
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": vec![&request.negative_prompt; count],
        "seed": request.seed,
        "all_seeds": figures.seeds,
        "subseed": -1,
        "all_subseeds": vec![-1; count],
        "subseed_strength": 0,
        "width": request.width,
        "height": request.height,
        "sampler_name": sampler_name(request.sampler),
        "cfg_scale": request.guidance_scale,
        "steps": request.steps,
        "batch_size": count,
        "restore_faces": false,
        "sd_model_name": spec.model,
        "sd_model_hash": short_hash(&spec.artifacts),
        "infotexts": infotexts.collect::<Vec<_>>(),
        "index_of_first_image": 0,
        "styles": [],
        "clip_skip": 1,
        "comments": [],
        "version": concat!("hydit ", env!("CARGO_PKG_VERSION")),
        "hydit": figures,
    });
    let images = files.iter().filter(|_| send).map(|file| Base64(file)).collect();
    json(&Answer { images, parameters: given, info: info.to_string() })
}

fn json(answer: &Answer<'_>) -> Bytes {
    serde_json::to_vec(answer).expect("strings and numbers are valid JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &Value) -> Result<ImageFields, ApiError> {
        let Value::Object(body) = body.clone() else { unreachable!("an object") };
        read::<Asked>(body)?.image_fields(Some("chosen".to_string()), None)
    }

    #[test]
    fn what_front_ends_send_becomes_fields_of_ours() {
        let sent = json!({
            "prompt": "a cat", "negative_prompt": "", "seed": -1, "steps": 20, "cfg_scale": 7,
            "width": 520, "height": 768, "batch_size": 2, "n_iter": 3, "sampler_name": "DPM++ 2M",
            "scheduler": "Automatic", "restore_faces": false, "styles": [], "enable_hr": false,
            "save_images": true, "alwayson_scripts": {}, "override_settings": {},
            "override_settings_restore_afterwards": true,
        });
        let made = fields(&sent).expect("they are read");
        assert_eq!(made.size.as_deref(), Some("528x768"), "to the nearest multiple of 16");
        assert_eq!(made.model.as_deref(), Some("chosen"));
        let request = Value::Object(made.request);
        assert_eq!((&request["n"], &request["seed"]), (&json!(6.0), &json!(-1.0)));
        assert_eq!(request["sampler"], "dpmms");
        assert_eq!(request.get("spacing"), None);
        for sent in [
            json!({ "prompt": "x", "sampler_name": "Euler", "scheduler": "Karras" }),
            json!({ "prompt": "x", "sampler_index": "Euler Karras" }),
        ] {
            let request = fields(&sent).expect("they are read").request;
            assert_eq!(
                (&request["sampler"], &request["spacing"]),
                (&json!("euler"), &json!("karras"))
            );
        }
        let other = json!({ "prompt": "x", "override_settings": { MODEL: "emoji [0123456789]" } });
        assert_eq!(fields(&other).expect("they are read").model.as_deref(), Some("emoji"));
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (name, value, expected) in [
            ("sampler_name", json!("Heun"), "/sdapi/v1/samplers lists"),
            ("scheduler", json!("Exponential"), "only Automatic and Karras"),
            ("enable_hr", json!(true), "no second pass"),
            ("width", json!(0), "expected 1 to 9999"),
            ("height", json!("tall"), "expected a number"),
            ("override_settings", json!([]), "expected a map"),
        ] {
            let error = fields(&json!({ "prompt": "x", name: value })).expect_err(name);
            assert_eq!(error.param.as_deref(), Some(name), "{}", error.message);
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
