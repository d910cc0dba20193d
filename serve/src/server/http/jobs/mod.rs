//! Jobs: pictures that nobody has to wait for on a connection.

mod events;
mod view;

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::view::{JobFields, JobList, JobView};
use super::error::ErrorBody;
use super::path::Path;
use super::{ApiError, App, Client, Fields, PictureFields, drawing};
use crate::server::jobs::{Asked, Idempotency, JobsError, Removed, now};

/// Names a request that may be sent twice and is meant once.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of the longest such name.
const MAX_KEY: usize = 255;
/// Jobs of a list, unless the request says.
const LISTED: usize = 20;
/// And at most.
const MOST_LISTED: usize = 100;

/// Its routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, remove))
        .routes(routes!(events::events))
        .routes(routes!(picture))
}

/// Accepts a job. It is kept on the disk before this answers: from then on it is drawn, once, whatever becomes
/// of the connection or the server.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "A word of the client's own. The same word with the same body, however often, is one job; it is kept as long as that. At most 255 printable ASCII characters.",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = JobFields,
    responses(
        (status = 202, description = "Accepted.", body = JobView,
            headers(("location" = String, description = "Where the job is."))),
        (status = 200, description = "The job that this Idempotency-Key has named before.", body = JobView,
            headers(("location" = String, description = "Where the job is."))),
        (status = 400, description = "A field is wrong; `param` names it.", body = ErrorBody),
        (status = 404, description = "There is no such model.", body = ErrorBody),
        (status = 409, description = "The Idempotency-Key was used for another request.", body = ErrorBody),
        (status = 413, description = "The body is too large.", body = ErrorBody),
        (status = 415, description = "The body is not JSON by its header.", body = ErrorBody),
        (status = 429, description = "The queue, or this key's share of it, is full; Retry-After says when to try again.", body = ErrorBody),
        (status = 503, description = "Starting, draining, no engine alive, or the jobs cannot be read; see Retry-After.", body = ErrorBody),
        (status = 507, description = "The disk is full.", body = ErrorBody),
    ))]
async fn create(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let body_sha256 = fields.digest();
    let idempotency = idempotency_key(&headers)?.map(|key| Idempotency { key, body_sha256 });
    let picture = PictureFields::take(&mut fields)?;
    let preview_every = fields.whole("preview_every")?.filter(|every| *every > 0);
    fields.finish()?;
    let max_steps = app.settings.limits.max_steps;
    if let Some(every) = preview_every.filter(|every| *every > max_steps) {
        let message = format!("preview_every: {every}; expected 0 to {max_steps}");
        return Err(ApiError::field("preview_every", message));
    }
    let asked = drawing::Asked::check(&app, picture).await?;
    let deadline = asked.deadline.map(|wait| now().saturating_add(wait.as_millis() as u64));
    let drawing::Asked { model, artifacts, request, output, .. } = asked;
    let asked = Asked::new(&model, &artifacts, request, output);
    let asked = Asked { preview_every, deadline, ..asked };
    let (status, fresh) = app.jobs.create(client, asked, idempotency).await?;
    let location = [(header::LOCATION, format!("/v1/jobs/{}", status.record.id))];
    let code = if fresh { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((code, location, Json(JobView::of(status))).into_response())
}

/// Which jobs to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// How many at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// Only those accepted before the job of this id.
    #[param(format = "uuid")]
    after: Option<String>,
}

/// The jobs of this key, the newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(Page),
    responses(
        (status = 200, description = "The jobs.", body = JobList),
        (status = 400, description = "`limit` is wrong, or `after` is no id.", body = ErrorBody),
        (status = 404, description = "There is no job `after`.", body = ErrorBody),
        (status = 503, description = "The jobs cannot be read.", body = ErrorBody),
    ))]
async fn list(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<JobList>, ApiError> {
    let invalid = |error: QueryRejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", error.body_text())
    };
    let Query(Page { limit, after }) = page.map_err(invalid)?;
    let limit = match limit.map(|limit| limit.parse()) {
        None => LISTED,
        Some(Ok(limit)) if (1..=MOST_LISTED).contains(&limit) => limit,
        Some(_) => {
            let message = format!("limit: expected an integer from 1 to {MOST_LISTED}");
            return Err(ApiError::field("limit", message));
        }
    };
    let unknown = |_| ApiError::field("after", "after: there is no such job; begin without it");
    let after = after.map(|id| id.parse::<Uuid>()).transpose().map_err(unknown)?;
    // One more than asked for tells whether there are more.
    let mut jobs = app.jobs.list(client, limit + 1, after).await?;
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let data = jobs.into_iter().map(JobView::of).collect();
    Ok(Json(JobList { object: "list", data, has_more }))
}

