//! Jobs: images that nobody has to wait for on a connection.

mod error;
mod events;
mod view;

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use hydit::Request;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::error::job_id;
use self::view::JobList;
pub use self::view::JobView;
use super::body::Place;
use super::drawing::ImageSpec;
use super::error::ApiError;
use super::etag::{etag, has};
use super::fields::{Fields, read};
use super::guard::Client;
use super::image::ImageFields;
use super::path::Path;
use crate::server::app::App;
use crate::server::jobs::{Idempotency, JobSnapshot, JobSpec, JobsError, Removal};

/// Header that makes a request that is sent twice one job.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Maximum bytes of an idempotency key.
const MAX_KEY: usize = 255;
/// Number of jobs in a list where the request does not say.
const LISTED: usize = 20;
/// Maximum number of jobs in a list.
const MAX_LISTED: usize = 100;

/// The routes of jobs.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/jobs", get(list).post(create))
        .route("/v1/jobs/{id}", get(describe).delete(remove))
        .route("/v1/jobs/{id}/events", get(events::events))
        .route("/v1/jobs/{id}/pictures/{index}", get(image))
}

/// What a job is asked for.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct JobFields {
    preview_every: Option<usize>,
    #[serde(flatten)]
    image: Map<String, Value>,
}

/// Accepts a job. It is on the disk before this answers.
async fn create(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    place: Option<Extension<Place>>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let body_sha256 = fields.digest();
    let idempotency = idempotency_key(&headers)?.map(|key| Idempotency { key, body_sha256 });
    let place = place.map(|Extension(place)| place);
    let (job, is_new) = submit(&app, &client, read(fields.0)?, idempotency, place).await?;
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.record.id))];
    let code = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((code, location, Json(JobView::from(job))).into_response())
}

/// Accepts a job of `client`, or finds the one that was accepted with the same key. Gives the job,
/// and whether it is new.
///
/// # Errors
/// As [`ImageSpec::check`]; 400 for the other fields; when it cannot be stored.
pub async fn submit(
    app: &Arc<App>,
    Client(client): &Client,
    fields: JobFields,
    idempotency: Option<Idempotency>,
    place: Option<Place>,
) -> Result<(JobSnapshot, bool), ApiError> {
    let JobFields { preview_every, image } = fields;
    let preview_every = preview_every.filter(|every| *every > 0);
    let max_steps = app.settings.limits.max_steps;
    if let Some(every) = preview_every.filter(|every| *every > max_steps) {
        let message = format!("preview_every: {every}; expected 0 to {max_steps}");
        return Err(ApiError::field("preview_every", message));
    }
    let spec = ImageSpec::check(app, ImageFields { place, ..read(image)? }).await?;
    let deadline = spec.deadline.map(|wait| {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        app.scheduler.clock().unix().saturating_add(wait)
    });
    let ImageSpec { model, artifacts, request, output, files, .. } = spec;
    let spec = JobSpec::new(&model, &artifacts, Request::clone(&request), output);
    let spec = JobSpec { preview_every, deadline, ..spec };
    let client = Arc::clone(client);
    Ok(app.jobs.create(client, spec, request, idempotency, files.bytes()).await?)
}

/// Which jobs to list.
#[derive(Deserialize)]
struct Page {
    /// Maximum number of jobs.
    limit: Option<String>,
    /// Only those accepted before the job of this id.
    after: Option<String>,
}

/// Lists the jobs of the client, the newest first.
async fn list(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<JobList>, ApiError> {
    let Query(Page { limit, after }) = page.map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", error.body_text())
    })?;
    let limit = match limit.map(|limit| limit.parse()) {
        None => LISTED,
        Some(Ok(limit)) if (1..=MAX_LISTED).contains(&limit) => limit,
        Some(_) => {
            let message = format!("limit: expected an integer from 1 to {MAX_LISTED}");
            return Err(ApiError::field("limit", message));
        }
    };
    let after = after.map(|id| id.parse::<Uuid>()).transpose();
    let after = after
        .map_err(|_| ApiError::field("after", "after: there is no such job; begin without it"))?;
    // One more than asked for tells whether there are more.
    let mut jobs = app.jobs.list(client, limit + 1, after).await?;
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let data = jobs.into_iter().map(JobView::from).collect();
    Ok(Json(JobList { object: "list", data, has_more }))
}

async fn describe(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(app.jobs.get(&client, job_id(&id)?).await?.into()))
}

/// Cancels a job that has not ended; forgets one that has.
async fn remove(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(match app.jobs.remove(&client, job_id(&id)?).await? {
        Removal::Cancelled(job) => Json(JobView::from(*job)).into_response(),
        Removal::Deleted => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Sends an image of a job.
async fn image(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path((id, index)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = job_id(&id)?;
    let index: usize = index.parse().map_err(|_| {
        ApiError::from(JobsError::NoImage { id, index: usize::MAX, why: "it has fewer" })
    })?;
    let (image, output, file) = app.jobs.image(&client, job, index).await?;
    let etag = etag(&image.sha256);
    let known = has(&headers, &etag);
    let head = [
        (header::ETAG, etag),
        (header::CONTENT_TYPE, HeaderValue::from_static(output.format.media_type())),
        // It never changes, but it may be gone.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, file).into_response())
}

/// The request's idempotency key, if it has one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let bytes = key.as_bytes();
    let fits = (1..=MAX_KEY).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if !fits || more.is_some() {
        let message = format!(
            "Idempotency-Key: expected one word of 1 to {MAX_KEY} printable ASCII characters"
        );
        return Err(ApiError::field("Idempotency-Key", message));
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}
