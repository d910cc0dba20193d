//! Requests that outlive their connection and the process: [`Jobs`]. Read this first.
//!
//! A job is accepted once its [`Record`] is on the disk ([`Store`]); only then it goes to the engine. A
//! task follows it to its end, and tells a [`Live`] of every step, which anyone may watch. Its end and
//! its pictures are stored together, once. What has not ended when the process does is drawn by the next.

mod error;
mod file;
mod follow;
mod live;
mod record;
mod store;
mod time;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};
use uuid::Uuid;

pub use error::JobsError;
pub use live::{Entry, Live, Next, Status, What};
pub use record::{Asked, End, Idempotency, Made, Mark, Picture, Record};
pub use store::{MOST_ENDED, Store, Swept};

use self::follow::{blocking, order};
pub use self::time::now;
use super::engine::{Engine, Refusal, Ticket};
use super::settings::{Keep, Settings};

/// Name of the store in the data folder.
pub const FILE: &str = "jobs.redb";

/// A job that was begun so often without an end is given up: it may be what ends the process.
const MOST_STARTS: u32 = 10;
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);

/// All jobs.
pub struct Jobs {
    store: Arc<Store>,
    engine: Arc<Engine>,
    keep: Keep,
    live: Mutex<HashMap<Uuid, Arc<Live>>>,
    /// Held while a job is accepted: what is found under an idempotency key was accepted as a whole.
    accepting: tokio::sync::Mutex<()>,
    /// How many jobs are followed.
    followed: watch::Sender<usize>,
    /// Tells the life of a job in this process from that in others.
    life: u64,
}

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
    /// Opens the store in the data folder, or makes both.
    ///
    /// # Errors
    /// When the folder cannot be made, another process has the store, or it cannot be read.
    pub fn open(settings: &Settings, engine: Arc<Engine>) -> Result<Arc<Jobs>, JobsError> {
        make_private(&settings.data_dir)?;
        let store = Store::open(&settings.data_dir.join(FILE))?;
        Ok(Arc::new(Jobs {
            store: Arc::new(store),
            engine,
            keep: settings.keep,
            live: Mutex::default(),
            accepting: tokio::sync::Mutex::default(),
            followed: watch::Sender::new(0),
            life: now(),
        }))
    }

    /// Gives the engine what earlier processes have left, in its order, and keeps the store within its
    /// bounds from now on. In a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn restore(self: &Arc<Self>) -> Result<(), JobsError> {
        self.store.sweep(now(), self.keep, MOST_ENDED)?;
        let pending = self.store.pending()?;
        let total = pending.len();
        for record in pending {
            if let Some((code, message)) = self.unfit(&record) {
                warn!(job = %record.id, code, message, "cannot be drawn any more");
                let failed = End::Failed { code: code.to_string(), message };
                self.store.end(record.id, now(), &failed, &[])?;
            } else if let Ok(ticket) = self.engine.resubmit(order(&record)) {
                self.begin(record, ticket);
            }
        }
        if total > 0 {
            info!(jobs = total, "left by an earlier process");
        }
        tokio::spawn(keep_swept(Arc::downgrade(self)));
        Ok(())
    }

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
        self.engine.room(&asked.model, &client)?;
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
        if let Ok(ticket) = self.engine.resubmit(order(&record)) {
            self.begin(record.clone(), ticket);
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
            jobs.engine.cancel(&id.to_string());
            Ok(Removed::Cancelled(Box::new(jobs.status(record))))
        })
        .await
    }

    /// The file of a picture, and what is known of it.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::NoPicture`], [`JobsError::Gone`], or what the store says.
    pub async fn picture(
        &self,
        client: &str,
        id: Uuid,
        index: usize,
    ) -> Result<(Record, Vec<u8>), JobsError> {
        let record = self.get(client, id).await?.record;
        let none = |why| JobsError::NoPicture { id: id.to_string(), index, why };
        let gone = || JobsError::Gone { id: id.to_string(), index };
        match &record.end {
            None => return Err(none("it has not ended")),
            Some(End::Failed { .. }) => return Err(none("it failed")),
            Some(End::Cancelled) => return Err(none("it was cancelled")),
            Some(End::Done(made)) if index >= made.pictures.len() => {
                return Err(none("it has fewer"));
            }
            Some(End::Done(made)) if made.dropped => return Err(gone()),
            Some(End::Done(_)) => {}
        }
        let place = u32::try_from(index).map_err(|_| none("it has fewer"))?;
        let file = self.stored(move |store| store.picture(id, place)).await?;
        Ok((record, file.ok_or_else(gone)?))
    }

    /// A job of `client`, to watch.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], or what the store says.
    pub async fn watch(&self, client: &str, id: Uuid) -> Result<Watched, JobsError> {
        let status = self.get(client, id).await?;
        Ok(match self.live(id) {
            Some(live) => Watched::Live(live),
            None => Watched::Over(Box::new(status)),
        })
    }

    /// A job as it is now, with its place in the queue.
    pub fn placed(&self, status: Status) -> Status {
        let waits = status.record.end.is_none() && !status.running;
        let position = waits.then(|| self.engine.position(&status.record.id.to_string())).flatten();
        Status { position, ..status }
    }

    /// Comes back when no job is followed any more: after [`Engine::drain`] those that run have ended
    /// and are stored, the others are left to the next process.
    pub async fn idle(&self) {
        let mut followed = self.followed.subscribe();
        followed.wait_for(|jobs| *jobs == 0).await.expect("this value holds the sender");
    }

    /// What is stored, or what is known beyond that.
    fn status(&self, record: Record) -> Status {
        self.placed(match (self.live(record.id), &record.end) {
            (Some(live), None) => live.status(),
            _ => Status { record, running: false, position: None, marks: Vec::new() },
        })
    }

    /// Why a job that was accepted by an earlier process cannot be drawn by this one.
    fn unfit(&self, record: &Record) -> Option<(&'static str, String)> {
        let asked = &record.asked;
        if record.starts >= MOST_STARTS {
            let message = format!(
                "it was begun {} times, and each time the server ended before it did",
                record.starts
            );
            return Some(("given_up", message));
        }
        match self.engine.model(Some(&asked.model)) {
            Err(refusal @ Refusal::UnknownModel { .. }) => {
                Some(("model_gone", refusal.to_string()))
            }
            Ok((name, artifacts)) if artifacts.hash != asked.manifest_sha256 => {
                let message = format!(
                    "the model {name:?} was exported anew since the job was accepted: ask again"
                );
                Some(("model_changed", message))
            }
            _ => asked.request().err().map(|error| ("cache_unknown", error.to_string())),
        }
    }

    fn begin(self: &Arc<Self>, record: Record, ticket: Ticket) {
        let id = record.id;
        let live = Arc::new(Live::new(record, self.life));
        self.lock().insert(id, live.clone());
        self.followed.send_modify(|jobs| *jobs += 1);
        let (jobs, watched) = (self.clone(), live.clone());
        let following = tokio::spawn(async move { jobs.follow(&watched, ticket).await });
        let jobs = self.clone();
        tokio::spawn(async move {
            if following.await.is_err_and(|error| error.is_panic()) {
                let message = "a fault of the server; its log tells of it".to_string();
                jobs.fail(&live, "internal_error", message).await;
            }
            jobs.lock().remove(&id);
            jobs.sweep().await;
            jobs.followed.send_modify(|jobs| *jobs -= 1);
        });
    }

    async fn sweep(&self) {
        let keep = self.keep;
        match self.stored(move |store| store.sweep(now(), keep, MOST_ENDED)).await {
            Ok(Swept { jobs: 0, pictures: 0 }) => {}
            Ok(Swept { jobs, pictures }) => info!(jobs, pictures, "no longer kept"),
            Err(error) => error!(%error, "what is too old could not be taken away"),
        }
    }

    async fn stored<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<R, JobsError> + Send + 'static,
    ) -> Result<R, JobsError> {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }

    fn live(&self, id: Uuid) -> Option<Arc<Live>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only this user may look into it.
fn make_private(folder: &Path) -> Result<(), JobsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| JobsError::Folder { path: folder.to_path_buf(), source })
}

/// Work that must not be cut off when its client goes away.
async fn whole<R: Send + 'static>(work: impl Future<Output = R> + Send + 'static) -> R {
    match tokio::spawn(work).await {
        Ok(out) => out,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn keep_swept(jobs: Weak<Jobs>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match jobs.upgrade() {
            Some(jobs) => jobs.sweep().await,
            None => return,
        }
    }
}
