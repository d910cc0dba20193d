//! What every request handler can reach.

use std::sync::Arc;

use super::clock::Clock;
use super::error::ServeError;
use super::jobs::Jobs;
use super::metrics;
use super::scheduler::Scheduler;
use super::settings::Settings;

/// The parts of a server below HTTP.
pub struct App {
    /// How the server was configured.
    pub settings: Settings,
    /// Draws images.
    pub scheduler: Arc<Scheduler>,
    /// Keeps jobs.
    pub jobs: Arc<Jobs>,
}

impl App {
    /// Opens models and jobs, starts the workers, and submits the jobs that an earlier process has
    /// left. To be called in a tokio runtime. Models are loaded in the background: see
    /// [`Scheduler::started`]. Deadlines and ages are counted by `clock`.
    ///
    /// # Errors
    /// When a model or the data folder cannot be used.
    pub fn open(settings: Settings, clock: Clock) -> Result<Arc<App>, ServeError> {
        metrics::start();
        let scheduler = Scheduler::start(&settings, clock)?;
        let jobs = Jobs::open(&settings, Arc::clone(&scheduler))?;
        jobs.restore()?;
        Ok(Arc::new(App { settings, scheduler, jobs }))
    }
}
