//! The fields of a picture, common to all APIs: read, bounded, and made a [`Request`].

use std::time::Duration;

use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiError;
use super::encode::{Format, Output};
use super::fields::Fields;
use crate::server::settings::Settings;
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::error::Error;
use hydit::request::{Request, spacing_of};
use hydit::sampler::{SamplerKind, Spacing};

/// The largest seed: the largest integer that every JSON reader keeps exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Bytes of the longest cache policy.
const MAX_CACHE: usize = 64;
/// Seconds of the shortest deadline.
pub const MIN_DEADLINE: f64 = 1.0;

/// What a picture is asked for. What is absent or `null` is as the model's defaults and the server's settings say.
#[derive(Clone, Debug, Default, PartialEq, ToSchema)]
pub struct PictureFields {
    /// What to draw, Chinese or English: at most 4096 bytes of UTF-8. The text encoders read the first 77 and
    /// 256 tokens; the answer says when there were more.
    #[schema(
        min_length = 1,
        max_length = 4096,
        pattern = r"^[^\u0000]*$",
        example = "蓝色背景上的猫"
    )]
    pub prompt: String,
    /// The model, by its name in `/v1/models`.
    pub model: Option<String>,
    /// Pictures, each of its own seed.
    #[schema(minimum = 1, default = 1)]
    pub n: Option<usize>,
    /// `WIDTHxHEIGHT` in pixels, both multiples of 16, or `auto`: the model's own size.
    #[schema(
        format = "picture-size",
        pattern = "^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$",
        default = "auto"
    )]
    pub size: Option<String>,
    /// Seed of the first picture; picture i has `seed` + i. Drawn at random if absent, and told in the answer.
    #[schema(minimum = 0, maximum = 9007199254740991u64)]
    pub seed: Option<u64>,
    /// Denoising steps; also under the name `num_inference_steps`. If absent the model's own, as far as they are
    /// allowed here.
    #[schema(minimum = 1)]
    pub steps: Option<usize>,
    /// Guidance scale; at 1 or below the negative prompt is not used. Also under the name `guidance_scale`.
    #[schema(minimum = 0, maximum = 100)]
    pub guidance: Option<f64>,
    /// Share of the guided prediction rescaled to the conditional one's spread.
    #[schema(minimum = 0, maximum = 1)]
    pub guidance_rescale: Option<f64>,
    /// What not to draw, bounded as the prompt.
    #[schema(max_length = 4096, pattern = r"^[^\u0000]*$")]
    pub negative_prompt: Option<String>,
    /// The sampler; `dpmms` is DPM-Solver++ multistep.
    #[schema(value_type = Option<String>)]
    pub sampler: Option<SamplerKind>,
    /// Timestep spacing of the sampler.
    #[schema(value_type = Option<String>)]
    pub spacing: Option<Spacing>,
    /// When the deep core runs: `off`; `usual`; `N<gap>` or `N<gap>-<start>-<close>`; `probe:<threshold>`;
    /// `auto:<quality>dB` or `auto:<n>runs`, for a model that was calibrated. All but `off` and `usual` may end in
    /// `+taylor1` or `+taylor2`.
    #[schema(
        format = "cache-policy",
        max_length = 64,
        pattern = "^(off|usual|(N[1-9]|probe:|auto:).+)$"
    )]
    pub cache: Option<String>,
    /// Whether the pictures carry these parameters; PNG only.
    pub metadata: Option<bool>,
    /// The format of the pictures. WebP is lossless.
    #[schema(value_type = Option<String>)]
    pub output_format: Option<Format>,
    /// Quality of a JPEG; for the other formats, which lose nothing, only 100.
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub output_compression: Option<u8>,
    /// Seconds from now after which nobody wants the answer any more.
    #[schema(minimum = 1)]
    pub deadline: Option<f64>,
}

impl PictureFields {
    /// Takes them from a body.
    pub fn take(fields: &mut Fields) -> Result<PictureFields, ApiError> {
        let missing = || ApiError::field("prompt", "prompt is missing: say what to draw");
        Ok(PictureFields {
            prompt: fields.text("prompt")?.ok_or_else(missing)?,
            model: fields.text("model")?,
            n: fields.whole("n")?,
            size: fields.text("size")?,
            seed: fields.whole("seed")?,
            steps: fields.either("steps", "num_inference_steps", Fields::whole)?,
            guidance: fields.either("guidance", "guidance_scale", Fields::number)?,
            guidance_rescale: fields.number("guidance_rescale")?,
            negative_prompt: fields.text("negative_prompt")?,
            sampler: fields.parsed("sampler")?,
            spacing: fields.parsed("spacing")?,
            cache: fields.text("cache")?,
            metadata: fields.flag("metadata")?,
            output_format: fields.parsed("output_format")?,
            output_compression: fields.whole("output_compression")?,
            deadline: fields.number("deadline")?,
        })
    }

