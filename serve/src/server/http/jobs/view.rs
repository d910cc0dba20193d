//! Jobs as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Figures, PictureFields};
use crate::server::jobs::{Asked, End, Made, Mark, Record, Status};

/// What a job is asked for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct JobFields {
    #[serde(flatten)]
    picture: PictureFields,
    /// Steps between two previews, small pictures among the job's events; 0 or absent is none.
    #[schema(minimum = 0, default = 0)]
    preview_every: Option<usize>,
}

/// A job.
#[derive(Serialize, ToSchema)]
pub struct JobView {
    /// Its name.
    #[schema(format = "uuid")]
    id: String,
    /// Always `job`.
    object: &'static str,
    /// Where it is: from `queued` to `running`, and to one of the others, which are for good.
    status: Where,
    /// When it was accepted, in seconds of Unix time.
    created_at: f64,
    /// When it was last begun.
    started_at: Option<f64>,
    /// When it ended.
    finished_at: Option<f64>,
    /// How many requests are before it, while it is queued.
    queue_position: Option<usize>,
    /// Steps done.
    step: usize,
    /// Steps in all.
    steps: usize,
    /// How often the deep core has run.
    core_runs: usize,
    /// What was done with the deep core at each step so far.
    plan: Vec<Mark>,
    /// What was asked for, with every default filled in.
    request: RequestView,
    /// What came of it, of a job that is `done`.
    result: Option<ResultView>,
    /// What went wrong, of a job that has `failed`.
    error: Option<FailureView>,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// It waits.
    Queued,
    /// It is drawn.
    Running,
    /// Its pictures are there.
    Done,
    /// There will be none.
    Failed,
    /// Its client did not want it any more.
    Cancelled,
}

/// A request with every default filled in.
#[derive(Serialize, ToSchema)]
struct RequestView {
    model: String,
    prompt: String,
    negative_prompt: String,
    /// `WIDTHxHEIGHT`.
    size: String,
    n: usize,
    /// Of the first picture.
    seed: u64,
    steps: usize,
    guidance: f32,
    guidance_rescale: f32,
    sampler: String,
    spacing: String,
    cache: String,
    output_format: String,
    output_compression: u8,
    metadata: bool,
    preview_every: Option<usize>,
}

/// The pictures of a job and how they were made.
#[derive(Serialize, ToSchema)]
struct ResultView {
    pictures: Vec<PictureView>,
    /// How they were made.
    hydit: Figures,
}

/// A picture of a job.
#[derive(Serialize, ToSchema)]
struct PictureView {
    /// Where it is, on this server.
    url: String,
    /// Of its own.
    seed: u64,
    /// Its media type.
    content_type: &'static str,
    /// How long the file is.
    bytes: u64,
    /// SHA-256 of the file.
    sha256: String,
    /// Whether it is still kept.
    kept: bool,
}

/// Why a job has no pictures.
#[derive(Serialize, ToSchema)]
struct FailureView {
    /// A word for programs.
    code: String,
    /// What went wrong.
    message: String,
}

/// Some jobs.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    /// Always `list`.
    pub object: &'static str,
    /// The jobs, the newest first.
    pub data: Vec<JobView>,
    /// Whether there are older ones; `after` the last of these.
    pub has_more: bool,
}

impl JobView {
    /// A job as it is now.
    pub fn of(status: Status) -> JobView {
        let Status { record, running, position, marks } = status;
        let (mut plan, mut result, mut error) = (marks, None, None);
        let here = match &record.end {
            None if running => Where::Running,
            None => Where::Queued,
            Some(End::Cancelled) => Where::Cancelled,
            Some(End::Failed { code, message }) => {
                error = Some(FailureView { code: code.clone(), message: message.clone() });
                Where::Failed
            }
            Some(End::Done(made)) => {
                plan.clone_from(&made.marks);
                result = Some(ResultView::of(&record, made));
                Where::Done
            }
        };
        JobView {
            id: record.id.to_string(),
            object: "job",
            status: here,
            created_at: seconds(record.created),
            started_at: record.started.map(seconds),
            finished_at: record.finished.map(seconds),
            queue_position: position,
            step: plan.len(),
            steps: record.asked.steps,
            core_runs: plan.iter().filter(|mark| **mark == Mark::Refresh).count(),
            plan,
            request: RequestView::of(record.asked),
            result,
            error,
        }
    }
}

impl RequestView {
    fn of(asked: Asked) -> RequestView {
        RequestView {
            size: format!("{}x{}", asked.width, asked.height),
            model: asked.model,
            prompt: asked.prompt,
            negative_prompt: asked.negative_prompt,
            n: asked.n,
            seed: asked.seed,
            steps: asked.steps,
            guidance: asked.guidance,
            guidance_rescale: asked.guidance_rescale,
            sampler: asked.sampler.to_string(),
            spacing: asked.spacing.to_string(),
            cache: asked.cache,
            output_format: asked.output.format.to_string(),
            output_compression: asked.output.quality,
            metadata: asked.output.metadata,
            preview_every: asked.preview_every,
        }
    }
}

impl ResultView {
    fn of(record: &Record, made: &Made) -> ResultView {
        let picture = |(index, picture): (usize, &crate::server::jobs::Picture)| PictureView {
            url: format!("/v1/jobs/{}/pictures/{index}", record.id),
            seed: picture.seed,
            content_type: record.asked.output.format.media_type(),
            bytes: picture.bytes,
            sha256: picture.sha256.clone(),
            kept: !made.dropped,
        };
        ResultView {
            pictures: made.pictures.iter().enumerate().map(picture).collect(),
            hydit: made.figures.clone(),
        }
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}
