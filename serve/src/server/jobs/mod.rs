//! Requests that outlive their connection and the process: [`Jobs`]. Read this first.
//!
//! A job is accepted once its [`Record`] is on the disk ([`Store`]); only then it goes to the engine. A
//! task follows it to its end, and tells a [`Live`] of every step, which anyone may watch. Its end and
//! its pictures are stored together, once. What has not ended when the process does is drawn by the next.

mod ask;
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

pub use ask::{Removed, Watched};
pub use error::JobsError;
pub use live::{Entry, Live, Next, Status, What};
pub use record::{Asked, End, Idempotency, Made, Mark, Picture, Record};
pub use store::{MOST_ENDED, Store, Swept};

use self::follow::task;
pub use self::time::now;
use super::scheduler::{Refusal, Scheduler, TaskHandle};
use super::settings::{Keep, Settings};
use super::spawn::blocking;

/// Name of the store in the data folder.
pub const FILE: &str = "jobs.redb";

/// A job that was begun so often without an end may be what ends the process: the others go first.
const SUSPECT: u32 = 3;
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);

/// All jobs.
pub struct Jobs {
    store: Arc<Store>,
    scheduler: Arc<Scheduler>,
    keep: Keep,
    live: Mutex<HashMap<Uuid, Arc<Live>>>,
    /// Held while a job is accepted: what is found under an idempotency key was accepted as a whole.
    accepting: tokio::sync::Mutex<()>,
    /// Whether the process is about to end.
    closing: watch::Sender<bool>,
    /// How many jobs are followed.
    followed: watch::Sender<usize>,
    /// Tells the life of a job in this process from that in others.
    life: u64,
}

impl Jobs {
    /// Opens the store in the data folder, or makes both.
    ///
    /// # Errors
    /// When the folder cannot be made, another process has the store, or it cannot be read.
    pub fn open(settings: &Settings, scheduler: Arc<Scheduler>) -> Result<Arc<Jobs>, JobsError> {
        make_private(&settings.data_dir)?;
        let store = Store::open(&settings.data_dir.join(FILE))?;
        Ok(Arc::new(Jobs {
            store: Arc::new(store),
            scheduler,
            keep: settings.keep,
            live: Mutex::default(),
            accepting: tokio::sync::Mutex::default(),
            closing: watch::Sender::new(false),
            followed: watch::Sender::new(0),
            life: now(),
        }))
    }

    /// Gives the engine what earlier processes have left, in its order, and keeps the store within its
    /// bounds from now on. In a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(self: &Arc<Self>) -> Result<(), JobsError> {
        if let Err(error) = self.store.sweep(now(), self.keep, MOST_ENDED) {
            error!(%error, "what is too old could not be taken away");
        }
        let pending = in_turn(self.store.pending()?);
        let total = pending.len();
        for record in pending {
            if let Some((code, message)) = self.unfit(&record) {
                warn!(job = %record.id, code, message, "cannot be drawn any more");
                let failed = End::Failed { code: code.to_string(), message };
                if let Err(error) = self.store.end(record.id, now(), &failed, &[]) {
                    error!(job = %record.id, %error, "its end was not stored");
                }
            } else if let Ok(handle) = self.scheduler.resubmit(task(&record)) {
                self.begin(record, handle);
            }
        }
        if total > 0 {
            info!(jobs = total, "left by an earlier process");
        }
        tokio::spawn(keep_swept(Arc::downgrade(self)));
        Ok(())
    }

    /// For the end of the process, after [`Scheduler::drain`]: comes back when no job is followed any more. Those
    /// that ran have ended and are stored, if that can be done; the others are left to the next process.
    pub async fn idle(&self) {
        self.closing.send_replace(true);
        let mut followed = self.followed.subscribe();
        followed.wait_for(|jobs| *jobs == 0).await.expect("this value holds the sender");
    }

    /// Why a job that was accepted by an earlier process cannot be drawn by this one.
    fn unfit(&self, record: &Record) -> Option<(&'static str, String)> {
        let asked = &record.asked;
        match self.scheduler.model(Some(&asked.model)) {
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

    fn begin(self: &Arc<Self>, record: Record, handle: TaskHandle) {
        let id = record.id;
        let live = Arc::new(Live::new(record, self.life));
        self.lock().insert(id, live.clone());
        self.followed.send_modify(|jobs| *jobs += 1);
        let (jobs, watched) = (self.clone(), live.clone());
        let following = tokio::spawn(async move { jobs.follow(&watched, handle).await });
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

/// In the order they were accepted, but for those that may be what ends the process.
fn in_turn(mut pending: Vec<Record>) -> Vec<Record> {
    pending.sort_by_key(|record| (record.starts >= SUSPECT, record.number));
    pending
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

#[cfg(test)]
mod tests {
    use super::store::tests::record;
    use super::*;

    #[test]
    fn a_job_that_may_end_the_process_lets_the_others_go_first() {
        let starts = [0, SUSPECT, SUSPECT - 1, SUSPECT + 4, 0];
        let job = |(number, starts)| Record { number, starts, ..record("ann") };
        let jobs = in_turn((0..).zip(starts).map(job).collect());
        let numbers: Vec<u64> = jobs.iter().map(|job| job.number).collect();
        assert_eq!(numbers, [0, 2, 4, 1, 3]);
    }
}
