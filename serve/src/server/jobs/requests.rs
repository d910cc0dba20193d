//! What clients can do with jobs.

use std::sync::Arc;

use axum::body::Bytes;
use hydit::CheckedRequest;
use tracing::info;
use uuid::Uuid;

use super::error::JobsError;
use super::feed::{JobFeed, JobSnapshot};
use super::record::{Idempotency, JobOutcome, JobRecord, JobSpec, StoredImage};
use super::shared::Jobs;
use crate::server::output::Output;
use crate::server::spawn::whole;

/// What became of a job that a client removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// It had not ended and is cancelled.
    Cancelled(Box<JobSnapshot>),
    /// It had ended and is forgotten.
    Deleted,
}

/// A job to watch.
pub enum Watch {
    /// It goes on.
    Live(Arc<JobFeed>),
    /// It has ended, or the server is shutting down.
    Over(Box<JobSnapshot>),
}

impl Jobs {
    /// Accepts a job, which is on the disk when this returns. `request` is that of `spec`, and `files`
    /// are those of the image that it is made from, of the mask, and of its ControlNets. With an
    /// idempotency key that was used before, returns the job of then, and `false`.
    ///
    /// # Errors
    /// When the scheduler would refuse it, the key was used for something else, it cannot be
    /// stored, or the ends of others cannot.
    pub async fn create(
        self: &Arc<Self>,
        client: Arc<str>,
        spec: JobSpec,
        request: CheckedRequest,
        idempotency: Option<Idempotency>,
        files: Vec<Bytes>,
    ) -> Result<(JobSnapshot, bool), JobsError> {
        whole(self.clone().accept(client, spec, request, idempotency, files)).await
    }

    async fn accept(
        self: Arc<Self>,
        client: Arc<str>,
        spec: JobSpec,
        request: CheckedRequest,
        idempotency: Option<Idempotency>,
        files: Vec<Bytes>,
    ) -> Result<(JobSnapshot, bool), JobsError> {
        let _one_at_a_time = self.accepting.lock().await;
        if let Some(Idempotency { key, body_sha256 }) = idempotency.clone() {
            let owner = client.clone();
            if let Some(known) = self.stored(move |store| store.find(&owner, &key)).await? {
                let same = known.idempotency.as_ref().is_some_and(|k| k.body_sha256 == body_sha256);
                if !same {
                    return Err(JobsError::KeyReused { id: known.id.to_string() });
                }
                return Ok((self.snapshot(known), false));
            }
        }
        self.ready().map_err(|why| JobsError::Unstored { why })?;
        self.scheduler.check_room(&spec.model, &client)?;
        let id = Uuid::new_v4();
        let record = JobRecord {
            id,
            number: 0, // given by the store
            client: client.to_string(),
            created: self.now(),
            started: None,
            finished: None,
            starts: 0,
            spec,
            idempotency,
            outcome: None,
            unreadable: None,
        };
        let record = match self.stored(move |store| store.insert(record, &files)).await {
            Ok(record) => record,
            Err(error) => {
                // Whether it was stored is not known; it must not be drawn after this answer.
                let _ = self.stored(move |store| store.remove(id)).await;
                return Err(error);
            }
        };
        info!(job = %id, "accepted");
        self.begin(record.clone(), request);
        Ok((self.snapshot(record), true))
    }

    /// A job of `client`.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or when the store cannot be read.
    pub async fn get(&self, client: &str, id: Uuid) -> Result<JobSnapshot, JobsError> {
        let snapshot = match self.feed(id) {
            Some(feed) => feed.snapshot(),
            None => {
                let record = self.stored(move |store| store.get(id)).await?;
                self.snapshot(record.ok_or_else(|| unknown(id))?)
            }
        };
        if *snapshot.record.client != *client {
            return Err(unknown(id));
        }
        Ok(self.with_position(snapshot))
    }

