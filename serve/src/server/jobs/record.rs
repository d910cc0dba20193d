//! A job as it is stored.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::server::http::{Figures, Output};
use hydit::artifacts::Artifacts;
use hydit::cache::{CachePolicy, Decision, Forecast, ParsePolicyError};
use hydit::request::Request;
use hydit::sampler::{SamplerKind, Spacing};
use hydit::util::hex;

/// All that outlives the process, but for the pictures' bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, which cannot be guessed.
    pub id: Uuid,
    /// Jobs have ascending numbers in the order they were accepted.
    pub number: u64,
    /// Whose it is.
    pub client: String,
    /// When it was accepted, in milliseconds of Unix time, as all times here.
    pub created: u64,
    /// When it was last begun.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
    /// How often it was begun.
    pub starts: u32,
    /// What to draw.
    pub asked: Asked,
    /// The client's own key and what it asked for with it.
    pub idempotency: Option<Idempotency>,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// A request with every default filled in, so that it means the same after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// SHA-256 of the manifest of the model that was meant.
    pub manifest_sha256: String,
    /// What to draw.
    pub prompt: String,
    /// What not to draw.
    pub negative_prompt: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// Share of the rescaled guided prediction.
    pub guidance_rescale: f32,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its timestep spacing.
    pub spacing: Spacing,
    /// Seed of the first picture; picture i has `seed + i`.
    pub seed: u64,
    /// Pictures.
    pub n: usize,
    /// The cache policy's text.
    pub cache: String,
    /// How the pictures are kept.
    pub output: Output,
    /// Steps between two previews.
    pub preview_every: Option<usize>,
    /// When nobody wants the pictures any more.
    pub deadline: Option<u64>,
}

/// What makes a request that is sent twice one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The client's word for it.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_sha256: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With pictures.
    Done(Made),
    /// Without.
    Failed {
        /// A word for programs.
        code: String,
        /// What went wrong.
        message: String,
    },
    /// Its client did not want it any more.
    Cancelled,
}

/// The pictures of a job and how they were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// In the order of their seeds.
    pub pictures: Vec<Picture>,
    /// Whether the bytes of the pictures are no longer kept.
    pub dropped: bool,
    /// What was done at each step.
    pub marks: Vec<Mark>,
    /// The rest.
    pub figures: Figures,
}

/// A picture without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Of its own generator.
    pub seed: u64,
    /// How long the file is.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What was done with the deep core at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It ran.
    Refresh,
    /// Its last output was used again.
    Reuse,
    /// A weighted sum of its last outputs was used.
    Forecast,
}

impl Picture {
    /// Of `file`.
    pub fn new(seed: u64, file: &[u8]) -> Picture {
        Picture { seed, bytes: file.len() as u64, sha256: hex(&Sha256::digest(file)) }
    }
}

impl End {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            End::Done(_) => "done",
            End::Failed { .. } => "failed",
            End::Cancelled => "cancelled",
        }
    }
}

impl From<Decision> for Mark {
    fn from(decision: Decision) -> Mark {
        match decision {
            Decision::Refresh => Mark::Refresh,
            Decision::Reuse(Forecast::LAST) => Mark::Reuse,
            Decision::Reuse(_) => Mark::Forecast,
        }
    }
}

impl Asked {
    /// `request`, of the model of this name.
    pub fn new(model: &str, artifacts: &Artifacts, request: Request, output: Output) -> Asked {
        Asked {
            model: model.to_string(),
            manifest_sha256: artifacts.hash.clone(),
            prompt: request.prompt,
            negative_prompt: request.negative_prompt,
            width: request.width,
            height: request.height,
            steps: request.steps,
            guidance: request.guidance_scale,
            guidance_rescale: request.guidance_rescale,
            sampler: request.sampler,
            spacing: request.spacing,
            seed: request.seed,
            n: request.num_images,
            cache: request.cache_policy.to_string(),
            output,
            preview_every: None,
            deadline: None,
        }
    }

    /// The request as the engine takes it.
    ///
    /// # Errors
    /// When the text of the cache policy is no longer understood.
    pub fn request(&self) -> Result<Request, ParsePolicyError> {
        Ok(Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            height: self.height,
            width: self.width,
            steps: self.steps,
            guidance_scale: self.guidance,
            guidance_rescale: self.guidance_rescale,
            sampler: self.sampler,
            spacing: self.spacing,
            seed: self.seed,
            num_images: self.n,
            cache_policy: self.cache.parse::<CachePolicy>()?,
        })
    }
}
