//! A job as it is stored. The JSON of these types is the format of the store: it may gain fields,
//! but what earlier versions wrote must stay readable.

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::cache::{Decision, Forecast};
use hydit::util::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::unreadable::Unreadable;
use crate::server::figures::Figures;
use crate::server::output::Output;

/// Everything about a job that outlives the process, except for the bytes of its images. Times are
/// in milliseconds of Unix time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job's id, which cannot be guessed.
    pub id: Uuid,
    /// Jobs have ascending numbers in the order in which they were accepted.
    pub number: u64,
    /// Name of the client that owns the job.
    pub client: String,
    /// When the job was accepted.
    pub created: u64,
    /// When a worker last began it.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
    /// How often a worker has begun it.
    pub starts: u32,
    /// What to draw.
    #[serde(rename = "asked")]
    pub spec: JobSpec,
    /// The client's idempotency key, if it sent one.
    pub idempotency: Option<Idempotency>,
    /// How the job ended, if it has.
    #[serde(rename = "end")]
    pub outcome: Option<JobOutcome>,
    /// What this version cannot read of the stored record, if that is so.
    #[serde(skip)]
    pub unreadable: Option<Box<Unreadable>>,
}

/// What a job draws, with every default filled in, so that it means the same after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the manifest that the model had when the job was accepted.
    pub manifest_sha256: String,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// How the images are encoded.
    pub output: Output,
    /// Steps between two previews; none are made without it.
    pub preview_every: Option<usize>,
    /// When the job fails if it has not ended.
    pub deadline: Option<u64>,
}

/// What makes a request that is sent twice one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The key that the client chose.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_sha256: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// With images.
    Done(JobResult),
    /// With an error.
    Failed {
        /// A word for programs.
        code: String,
        /// What went wrong.
        message: String,
    },
    /// Its client cancelled it.
    Cancelled,
}

/// The images of a job and how they were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// In the order of their seeds.
    #[serde(rename = "pictures")]
    pub images: Vec<StoredImage>,
    /// Whether the files of the images are no longer kept.
    pub dropped: bool,
    /// What was done at each step.
    #[serde(rename = "marks")]
    pub plan: Vec<StepKind>,
    /// What each step took; empty in records of earlier versions, and where another machine drew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_seconds: Vec<f64>,
    /// How they were made.
    pub figures: Figures,
}

/// What is known of the file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Seed of this image.
    pub seed: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What was done with the deep core at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The core ran.
    Refresh,
    /// Its last output was used again.
    Reuse,
    /// A weighted sum of its last outputs was used.
    Forecast,
}

impl StoredImage {
    /// Describes `file`, an image that was drawn with `seed`.
    pub fn new(seed: u64, file: &[u8]) -> StoredImage {
        StoredImage { seed, bytes: file.len() as u64, sha256: hex(&Sha256::digest(file)) }
    }
}

impl JobOutcome {
    /// The job's status in a word.
    pub fn name(&self) -> &'static str {
        match self {
            JobOutcome::Done(_) => "done",
            JobOutcome::Failed { .. } => "failed",
            JobOutcome::Cancelled => "cancelled",
        }
    }
}

impl From<&Decision> for StepKind {
    fn from(decision: &Decision) -> StepKind {
        match decision {
            Decision::Refresh(_) => StepKind::Refresh,
            Decision::Reuse(Forecast::LAST) => StepKind::Reuse,
            Decision::Reuse(_) => StepKind::Forecast,
        }
    }
}

impl JobSpec {
    /// A job without previews or deadline, for `request` to the model of this name.
    pub fn new(model: &str, artifacts: &Artifacts, request: Request, output: Output) -> JobSpec {
        JobSpec {
            model: model.to_string(),
            manifest_sha256: artifacts.hash.clone(),
            request,
            output,
            preview_every: None,
            deadline: None,
        }
    }
}
