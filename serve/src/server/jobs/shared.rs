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
use crate::server::clock::now;
use crate::server::scheduler::Scheduler;
use crate::server::settings::{Keep, Settings};
use crate::server::spawn::blocking;

/// Name of the store in the data folder.
const FILE: &str = "jobs.redb";

/// All jobs of a server.
pub struct Jobs {
    pub(super) store: Arc<Store>,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) keep: Keep,
    /// The feeds of the jobs under way.
    pub(super) live: Mutex<HashMap<Uuid, Arc<JobFeed>>>,
    /// Held while a job is accepted, so that an idempotency key is looked up and used as one act.
    pub(super) accepting: tokio::sync::Mutex<()>,
    /// Whether the process is about to end.
    pub(super) closing: watch::Sender<bool>,
    /// Number of jobs that a tokio task follows.
    pub(super) followed: watch::Sender<usize>,
    /// Tells the runs of jobs in this process from those in others.
    pub(super) epoch: u64,
}
    /// Number of jobs that have ended but whose end could not be stored so far.
    pub(super) unstored: watch::Sender<usize>,

impl Jobs {
    /// Opens the store in the data folder, or makes both.
    ///
    /// # Errors
    /// When the folder cannot be made, another process has the store open, or it cannot be read.
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
            epoch: Uuid::new_v4().as_u64_pair().0,
        }))
    }

    /// Waits until no job is followed any more, as happens after [`Scheduler::drain`]. Jobs that
    /// ran have ended and are stored, if that is possible; the others are left to the next process.
            unstored: watch::Sender::new(0),
    pub async fn idle(&self) {
        self.closing.send_replace(true);
        let mut followed = self.followed.subscribe();
        followed.wait_for(|jobs| *jobs == 0).await.expect("this value holds the sender");
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


    /// Forgets what is too old or too much.
    pub(super) async fn sweep(&self) {
        let keep = self.keep;
        match self.stored(move |store| store.sweep(now(), keep, MOST_ENDED)).await {
            Ok(Swept { jobs: 0, images: 0 }) => {}
            Ok(Swept { jobs, images }) => info!(jobs, pictures = images, "no longer kept"),
            Err(error) => error!(%error, "what is too old could not be removed"),
        }
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

/// Makes a folder that only this user may look into.
    /// Milliseconds of Unix time.
    pub(super) fn now(&self) -> u64 {
        self.scheduler.clock().unix()
    }

fn make_private(folder: &Path) -> Result<(), JobsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| JobsError::Folder { path: folder.to_path_buf(), source })
}
