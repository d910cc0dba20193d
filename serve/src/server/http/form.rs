//! Forms (`multipart/form-data`), as clients send images: files stay bytes, and texts become the
//! fields that JSON has for them.

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use hydit::control::MOST;
use serde_json::{Map, Value};

use super::body::Place;
use super::error::ApiError;
use crate::server::control::FIELD;
use crate::server::init_image::Files;

/// Fields that are numbers or truth values. All others are texts, whatever they look like.
pub const VALUES: [&str; 17] = [
    "n",
    "seed",
    "steps",
    "num_inference_steps",
    "guidance",
    "guidance_scale",
    "guidance_rescale",
    "pag_scale",
    "pag_adaptive_scale",
    "strength",
    "image_prompt_weight",
    "output_compression",
    "metadata",
    "deadline",
    "stream",
    "partial_images",
    "preview_every",
];
/// Maximum number of fields.
const MAX_FIELDS: usize = 64;

/// The content of a form.
#[derive(Debug)]
pub struct Form {
    /// Its texts, as JSON has them.
    pub fields: Map<String, Value>,
    /// Its files.
    pub files: Files,
    /// To be kept as long as the files are.
    pub place: Option<Place>,
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Form, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("multipart/form-data") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "the body must be a form, multipart/form-data, with the image as the file `image`; \
                 as base64 in JSON an image goes to /v1/images/generations",
            ));
        }
        let place = request.extensions().get::<Place>().cloned();
        let form = Multipart::from_request(request, state).await;
        let mut form = form.map_err(|error| broken(&error.body_text()))?;
        let mut read = Form { fields: Map::new(), files: Files::default(), place };
        while let Some(field) = form.next_field().await.map_err(|error| ended(&error))? {
            read.add(field).await?;
        }
        Ok(read)
    }
}

impl Form {
    async fn add(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        if self.fields.len() >= MAX_FIELDS {
            return Err(broken(&format!("more than {MAX_FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_string();
        let bytes = field.bytes().await.map_err(|error| ended(&error))?;
        let twice = || {
            let message = match name.trim_end_matches("[]") {
                "image" => "image: one image is changed at a time".to_string(),
                name => format!("{name}: it is given twice"),
            };
            Err(ApiError::field(name.trim_end_matches("[]"), message))
        };
        if matches!(name.as_str(), "control_image" | "control_image[]") {
            if self.files.controls.len() >= MOST {
                let message = format!("control_image: at most {MOST} are taken");
                return Err(ApiError::field("control_image", message));
            }
            self.files.controls.push(bytes);
            return Ok(());
        }
        let file = match name.as_str() {
            "image" | "image[]" => &mut self.files.image,
            "mask" => &mut self.files.mask,
            "image_prompt" => &mut self.files.image_prompt,
            _ => {
                let Ok(text) = String::from_utf8(bytes.to_vec()) else {
                    return Err(ApiError::field(&name, format!("{name}: not text in UTF-8")));
                };
                let value = value(&name, text);
                return match self.fields.insert(name.clone(), value) {
                    Some(_) => twice(),
                    None => Ok(()),
                };
            }
        };
        match file.replace(bytes) {
            Some(_) => twice(),
            None => Ok(()),
        }
    }
}

/// What the text of the field `name` is in JSON.
fn value(name: &str, text: String) -> Value {
    if name == FIELD {
        return serde_json::from_str(&text).unwrap_or(Value::String(text));
    }
    if !VALUES.contains(&name) {
        return Value::String(text);
    }
    match serde_json::from_str(&text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Null)) => value,
        // Refused by whoever reads the field, in its own words.
        _ => Value::String(text),
    }
}

fn ended(error: &MultipartError) -> ApiError {
    broken(&error.body_text())
}

fn broken(why: &str) -> ApiError {
    let message = format!("the form cannot be read: {why}");
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_form", message)
}
