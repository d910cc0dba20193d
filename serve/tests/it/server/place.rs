//! The server's jobs with the emoji model, without HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::image::Format;
use hydit_serve::server::jobs::{JobOutcome, JobSnapshot, JobSpec, Jobs, JobsError};
use hydit_serve::server::scheduler::Scheduler;
use hydit_serve::server::settings::Settings;
use hydit_serve::server::{Clock, Output};
use tempfile::TempDir;

use super::harness::PATIENCE;
use super::in_process::{cat, settings, start_by};

/// A scheduler and its jobs.
pub struct Place {
    pub scheduler: Arc<Scheduler>,
    pub jobs: Arc<Jobs>,
    folder: TempDir,
}

impl Place {
    pub async fn new() -> Place {
        Place::open(Settings::default(), Clock::system()).await
    }

    /// With these settings, of which the model and the folder are replaced, and this clock.
    pub async fn open(settings: Settings, clock: Clock) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        Place::open_in(folder, settings, clock, || {}).await
    }

    /// Calls `warm` before the jobs of earlier are begun.
    async fn open_in(folder: TempDir, given: Settings, clock: Clock, warm: impl FnOnce()) -> Place {
        let data_dir = folder.path().join("data");
        let Settings { models, runtime, .. } = settings();
        let settings = Settings { models, runtime, data_dir, exact: true, ..given };
        let scheduler = start_by(&settings, clock).await;
        warm();
        let jobs = Jobs::open(&settings, scheduler.clone()).expect("it opens");
        jobs.restore().expect("its store is read");
        Place { scheduler, jobs, folder }
    }

    /// Ends it as SIGTERM does and starts it anew, with these settings and this clock; calls `warm`
    /// before the jobs of earlier are begun.
    pub async fn restart(self, settings: Settings, clock: Clock, warm: impl FnOnce()) -> Place {
        let Place { scheduler, jobs, folder } = self;
        scheduler.drain();
        tokio::join!(scheduler.idle(), jobs.idle());
        let ended = Arc::downgrade(&jobs);
        drop(jobs);
        while ended.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Place::open_in(folder, settings, clock, warm).await
    }

    pub async fn create(&self, steps: usize) -> Result<JobSnapshot, JobsError> {
        self.create_within(steps, None).await
    }

    /// A job of so many steps that is wanted within this time.
    pub async fn create_within(
        &self,
        steps: usize,
        wait: Option<Duration>,
    ) -> Result<JobSnapshot, JobsError> {
        while self.scheduler.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (name, model) = self.scheduler.model(None).expect("the model");
        let output = Output { format: Format::Png, quality: 100, metadata: false };
        let request = cat(&self.scheduler, steps);
        let checked = request.check(model).expect("a good request");
        let at = |wait: Duration| self.scheduler.clock().unix() + wait.as_millis() as u64;
        let spec = JobSpec::new(name, model, request, output);
        let asked = JobSpec { deadline: wait.map(at), ..spec };
        let (status, fresh) =
            self.jobs.create("anonymous".into(), asked, checked, None, Vec::new()).await?;
        assert!(fresh);
        Ok(status)
    }

    pub async fn now(&self, status: &JobSnapshot) -> JobSnapshot {
        self.jobs.get("anonymous", status.record.id).await.expect("it is there")
    }

    /// Waits until the job is as `wanted`.
    pub async fn until(
        &self,
        status: &JobSnapshot,
        wanted: impl Fn(&JobSnapshot) -> bool,
    ) -> JobSnapshot {
        let begun = Instant::now();
        loop {
            let now = self.now(status).await;
            if wanted(&now) {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "{now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the ends of all jobs are stored, or until that of one could not be.
    pub async fn until_stored(&self, stored: bool) {
        let begun = Instant::now();
        while self.jobs.ready().is_ok() != stored {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.jobs.ready());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn end(&self, status: &JobSnapshot) -> JobOutcome {
        self.until(status, |now| now.record.outcome.is_some()).await.record.outcome.expect("an end")
    }
}