/// A job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job's id.", format = "uuid")),
    responses(
        (status = 200, description = "The job as it is now.", body = JobView),
        (status = 404, description = "There is no such job, or it is another key's.", body = ErrorBody),
        (status = 503, description = "The jobs cannot be read.", body = ErrorBody),
    ))]
async fn get(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(JobView::of(app.jobs.get(&client, job_id(&id)?).await?)))
}

/// Cancels a job that waits or is drawn: no step follows the one that runs, and nothing brings the job back. Forgets
/// a job that has ended, and its pictures.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job's id.", format = "uuid")),
    responses(
        (status = 200, description = "It had not ended, and is cancelled; or it ended in that moment, as `status` says.", body = JobView),
        (status = 204, description = "It had ended, and is forgotten."),
        (status = 404, description = "There is no such job, or it is another key's.", body = ErrorBody),
        (status = 503, description = "The jobs cannot be read or written.", body = ErrorBody),
        (status = 507, description = "The disk is full.", body = ErrorBody),
    ))]
async fn remove(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(match app.jobs.remove(&client, job_id(&id)?).await? {
        Removed::Cancelled(status) => Json(JobView::of(*status)).into_response(),
        Removed::Deleted => StatusCode::NO_CONTENT.into_response(),
    })
}

/// A picture of a job.
#[utoipa::path(get, path = "/v1/jobs/{id}/pictures/{index}", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job's id.", format = "uuid"),
        ("index" = usize, Path, description = "Which of its pictures, counted from 0."),
        ("If-None-Match" = Option<String>, Header, description = "An ETag that the client has."),
    ),
    responses(
        (status = 200, description = "The file.", content(
            (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp")),
            headers(("etag" = String, description = "SHA-256 of the file."))),
        (status = 304, description = "The client has it."),
        (status = 404, description = "There is no such job or picture.", body = ErrorBody),
        (status = 410, description = "The picture is no longer kept.", body = ErrorBody),
        (status = 503, description = "The jobs cannot be read.", body = ErrorBody),
    ))]
async fn picture(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path((id, index)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = job_id(&id)?;
    let none =
        || ApiError::from(JobsError::NoPicture { id, index: usize::MAX, why: "it has fewer" });
    let index: usize = index.parse().map_err(|_| none())?;
    let (picture, output, file) = app.jobs.picture(&client, job, index).await?;
    let etag = format!("\"{}\"", picture.sha256);
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|tags| tags.to_str().is_ok_and(|tags| tags.split(',').any(|tag| tag.trim() == etag)));
    let head = [
        (header::ETAG, etag),
        (header::CONTENT_TYPE, output.format.media_type().to_string()),
        // It never changes, but it may be gone.
        (header::CACHE_CONTROL, "private, no-cache".to_string()),
    ];
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, head).into_response(),
        false => (head, file).into_response(),
    })
}

/// What is no id names no job.
fn job_id(text: &str) -> Result<Uuid, ApiError> {
    let unknown = || JobsError::Unknown { id: text.chars().take(64).collect() };
    text.parse().map_err(|_| unknown().into())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let plain = |key: &HeaderValue| {
        let bytes = key.as_bytes();
        let fit = (1..=MAX_KEY).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        fit.then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    match plain(key).filter(|_| more.is_none()) {
        Some(key) => Ok(Some(key)),
        None => Err(ApiError::field(
            "Idempotency-Key",
            format!(
                "Idempotency-Key: expected one word of 1 to {MAX_KEY} printable ASCII characters"
            ),
        )),
    }
}

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> ApiError {
        let text = error.to_string();
        let told = |status, code| ApiError::new(status, code, text.clone());
        match error {
            JobsError::Refused(refusal) => refusal.into(),
            JobsError::Unknown { .. } => told(StatusCode::NOT_FOUND, "job_not_found"),
            JobsError::NoPicture { .. } => told(StatusCode::NOT_FOUND, "picture_not_found"),
            JobsError::Gone { .. } => told(StatusCode::GONE, "picture_gone"),
            JobsError::KeyReused { .. } => told(StatusCode::CONFLICT, "idempotency_key_reused"),
            JobsError::DiskFull { .. } => {
                tracing::error!(%error, "a job was not stored");
                let message = "the server's disk is full: nothing was done; try again later";
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
            }
            // Where the server keeps its files is nobody's business.
            JobsError::Folder { .. }
            | JobsError::Locked { .. }
            | JobsError::Damaged { .. }
            | JobsError::Store { .. } => {
                tracing::error!(%error, "the jobs cannot be read or written");
                let message = "the jobs cannot be read or written; the server's log says why";
                let wait = std::time::Duration::from_secs(5);
                let error =
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "jobs_unavailable", message);
                ApiError { retry_after: Some(wait), ..error }
            }
        }
    }
}
