//! The answer to an order, however it carries the images.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hydit::image::Format;
use serde::{Deserialize, Serialize};

use crate::server::clock::now;
use crate::server::figures::Figures;
use crate::server::http::base64::Base64;
use crate::server::http::drawing::{EncodedImages, ImageSpec};
use crate::server::http::error::ApiError;
use crate::server::http::lent::Base;
use crate::server::jobs::Jobs;

/// The quality in answers: it cannot be chosen.
pub const QUALITY: &str = "high";
/// The background in answers: images have no transparency.
pub const BACKGROUND: &str = "opaque";
/// Header of an answer that is a file: what `hydit` is in JSON.
const FIGURES: HeaderName = HeaderName::from_static("x-hydit");

/// How the answer has the images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// In it, in base64.
    #[default]
    B64Json,
    /// As addresses, which live for a while.
    Url,
    /// The file of the only image is the answer.
    File,
}

#[derive(Serialize)]
struct ImagesResponse<'a> {
    created: u64,
    data: Vec<ImageData<'a>>,
    background: &'static str,
    output_format: Format,
    output_compression: u8,
    quality: &'static str,
    size: &'a str,
    usage: Usage,
    hydit: &'a Figures,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ImageData<'a> {
    B64Json(Base64<'a>),
    Url(String),
}

/// What was used, in the shape that clients expect. Prompts are not counted; an output token is a
/// patch of an image.
#[derive(Serialize)]
pub struct Usage {
    input_tokens: usize,
    input_tokens_details: InputTokens,
    output_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct InputTokens {
    image_tokens: usize,
    text_tokens: usize,
}

/// The answer. Images that it has as addresses are on the disk before. To be called where blocking
/// holds up nobody.
///
/// # Errors
/// When they cannot be stored.
pub fn answer(
    spec: &ImageSpec,
    EncodedImages { mut files, figures }: EncodedImages,
    format: ResponseFormat,
    jobs: &Jobs,
    base: &Base,
) -> Result<Response, ApiError> {
    let data = match format {
        ResponseFormat::B64Json => {
            files.iter().map(|file| ImageData::B64Json(Base64(file))).collect()
        }
        ResponseFormat::Url => {
            let format = spec.output.format;
            let secret = jobs.lend(format, &files)?;
            let address = |index| ImageData::Url(base.address(secret, index, format));
            (0..files.len()).map(address).collect()
        }
        ResponseFormat::File => {
            let figures = serde_json::to_vec(&figures).expect("plain values are valid JSON");
            let figures = HeaderValue::from_bytes(&figures).expect("JSON escapes what controls");
            let media = HeaderValue::from_static(spec.output.format.media_type());
            let head = [(header::CONTENT_TYPE, media), (FIGURES, figures)];
            return Ok((head, files.remove(0)).into_response());
        }
    };
    let answer = ImagesResponse {
        created: now() / 1000,
        data,
        background: BACKGROUND,
        output_format: spec.output.format,
        output_compression: spec.output.quality,
        quality: QUALITY,
        size: &figures.size,
        usage: usage(spec),
        hydit: &figures,
    };
    let body = serde_json::to_vec(&answer).expect("strings and numbers are valid JSON");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Counts the patches of all images of a request.
pub fn usage(spec: &ImageSpec) -> Usage {
    let unit = spec.artifacts.manifest.picture_unit();
    let request = &spec.request;
    let patches = request.num_images * (request.height / unit) * (request.width / unit);
    Usage {
        input_tokens: 0,
        input_tokens_details: InputTokens { image_tokens: 0, text_tokens: 0 },
        output_tokens: patches,
        total_tokens: patches,
    }
}
