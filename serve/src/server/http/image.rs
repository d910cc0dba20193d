//! The fields of a request for images, common to all APIs: read, bounded, and made a [`Request`].
//!
//! A field of [`Request`] is a field of the APIs too, by its own name unless [`NAMES`] has another.

mod class;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::control::MOST;
use hydit::error::Error;
use hydit::image::Format;
use hydit::image_prompt::{self, ImagePrompt};
use hydit::request::{CheckedRequest, Request, spacing_of};
use hydit::sampler::SamplerError;
use hydit::util::error_chain;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::class::CLASS;
use self::values::{as_f32, seed_of, width_height, wrong_seed};
use super::body::Place;
use super::error::ApiError;
use super::fields::{read, unknown};
use crate::seed;
use crate::server::control::{ControlField, FIELD};
use crate::server::init_image::{FileError, Files, Images};
use crate::server::output::Output;
use crate::server::settings::Settings;
use crate::server::told;

/// Other names of fields of [`Request`], by which clients write them. Answers use the first of a
/// field's names.
pub const NAMES: [(&str, &str); 15] = [
    ("prompt", "prompt"),
    (CLASS, "prompt"),
    ("size", "width"),
    ("size", "height"),
    ("steps", "steps"),
    ("num_inference_steps", "steps"),
    ("guidance", "guidance_scale"),
    ("guidance_scale", "guidance_scale"),
    ("guidance_interval", "guidance_interval"),
    ("pag_scale", "pag_scale"),
    ("pag_adaptive_scale", "pag_adaptive_scale"),
    ("n", "num_images"),
    ("cache", "cache_policy"),
    ("lora", "loras"),
    (FIELD, "controls"),
];

/// The largest seed: the largest integer that every JSON reader keeps exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Maximum bytes of a cache policy.
const MAX_CACHE: usize = 64;
/// Seconds of the shortest deadline.
const MIN_DEADLINE: f64 = 1.0;

/// What a client asks of an image. What is absent or `null` is as the model's defaults and the
/// server's settings say.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct ImageFields {
    /// Name of the model.
    pub model: Option<String>,
    /// `WIDTHxHEIGHT` in pixels, or `auto`.
    pub size: Option<String>,
    /// A cache policy, or `usual`.
    pub cache: Option<String>,
    /// Whether a PNG carries its parameters.
    pub metadata: Option<bool>,
    /// Format of the files.
    pub output_format: Option<Format>,
    /// Quality of a JPEG.
    pub output_compression: Option<u8>,
    /// Seconds after which the answer is of no use.
    pub deadline: Option<f64>,
    /// Share of the steps that are taken from an image.
    pub strength: Option<f64>,
    /// File of the image that the pictures are made from, in base64.
    pub image: Option<String>,
    /// File of an image that is transparent where that is painted anew, in base64.
    pub mask: Option<String>,
    /// The ControlNets.
    pub control: Option<Vec<ControlField>>,
    /// File of the image beside the prompt, in base64.
    pub image_prompt: Option<String>,
    /// The weight of that.
    pub image_prompt_weight: Option<f32>,
    /// The files of a form; those in base64 are not among them.
    #[serde(skip)]
    pub files: Files,
    /// Kept as long as the files are.
    #[serde(skip)]
    #[expect(dead_code, reason = "held until it is dropped")]
    pub place: Option<Place>,
    /// The fields of [`Request`], under the names that clients use.
    #[serde(flatten)]
    pub request: Map<String, Value>,
}

/// The name in the APIs of a field of [`Request`].
pub fn api_name(field: &str) -> &str {
    if field == "init_image" {
        return "image";
    }
    NAMES.iter().find(|(_, known)| *known == field).map_or(field, |(name, _)| name)
}

