//! The parameters in a PNG.

use std::io::Cursor;

use axum::Json;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::image::decode_texts;
use serde_json::{Map, Value, json};

use crate::server::http::error::ApiError;
use crate::server::http::fields::Fields;
use crate::server::spawn::blocking;

/// The key of the text that the web UI and its tools read.
pub const PARAMETERS: &str = "parameters";

/// Answers with the texts of `image`, base64 with or without `data:image/png;base64,` before it.
pub async fn read(Fields(fields): Fields) -> Result<Json<Value>, ApiError> {
    let refuse = |what: &str| ApiError::field("image", format!("image: {what}"));
    let text = fields.get("image").and_then(Value::as_str);
    let text = text.ok_or_else(|| refuse("expected a PNG in base64"))?.to_string();
    let texts = blocking(move || {
        let bytes = from_base64("image", &text)?;
        decode_texts(Cursor::new(bytes)).map_err(|_| refuse("not a PNG that can be read"))
    })
    .await?;
    let items: Map<String, Value> =
        texts.into_iter().map(|(key, text)| (key, Value::from(text))).collect();
    let info = items.get(PARAMETERS).and_then(Value::as_str).unwrap_or_default().to_string();
    Ok(Json(json!({ "info": info, "items": items, "parameters": {} })))
}

/// The bytes of a file in `field`, with or without `data:image/png;base64,` or its like before it.
pub fn from_base64(field: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    let text = text.split_once(";base64,").map_or(text, |(_, rest)| rest).trim();
    let refuse = |_| ApiError::field(field, format!("{field}: expected a file in base64"));
    BASE64_STANDARD.decode(text).map_err(refuse)
}