    /// The request they make of the model of `artifacts`, checked down to its plan. May read a calibration.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn request(&self, artifacts: &Artifacts, settings: &Settings) -> Result<Request, ApiError> {
        self.check_prompts()?;
        let manifest = &artifacts.manifest;
        let mut request = Request::new(manifest, &self.prompt).map_err(internal)?;
        set(&mut request.negative_prompt, self.negative_prompt.clone());
        if let Some(size) = self.size.as_deref().filter(|size| *size != "auto") {
            (request.width, request.height) = width_height(size)?;
        }
        if let Some(sampler) = self.sampler {
            (request.sampler, request.spacing) = (sampler, spacing_of(manifest, sampler));
        }
        set(&mut request.spacing, self.spacing);
        request.steps = self.steps.unwrap_or(request.steps.min(settings.limits.max_steps));
        set(&mut request.num_images, self.n);
        if let Some(guidance) = self.guidance {
            request.guidance_scale = within("guidance", guidance, 100.0)?;
        }
        if let Some(rescale) = self.guidance_rescale {
            request.guidance_rescale = within("guidance_rescale", rescale, 1.0)?;
        }
        request.seed = self.seed.unwrap_or_else(random_seed);
        check_limits(&request, settings)?;
        request.cache_policy = self.policy(artifacts, settings, &request)?;
        request.plan(artifacts).map_err(|error| refuse(error, artifacts))?;
        Ok(request)
    }

    /// How the pictures are sent.
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
        if format != Format::Jpeg && quality != 100 {
            let message = format!(
                "output_compression: {format} loses nothing here; leave it away or ask for jpeg"
            );
            return Err(ApiError::field("output_compression", message));
        }
        if format != Format::Png && self.metadata == Some(true) {
            let message = format!("metadata: only png carries it, not {format}");
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

    fn check_prompts(&self) -> Result<(), ApiError> {
        if self.prompt.is_empty() {
            return Err(ApiError::field("prompt", "prompt is empty: say what to draw"));
        }
        let negative = self.negative_prompt.as_deref().unwrap_or_default();
        for (name, text) in [("prompt", self.prompt.as_str()), ("negative_prompt", negative)] {
            if text.contains('\0') {
                let message = format!("{name} holds a NUL character: leave it away");
                return Err(ApiError::field(name, message));
            }
        }
        match self.seed {
            Some(seed) if seed > MAX_SEED => {
                let message = format!("seed: {seed}; expected 0 to {MAX_SEED}");
                Err(ApiError::field("seed", message))
            }
            _ => Ok(()),
        }
    }

    /// Clients may not name files of the server; its operator may.
    fn policy(
        &self,
        artifacts: &Artifacts,
        settings: &Settings,
        request: &Request,
    ) -> Result<CachePolicy, ApiError> {
        if self.cache.as_deref().is_some_and(|text| text.starts_with("schedule:")) {
            let message = "cache: a schedule is a file of the server, which requests cannot name: take auto or \
                           another policy";
            return Err(ApiError::field("cache", message));
        }
        if self.cache.as_deref().is_some_and(|text| text.len() > MAX_CACHE) {
            let message = format!("cache: more than {MAX_CACHE} bytes; no policy is that long");
            return Err(ApiError::field("cache", message));
        }
        let Request { sampler, spacing, steps, .. } = *request;
        match self.cache.as_deref().unwrap_or(&settings.cache) {
            "usual" => Ok(CachePolicy::usual(&artifacts.path, sampler, spacing, steps)),
            text => text.parse().map_err(|error| {
                ApiError::field(
                    "cache",
                    format!("cache: {error}; or usual, what the model does best"),
                )
            }),
        }
    }
}

/// The name of a field of [`Request`] in the APIs.
pub fn name(field: &str) -> &str {
    match field {
        "height" | "width" => "size",
        "num_images" => "n",
        "guidance_scale" => "guidance",
        other => other,
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Width and height of `WIDTHxHEIGHT`.
fn width_height(size: &str) -> Result<(usize, usize), ApiError> {
    let side = |text: &str| {
        let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok();
        number.filter(|_| digits && !text.starts_with('0'))
    };
    let sides =
        size.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| {
        let message = "size: expected auto or WIDTHxHEIGHT in pixels, such as 1024x768";
        ApiError::field("size", message)
    })
}

/// A number from 0 to `most`.
fn within(name: &str, number: f64, most: f64) -> Result<f32, ApiError> {
    match (0.0..=most).contains(&number) {
        true => Ok(number as f32),
        false => Err(ApiError::field(name, format!("{name}: {number}; expected 0 to {most}"))),
    }
}

fn random_seed() -> u64 {
    u64::from(Uuid::new_v4().as_u128() as u32)
}

/// What the operator allows, before anything is set aside for it.
fn check_limits(request: &Request, settings: &Settings) -> Result<(), ApiError> {
    let limits = &settings.limits;
    let Request { width, height, steps, num_images, .. } = *request;
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
    Ok(())
}

/// The field that is at fault. Where the server keeps its models is nobody's business.
fn refuse(error: Error, artifacts: &Artifacts) -> ApiError {
    match error {
        Error::Request { field, message } => {
            let message = match field {
                "height" | "width" => format!("size: the {field} {message}"),
                _ => format!("{}: {message}", name(field)),
            };
            ApiError::field(name(field), message)
        }
        Error::Sampler(error) => ApiError::field("steps", error.to_string()),
        Error::Policy(error) => {
            let folder = artifacts.path.display().to_string();
            ApiError::field("cache", error.to_string().replace(&folder, "DIR"))
        }
        other => internal(other),
    }
}

fn internal(error: Error) -> ApiError {
    use axum::http::StatusCode;
    tracing::error!(%error, "a request could not be checked");
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the request could not be checked; the server's log says why",
    )
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
