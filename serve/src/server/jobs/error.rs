//! What can go wrong with jobs.

use std::io;
use std::path::PathBuf;

use crate::server::scheduler::Refusal;

/// Why something cannot be had of the jobs.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The folder of the store cannot be made.
    #[error("{}: cannot be made: {source}; name another with --data-dir", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the store.
    #[error(
        "{}: another process uses it; stop that one, or name another folder with --data-dir",
        .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store, or a broken one.
    #[error(
        "{}: not a store of jobs, or a damaged one ({why}); move it away to begin with an empty one",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No space is left for the file.
    #[error("{}: the disk is full; make room and try again", .path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// There is no such job, or it is another client's.
    #[error("there is no job {id}: it never was, is another key's, or was kept long enough")]
    Unknown {
        /// The job's name, as it was asked for.
        id: String,
    },
    /// The job has no such picture.
    #[error("job {id} has no picture {index}: {why}")]
    NoPicture {
        /// The job's name.
        id: String,
        /// Counted from 0.
        index: usize,
        /// Why not.
        why: &'static str,
    },
    /// The picture was there, but is no longer kept.
    #[error("picture {index} of job {id} is no longer kept; draw it again with the job's request")]
    Gone {
        /// The job's name.
        id: String,
        /// Counted from 0.
        index: usize,
    },
    /// An idempotency key that another request has used.
    #[error("job {id} has this Idempotency-Key, and was asked for something else")]
    KeyReused {
        /// The job's name.
        id: String,
    },
    /// The engine does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