impl ImageFields {
    /// The request that the fields make of the model of `artifacts`. May read a calibration file.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn request(
        &self,
        artifacts: &Artifacts,
        settings: &Settings,
    ) -> Result<CheckedRequest, ApiError> {
        let defaults = Request::new(&artifacts.manifest, "").map_err(|error| internal(&error))?;
        let steps = defaults.steps.min(settings.limits.max_steps);
        let [height, width] = artifacts.usual_size();
        let defaults = Request { steps, height, width, seed: seed::random(), ..defaults };
        let mut request = self.over(defaults)?;
        if self.given("sampler") && !self.given("spacing") {
            request.spacing = spacing_of(&artifacts.manifest, request.sampler);
        }
        class::draw_each(self, artifacts, &mut request)?;
        let files = self.files()?;
        files.check_bytes(settings.limits.max_image)?;
        for (field, is_there) in
            [("image_prompt", files.image_prompt.is_some()), (FIELD, !files.controls.is_empty())]
        {
            if is_there && !settings.tritons.is_empty() {
                let message =
                    format!("{field}: this server has Tritons draw, whose models do not take it");
                return Err(ApiError::field(field, message));
            }
        }
        if files.image_prompt.is_some() {
            ImagePrompt::check_model(&artifacts.manifest).map_err(|e| refuse(&e, artifacts))?;
        }
        let Images { init: images, prompt } = files.decode()?;
        match (self.size.as_deref().filter(|size| *size != "auto"), &images) {
            (Some(size), _) => (request.width, request.height) = width_height(size)?,
            (None, Some(images)) => {
                (request.width, request.height) = images.size(&artifacts.manifest);
            }
            (None, None) => {}
        }
        check_texts(&request)?;
        check_limits(&request, settings)?;
        request.check_size(&artifacts.manifest).map_err(|error| refuse(&error, artifacts))?;
        let size = (request.width, request.height);
        request.init_image = images.map(|images| images.fit(self.strength, size));
        if request.init_image.is_none() && self.strength.is_some() {
            let message = "strength: there is no image to change";
            return Err(ApiError::field("strength", message));
        }
        for (control, file) in self.control.iter().flatten().zip(&files.controls) {
            request.controls.push(control.fit(file, size)?);
        }
        if prompt.is_none() && self.image_prompt_weight.is_some() {
            let message = "image_prompt_weight: there is no image_prompt";
            return Err(ApiError::field("image_prompt_weight", message));
        }
        if let Some(image) = prompt {
            let weight = self.image_prompt_weight.unwrap_or(image_prompt::WEIGHT);
            let prompt = ImagePrompt::new(&artifacts.manifest, &image, weight);
            request.image_prompt = Some(prompt.map_err(|error| refuse(&error, artifacts))?);
        }
        request.cache_policy = self.policy(artifacts, settings, &request)?;
        let checked = request.check(artifacts);
        checked.map_err(|error| class::told_of(self, refuse(&error, artifacts)))
    }

    /// Whether a field of [`Request`] is there, by the name that clients use.
    fn given(&self, name: &str) -> bool {
        self.request.get(name).is_some_and(|value| !value.is_null())
    }

    /// The files that came with the request, in whichever way.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn files(&self) -> Result<Files, ApiError> {
        let decode = |name: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            STANDARD.decode(text).map(|file| Some(file.into())).map_err(|_| {
                let message = format!("{name}: expected a file in base64, and nothing around it");
                ApiError::field(name, message)
            })
        };
        let mut files = self.files.clone();
        if self.image.is_some() || self.mask.is_some() {
            files.image = decode("image", &self.image)?;
            files.mask = decode("mask", &self.mask)?;
            files.is_white = false;
        }
        if let Some(image) = decode("image_prompt", &self.image_prompt)? {
            files.image_prompt = Some(image);
        }
        let nets = self.control.as_deref().unwrap_or_default();
        if nets.len() > MOST {
            let message = format!("{FIELD}: {} ControlNets; at most {MOST}", nets.len());
            return Err(ApiError::field(FIELD, message));
        }
        for net in nets {
            files.controls.extend(decode(FIELD, &net.image)?);
        }
        if files.controls.len() != nets.len() {
            let message = format!(
                "{FIELD}: {} ControlNets and {} images; expected one for each, in base64 as its image, \
                 or all as the files control_image of a form",
                nets.len(),
                files.controls.len()
            );
            return Err(ApiError::field(FIELD, message));
        }
        Ok(files)
    }

    /// The fields put over `defaults`.
    fn over(&self, defaults: Request) -> Result<Request, ApiError> {
        if !self.given("prompt") && !self.given(CLASS) {
            return Err(ApiError::field("prompt", "prompt is missing: say what to draw"));
        }
        let fields = serde_json::to_value(defaults).expect("strings and numbers are valid JSON");
        let Value::Object(mut fields) = fields else { unreachable!("a struct is an object") };
        let mut names = BTreeMap::new();
        for (name, value) in &self.request {
            let own = fields.contains_key(name) && !NAMES.iter().any(|(_, field)| field == name);
            let field = NAMES.iter().find(|(known, _)| known == name).map(|(_, field)| *field);
            let field = field.or(own.then_some(name.as_str())).ok_or_else(|| unknown(name))?;
            if value.is_null() {
                continue;
            }
            if let Some(other) = names.insert(field, name.as_str()) {
                let message = format!("{other} and {name} are the same: give one of them");
                return Err(ApiError::field(name, message));
            }
            let value = match name.as_str() {
                "seed" => seed_of(value)?,
                CLASS => class::prompt_of(value)?,
                _ => as_f32(value),
            };
            fields.insert(field.to_string(), value);
        }
        read(fields).map_err(|error: ApiError| {
            let field = error.param.unwrap_or_default();
            let name = names.get(field.as_str()).copied().unwrap_or_else(|| api_name(&field));
            ApiError::field(name, error.message.replacen(&field, name, 1))
        })
    }

    /// How the images are sent.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn output(&self, settings: &Settings) -> Result<Output, ApiError> {
        let format = self.output_format.unwrap_or_default();
        let quality = self.output_compression.unwrap_or(100);
        if quality > 100 {
            let message = format!("output_compression: {quality}; expected 0 to 100");
            return Err(ApiError::field("output_compression", message));
        }
        // Clients that know lossy WebP send a quality with it; OpenAI refuses one with PNG too.
        if format == Format::Png && quality != 100 {
            let message = "output_compression: png is lossless; omit it or use jpeg";
            return Err(ApiError::field("output_compression", message));
        }
        let quality = if format == Format::Jpeg { quality } else { 100 };
        if format != Format::Png && self.metadata == Some(true) {
            let message = format!("metadata: {format} cannot carry it; omit it or use png");
            return Err(ApiError::field("metadata", message));
        }
        let metadata = format == Format::Png && self.metadata.unwrap_or(settings.metadata);
        Ok(Output { format, quality, metadata })
    }

    /// How long the answer is wanted, if the fields say.
    ///
    /// # Errors
    /// 400 when it is out of bounds.
    pub fn deadline(&self, settings: &Settings) -> Result<Option<Duration>, ApiError> {
        let longest = settings.deadline.as_secs_f64();
        match self.deadline {
            Some(seconds) if !(MIN_DEADLINE..=longest).contains(&seconds) => {
                let message =
                    format!("deadline: {seconds}; expected {MIN_DEADLINE} to {longest} seconds");
                Err(ApiError::field("deadline", message))
            }
            seconds => Ok(seconds.map(Duration::from_secs_f64)),
        }
    }

    /// The cache policy. Clients may not name files of the server; its operator may.
    fn policy(
        &self,
        artifacts: &Artifacts,
        settings: &Settings,
        request: &Request,
    ) -> Result<CachePolicy, ApiError> {
        if self.cache.as_deref().is_some_and(|text| text.starts_with("schedule:")) {
            let message = "cache: schedules are files of the server, which requests cannot name; \
                           use auto or another policy";
            return Err(ApiError::field("cache", message));
        }
        if self.cache.as_deref().is_some_and(|text| text.len() > MAX_CACHE) {
            let message = format!("cache: more than {MAX_CACHE} bytes; no policy is that long");
            return Err(ApiError::field("cache", message));
        }
        let Request { sampler, spacing, steps, .. } = *request;
        match self.cache.as_deref().unwrap_or(&settings.cache) {
            "usual" => {
                let skipped = steps - request.steps_taken();
                Ok(CachePolicy::usual(
                    &artifacts.path,
                    &artifacts.manifest.variant.cache,
                    sampler,
                    spacing,
                    steps,
                    skipped,
                ))
            }
            text => text.parse().map_err(|error| {
                ApiError::field("cache", format!("cache: {error}; or usual, the model's best"))
            }),
        }
    }
}

