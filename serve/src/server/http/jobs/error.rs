//! Errors of jobs as answers.

use std::time::Duration;

use axum::http::StatusCode;
use uuid::Uuid;

use crate::server::http::error::ApiError;
use crate::server::jobs::JobsError;

/// When to try again while jobs that have ended cannot be stored: it is tried this often.
const STORED_AGAIN: Duration = Duration::from_secs(20);

/// The id of a job in a path. What is not an id names no job.
///
/// # Errors
/// 404.
pub fn job_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| JobsError::Unknown { id: text.chars().take(64).collect() }.into())
}

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> ApiError {
        let (status, code) = match &error {
            JobsError::Refused(refusal) => return refusal.clone().into(),
            JobsError::Unknown { .. } => (StatusCode::NOT_FOUND, "job_not_found"),
            JobsError::NoImage { .. } => (StatusCode::NOT_FOUND, "picture_not_found"),
            JobsError::Gone { .. } => (StatusCode::GONE, "picture_gone"),
            JobsError::ImageDamaged { .. } => {
                tracing::error!(%error, "a picture cannot be sent");
                (StatusCode::INTERNAL_SERVER_ERROR, "picture_damaged")
            }
            JobsError::KeyReused { .. } => (StatusCode::CONFLICT, "idempotency_key_reused"),
            // Answers do not tell where the server keeps its files.
            JobsError::DiskFull { .. } => {
                tracing::error!(%error, "a job was not stored");
                let message = "the server's disk is full: nothing was done; try again later";
                let status = StatusCode::INSUFFICIENT_STORAGE;
                let error = ApiError::new(status, "disk_full", message);
                return ApiError { retry_after: Some(STORED_AGAIN), ..error };
            }
            JobsError::Unstored { .. } => {
                let status = StatusCode::INSUFFICIENT_STORAGE;
                let error = ApiError::new(status, "disk_full", error.to_string());
                return ApiError { retry_after: Some(STORED_AGAIN), ..error };
            }
            JobsError::Folder { .. }
            | JobsError::Locked { .. }
            | JobsError::Damaged { .. }
            | JobsError::Store { .. } => {
                tracing::error!(%error, "the jobs cannot be read or written");
                let message = "the jobs cannot be read or written; the server's log says why";
                let retry_after = Some(Duration::from_secs(5));
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let error = ApiError::new(status, "jobs_unavailable", message);
                return ApiError { retry_after, ..error };
            }
        };
        ApiError::new(status, code, error.to_string())
    }
}