    /// The jobs of `client`, the newest first: at most `limit`, of those accepted before the job
    /// `after`.
    ///
    /// # Errors
    /// [`JobsError::Unknown`] for `after`, or when the store cannot be read.
    pub async fn list(
        &self,
        client: Arc<str>,
        limit: usize,
        after: Option<Uuid>,
    ) -> Result<Vec<JobSnapshot>, JobsError> {
        let below = match after {
            Some(id) => self.get(&client, id).await?.record.number,
            None => u64::MAX,
        };
        let records = self.stored(move |store| store.list(&client, limit, below)).await?;
        Ok(records.into_iter().map(|record| self.snapshot(record)).collect())
    }

    /// Cancels a job that has not ended, for good, or forgets one that has.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or when the store cannot be read or written.
    pub async fn remove(self: &Arc<Self>, client: &str, id: Uuid) -> Result<Removal, JobsError> {
        let before = self.get(client, id).await?;
        let jobs = self.clone();
        whole(async move {
            if before.record.outcome.is_some() {
                jobs.stored(move |store| store.remove(id)).await?;
                jobs.live.lock().remove(&id);
                return Ok(Removal::Deleted);
            }
            let now = jobs.now();
            let cancel = jobs.stored(move |s| s.end(id, now, &JobOutcome::Cancelled, &[]));
            let record = cancel.await?.ok_or_else(|| unknown(id))?;
            // The feed comes first: its followers must not take the cancelled task for anything
            // else.
            if let Some(feed) = jobs.feed(id) {
                feed.end(record.clone());
            }
            jobs.scheduler.cancel(&id.to_string());
            Ok(Removal::Cancelled(Box::new(jobs.snapshot(record))))
        })
        .await
    }

    /// An image of a job: what is known of its file, how that was encoded, and the file.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::NoImage`], [`JobsError::Gone`], or when the store
    /// cannot be read.
    pub async fn image(
        &self,
        client: &str,
        id: Uuid,
        index: usize,
    ) -> Result<(StoredImage, Output, Vec<u8>), JobsError> {
        let record = self.get(client, id).await?.record;
        let none = |why| Err(JobsError::NoImage { id: id.to_string(), index, why });
        let gone = || JobsError::Gone { id: id.to_string(), index };
        let result = match &record.outcome {
            None => return none("it has not ended"),
            Some(JobOutcome::Failed { .. }) => return none("it failed"),
            Some(JobOutcome::Cancelled) => return none("it was cancelled"),
            Some(JobOutcome::Done(result)) => result,
        };
        let Some(image) = result.images.get(index).cloned() else {
            return none("it has fewer");
        };
        if result.dropped {
            return Err(gone());
        }
        let known = image.clone();
        let file = self.stored(move |store| store.image(id, index, &known)).await?;
        Ok((image, record.spec.output, file.ok_or_else(gone)?))
    }

    /// A job of `client`, to watch.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or when the store cannot be read.
    pub async fn watch(&self, client: &str, id: Uuid) -> Result<Watch, JobsError> {
        // Taken before the record is read: it tells the end of a job that ends meanwhile. One that
        // has ended may stay among the live ones for a moment.
        let feed = self.feed(id);
        let snapshot = self.get(client, id).await?;
        Ok(match feed.or_else(|| self.feed(id)) {
            Some(feed) if snapshot.record.outcome.is_none() => Watch::Live(feed),
            _ => Watch::Over(Box::new(snapshot)),
        })
    }

    /// The same with the job's position in the queue.
    pub fn with_position(&self, snapshot: JobSnapshot) -> JobSnapshot {
        let waits = snapshot.record.outcome.is_none() && !snapshot.running;
        let id = snapshot.record.id.to_string();
        let position = if waits { self.scheduler.position(&id) } else { None };
        JobSnapshot { position, ..snapshot }
    }

    /// A stored job, with what its feed knows beyond that.
    fn snapshot(&self, record: JobRecord) -> JobSnapshot {
        self.with_position(match (self.feed(record.id), &record.outcome) {
            (Some(feed), None) => feed.snapshot(),
            _ => JobSnapshot { record, running: false, position: None, plan: Vec::new() },
        })
    }
}

fn unknown(id: Uuid) -> JobsError {
    JobsError::Unknown { id: id.to_string() }
}
