//! All jobs of a server: the store, and the jobs under way.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{error, info};
use uuid::Uuid;

use super::error::JobsError;
use super::feed::JobFeed;
use super::store::{MOST_ENDED, Store, Swept};
use crate::server::clock::Time;
use crate::server::scheduler::Scheduler;
use crate::server::settings::{Keep, Settings};
use crate::server::spawn::blocking;

/// Name of the store in the data folder.
const FILE: &str = "jobs.redb";

/// A clock that is off by more milliseconds than this was set.
const SET: u64 = 10_000;

/// All jobs of a server.
pub struct Jobs {
    pub(super) store: Arc<Store>,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) keep: Keep,
    /// When the store was last swept.
    swept: Mutex<Time>,
    /// The feeds of the jobs under way.
    pub(super) live: Mutex<HashMap<Uuid, Arc<JobFeed>>>,
    /// Held while a job is accepted, so that an idempotency key is looked up and used as one act.
    pub(super) accepting: tokio::sync::Mutex<()>,
    /// Whether the process is about to end.
    pub(super) closing: watch::Sender<bool>,
    /// Number of jobs that have ended but whose end could not be stored so far.
    pub(super) unstored: watch::Sender<usize>,
    /// Number of jobs that a tokio task follows.
    pub(super) followed: watch::Sender<usize>,
    /// Tells the runs of jobs in this process from those in others.
    pub(super) epoch: u64,
}

impl Jobs {
    /// Opens the store in the data folder, or makes both.
    ///
    /// # Errors
    /// When the folder cannot be made, another process has the store open, or it cannot be read.
    pub fn open(settings: &Settings, scheduler: Arc<Scheduler>) -> Result<Arc<Jobs>, JobsError> {
        make_private(&settings.data_dir)?;
        let now = scheduler.clock().now();
        let store = Store::open(&settings.data_dir.join(FILE))?;
        Ok(Arc::new(Jobs {
            store: Arc::new(store),
            scheduler,
            keep: settings.keep,
            swept: Mutex::new(now),
            live: Mutex::default(),
            accepting: tokio::sync::Mutex::default(),
            closing: watch::Sender::new(false),
            unstored: watch::Sender::new(0),
            followed: watch::Sender::new(0),
            epoch: Uuid::new_v4().as_u64_pair().0,
        }))
    }

    /// Whether jobs are accepted and begun, as far as the store goes.
    ///
    /// # Errors
    /// Why not, for clients.
    pub fn ready(&self) -> Result<(), &'static str> {
        match *self.unstored.borrow() {
            0 => Ok(()),
            _ => Err("jobs that have ended cannot be stored, perhaps because the disk is full"),
        }
    }

    /// Waits until no job is followed any more, as happens after [`Scheduler::drain`]. Jobs that
    /// ran have ended and are stored, if that is possible; the others are left to the next process.
    pub async fn idle(&self) {
        self.closing.send_replace(true);
        let mut followed = self.followed.subscribe();
        followed.wait_for(|jobs| *jobs == 0).await.expect("this value holds the sender");
    }

    /// Forgets what is too old or too much, on a thread where that may block.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let jobs = self.clone();
        blocking(move || jobs.sweep_now()).await;
    }

    /// Forgets what is too old or too much.
    pub(super) fn sweep_now(&self) {
        let now = self.scheduler.clock().now();
        let before = std::mem::replace(&mut *self.swept.lock(), now);
        let redated = self.store.redate(|end| redated(end, before, now));
        let swept =
            redated.and_then(|()| self.store.sweep(now.unix, self.keep, self.life(), MOST_ENDED));
        match swept {
            Ok(Swept { jobs: 0, images: 0, lent: 0 }) => {}
            Ok(Swept { jobs, images, lent }) => {
                info!(jobs, pictures = images, lent, "no longer kept");
            }
            Err(error) => error!(%error, "what is too old could not be removed"),
        }
    }

    /// Milliseconds of Unix time.
    pub(super) fn now(&self) -> u64 {
        self.scheduler.clock().unix()
    }

    /// Uses the store on a thread where that may block.
    pub(super) async fn stored<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<R, JobsError> + Send + 'static,
    ) -> Result<R, JobsError> {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }

    /// The feed of a job under way.
    pub(super) fn feed(&self, id: Uuid) -> Option<Arc<JobFeed>> {
        self.live.lock().get(&id).cloned()
    }
}

/// A time by the system's clock that was `end` when the store was swept `before`, as it is `now`:
/// with a clock that was set forward meanwhile it goes along, so that nothing is older than the
/// time that has passed; and nothing has ended in the future of one that was set back.
fn redated(end: u64, before: Time, now: Time) -> u64 {
    let passed = now.instant.saturating_duration_since(before.instant).as_millis();
    let unset = before.unix.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
    let forward = now.unix.saturating_sub(unset);
    let goes_along = forward > SET && end <= unset;
    if goes_along { end + forward } else { end }.min(now.unix)
}

/// Makes a folder that only this user may look into.
fn make_private(folder: &Path) -> Result<(), JobsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| JobsError::Folder { path: folder.to_path_buf(), source })
}
