//! Requests that outlive their connection and the process: [`Jobs`]. Read this first.
//!
//! A job is accepted (`requests`) once its [`JobRecord`] is on the disk (`store`); only then it
//! goes to the scheduler. A tokio task follows it to its end (`follow`) and tells a `feed` of
//! every step, which anyone may watch. Its end and its images are stored together, once. What has
//! not ended when the process does is drawn by the next (`restore`). Pictures of other orders may lie
//! beside them for a while (`lent`), and the `presets` of a client for good.

mod error;
mod feed;
mod file;
mod follow;
mod lent;
mod presets;
mod record;
mod requests;
mod restore;
mod shared;
mod store;
mod unreadable;

pub use error::JobsError;
pub use feed::JobSnapshot;
pub(super) use feed::{FeedEntry, JobEvent, JobFeed, Next};
pub(super) use presets::MOST_PRESETS;
pub use record::{Idempotency, JobOutcome, JobRecord, JobResult, JobSpec, StepKind, StoredImage};
pub(super) use requests::{Removal, Watch};
pub use shared::Jobs;
pub(super) use store::{Preset, Put};

#[cfg(test)]
pub(super) use store::tests::told_by_an_earlier_version;