fn check_texts(request: &Request) -> Result<(), ApiError> {
    if request.prompt.is_empty() {
        return Err(ApiError::field("prompt", "prompt is empty: say what to draw"));
    }
    for (name, text) in [("prompt", &request.prompt), ("negative_prompt", &request.negative_prompt)]
    {
        if text.contains('\0') {
            return Err(ApiError::field(name, format!("{name} must not contain NUL")));
        }
    }
    Ok(())
}

/// Checks what the operator allows, before anything is allocated for the request.
fn check_limits(request: &Request, settings: &Settings) -> Result<(), ApiError> {
    let limits = &settings.limits;
    let Request { width, height, steps, num_images, seed, .. } = *request;
    if width.checked_mul(height).is_none_or(|pixels| pixels > limits.max_pixels) {
        let most = limits.max_pixels;
        let message =
            format!("size: {width}x{height} has more than the {most} pixels allowed here");
        return Err(ApiError::field("size", message));
    }
    for (name, number, most) in
        [("steps", steps, limits.max_steps), ("n", num_images, limits.max_n)]
    {
        if !(1..=most).contains(&number) {
            return Err(ApiError::field(name, format!("{name}: {number}; expected 1 to {most}")));
        }
    }
    if seed > MAX_SEED {
        return Err(wrong_seed(seed));
    }
    Ok(())
}

/// The error for a client, with the name of the field.
fn refuse(error: &Error, artifacts: &Artifacts) -> ApiError {
    match error {
        Error::Request { field, message } => {
            let message = match *field {
                "height" | "width" => format!("size: the {field} {message}"),
                _ => format!("{}: {message}", api_name(field)),
            };
            ApiError::field(api_name(field), message)
        }
        Error::Sampler(error @ SamplerError::Spacing { .. }) => {
            ApiError::field("spacing", format!("spacing: {error}"))
        }
        Error::Sampler(error) => ApiError::field("steps", error.to_string()),
        Error::Lora { name, .. } => {
            tracing::warn!(error = error_chain(error), "a LoRA cannot be used");
            let what = "cannot be used with this model; the server's log says why";
            ApiError::field("lora", format!("lora: {name:?} {what}"))
        }
        Error::Policy(error) => ApiError::field("cache", told::of_policy(error, &artifacts.path)),
        other => internal(other),
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> ApiError {
        ApiError::field(error.field, error.to_string())
    }
}

fn internal(error: &Error) -> ApiError {
    tracing::error!(error = error_chain(error), "a request could not be checked");
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the request could not be checked; the server's log says why",
    )
}

#[cfg(test)]
mod tests;
