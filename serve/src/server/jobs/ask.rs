//! What clients ask of jobs.

use std::sync::Arc;

use tracing::info;
use uuid::Uuid;

use super::Jobs;
use super::error::JobsError;
use super::follow::task;
use super::live::{Live, Status};
use super::record::{Asked, End, Idempotency, Picture, Record};
use super::store::Store;
use super::time::now;
use crate::server::http::Output;
use crate::server::spawn::whole;

/// What a job was asked to stop.
#[derive(Clone, Debug, PartialEq)]
pub enum Removed {
    /// It had not ended, and ends so.
    Cancelled(Box<Status>),
    /// It had ended, and is forgotten.
    Deleted,
}

/// A job to watch.
pub enum Watched {
    /// It goes on.
    Live(Arc<Live>),
    /// It has ended, or the server is shutting down.
    Over(Box<Status>),
}

impl Jobs {
    /// Accepts a job: it is on the disk when this comes back. With an idempotency key that was used
    /// before, gives the job of then, and `false`.
    ///
    /// # Errors
    /// When the engine would not take it, the key was used for something else, or it cannot be stored.
    pub async fn create(
        self: &Arc<Self>,
        client: Arc<str>,
        asked: Asked,
        idempotency: Option<Idempotency>,
    ) -> Result<(Status, bool), JobsError> {
        let jobs = self.clone();
        let accept = async move { jobs.accept(client, asked, idempotency).await };
        whole(accept).await
    }

    async fn accept(
        self: Arc<Self>,
        client: Arc<str>,
        asked: Asked,
        idempotency: Option<Idempotency>,
    ) -> Result<(Status, bool), JobsError> {
        let _one_at_a_time = self.accepting.lock().await;
        if let Some(Idempotency { key, body_sha256 }) = idempotency.clone() {
            let owner = client.clone();
            if let Some(known) = self.stored(move |store| store.find(&owner, &key)).await? {
                let same = known.idempotency.as_ref().is_some_and(|k| k.body_sha256 == body_sha256);
                return match same {
                    true => Ok((self.status(known), false)),
                    false => Err(JobsError::KeyReused { id: known.id.to_string() }),
                };
            }
        }
        self.scheduler.check_room(&asked.model, &client)?;
        let id = Uuid::new_v4();
        let record = Record {
            id,
            number: 0,
            client: client.to_string(),
            created: now(),
            started: None,
            finished: None,
            starts: 0,
            asked,
            idempotency,
            end: None,
        };
        let record = match self.stored(move |store| store.insert(record)).await {
            Ok(record) => record,
            Err(error) => {
                // Whether it arrived is not known; it must not be drawn after this answer.
                let _ = self.stored(move |store| store.remove(id)).await;
                return Err(error);
            }
        };
        info!(job = %id, "accepted");
        // It was promised by now: without regard to the queue's bounds, or if need be for the next process.
        if let Ok(handle) = self.scheduler.resubmit(task(&record)) {
            self.begin(record.clone(), handle);
        }
        Ok((self.status(record), true))
    }

    /// A job of `client`.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or what the store says.
    pub async fn get(&self, client: &str, id: Uuid) -> Result<Status, JobsError> {
        let unknown = || JobsError::Unknown { id: id.to_string() };
        let status = match self.live(id) {
            Some(live) => live.status(),
            None => {
                let record = self.stored(move |store| store.get(id)).await?;
                self.status(record.ok_or_else(unknown)?)
            }
        };
        match *status.record.client == *client {
            true => Ok(self.placed(status)),
            false => Err(unknown()),
        }
    }

    /// The jobs of `client`, the newest first: at most `limit`, of those accepted before the job `after`.
    ///
    /// # Errors
    /// [`JobsError::Unknown`] of `after`, or what the store says.
    pub async fn list(
        &self,
        client: Arc<str>,
        limit: usize,
        after: Option<Uuid>,
    ) -> Result<Vec<Status>, JobsError> {
        let below = match after {
            Some(id) => self.get(&client, id).await?.record.number,
            None => u64::MAX,
        };
        let records = self.stored(move |store| store.list(&client, limit, below)).await?;
        Ok(records.into_iter().map(|record| self.status(record)).collect())
    }

    /// Cancels a job that has not ended, for good, or forgets one that has.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or what the store says.
    pub async fn remove(self: &Arc<Self>, client: &str, id: Uuid) -> Result<Removed, JobsError> {
        let before = self.get(client, id).await?;
        let jobs = self.clone();
        whole(async move {
            if before.record.end.is_some() {
                jobs.stored(move |store| store.remove(id)).await?;
                jobs.lock().remove(&id);
                return Ok(Removed::Deleted);
            }
            let end = move |store: &Store| store.end(id, now(), &End::Cancelled, &[]);
            let unknown = || JobsError::Unknown { id: id.to_string() };
            let record = jobs.stored(end).await?.ok_or_else(unknown)?;
            // First: who follows it must not take this for anything else.
            if let Some(live) = jobs.live(id) {
                live.end(record.clone());
            }
            jobs.scheduler.cancel(&id.to_string());
            Ok(Removed::Cancelled(Box::new(jobs.status(record))))
        })
        .await
    }

    /// The file of a picture, what is known of it, and how it was encoded.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::NoPicture`], [`JobsError::Gone`], or what the store says.
    pub async fn picture(
        &self,
        client: &str,
        id: Uuid,
        index: usize,
    ) -> Result<(Picture, Output, Vec<u8>), JobsError> {
        let record = self.get(client, id).await?.record;
        let none = |why| Err(JobsError::NoPicture { id: id.to_string(), index, why });
        let gone = || JobsError::Gone { id: id.to_string(), index };
        let made = match &record.end {
            None => return none("it has not ended"),
            Some(End::Failed { .. }) => return none("it failed"),
            Some(End::Cancelled) => return none("it was cancelled"),
            Some(End::Done(made)) => made,
        };
        let Some(picture) = made.pictures.get(index).cloned() else {
            return none("it has fewer");
        };
        if made.dropped {
            return Err(gone());
        }
        let known = picture.clone();
        let file = self.stored(move |store| store.picture(id, index, &known)).await?;
        Ok((picture, record.asked.output, file.ok_or_else(gone)?))
    }

    /// A job of `client`, to watch.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or what the store says.
    pub async fn watch(&self, client: &str, id: Uuid) -> Result<Watched, JobsError> {
        // Taken before the record is read: it tells the end of a job that ends meanwhile. One that has
        // ended may stay among the live ones for a moment.
        let live = self.live(id);
        let status = self.get(client, id).await?;
        Ok(match live.or_else(|| self.live(id)) {
            Some(live) if status.record.end.is_none() => Watched::Live(live),
            _ => Watched::Over(Box::new(status)),
        })
    }

    /// A job as it is now, with its place in the queue.
    pub fn placed(&self, status: Status) -> Status {
        let waits = status.record.end.is_none() && !status.running;
        let position =
            waits.then(|| self.scheduler.position(&status.record.id.to_string())).flatten();
        Status { position, ..status }
    }

    /// What is stored, or what is known beyond that.
    fn status(&self, record: Record) -> Status {
        self.placed(match (self.live(record.id), &record.end) {
            (Some(live), None) => live.status(),
            _ => Status { record, running: false, position: None, marks: Vec::new() },
        })
    }
}
