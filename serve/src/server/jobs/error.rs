//! What can go wrong with jobs.

use std::io;
use std::path::PathBuf;

use crate::server::scheduler::Refusal;

/// Why a job, or the store of jobs, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// The folder of the store cannot be made.
    #[error("{}: cannot be made: {source}; name another with --data-dir", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "{}: another process uses it; stop that one, or name another folder with --data-dir",
        .path.display()
    )]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is not a store, or a damaged one.
    #[error(
        "{}: not a store of jobs, or a damaged one ({why}); move it away to begin with an empty one",
        .path.display()
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No space is left for the file.
    #[error("{}: the disk is full; make room and try again", .path.display())]
    DiskFull {
        /// The store's file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("{}: cannot be read or written: {source}", .path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// Jobs that have ended could not be stored so far.
    #[error("{why}: no others are accepted until they are")]
    Unstored {
        /// What the client is told.
        why: &'static str,
    },
    /// There is no such job, or it belongs to another client.
    #[error("job {id} not found: unknown, expired, or owned by another key")]
    Unknown {
        /// The id in the request.
        id: String,
    },
    /// The job has no such image.
    #[error("job {id} has no picture {index}: {why}")]
    NoImage {
        /// The job's id.
        id: String,
        /// Number of the image, counted from 0.
        index: usize,
        /// Why not.
        why: &'static str,
    },
    /// The image was there but is no longer kept.
    #[error("picture {index} of job {id} is no longer kept; draw it again with the job's request")]
    Gone {
        /// The job's id.
        id: String,
        /// Number of the image, counted from 0.
        index: usize,
    },
    /// The file of an image is not the one that was stored.
    #[error(
        "picture {index} of job {id} is damaged on the server's disk; \
         draw it again with the job's request"
    )]
    ImageDamaged {
        /// The job's id.
        id: String,
        /// Number of the image, counted from 0.
        index: usize,
    },
    /// A job with this idempotency key was created by another request.
    #[error("another request has used this Idempotency-Key, for job {id}")]
    KeyReused {
        /// The job's id.
        id: String,
    },
    /// The scheduler does not accept it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
