//! Jobs whose scheduler or disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hydit::image::Format;
use hydit_serve::server::Output;
use hydit_serve::server::jobs::{JobOutcome, JobSnapshot, JobSpec, Jobs, JobsError};
use hydit_serve::server::scheduler::Scheduler;
use hydit_serve::server::settings::Settings;
use tempfile::TempDir;

use super::in_process::{cat, settings, start, with_faults};

/// A scheduler and its jobs.
struct Place {
    scheduler: Arc<Scheduler>,
    jobs: Arc<Jobs>,
    _folder: TempDir,
}

impl Place {
    async fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("data");
        let settings = Settings { data_dir, exact: true, ..settings() };
        let scheduler = start(&settings).await;
        let jobs = Jobs::open(&settings, scheduler.clone()).expect("it opens");
        jobs.restore().expect("nothing is there");
        Place { scheduler, jobs, _folder: folder }
    }

    async fn create(&self, steps: usize) -> Result<JobSnapshot, JobsError> {
        while self.scheduler.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (name, model) = self.scheduler.model(None).expect("the model");
        let output = Output { format: Format::Png, quality: 100, metadata: false };
        let request = cat(&self.scheduler, steps);
        let checked = request.check(model).expect("a good request");
        let asked = JobSpec::new(name, model, request, output);
        let (status, fresh) = self.jobs.create("anonymous".into(), asked, checked, None).await?;
        assert!(fresh);
        Ok(status)
    }

    async fn now(&self, status: &JobSnapshot) -> JobSnapshot {
        self.jobs.get("anonymous", status.record.id).await.expect("it is there")
    }

    /// Waits until the job is as `wanted`.
    async fn until(
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
            assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(&self, status: &JobSnapshot) -> JobOutcome {
        self.until(status, |now| now.record.outcome.is_some()).await.record.outcome.expect("an end")
    }
}

#[test]
fn a_job_whose_engine_fails_is_tried_once_more() {
    with_faults(async {
        let place = Place::new().await;
        // Not in the warm-up after the restart, when it is not ready.
        let (left, watched) = (Arc::new(AtomicUsize::new(0)), place.scheduler.clone());
        let broken = left.clone();
        let fault = move || {
            let less = |left: usize| left.checked_sub(1);
            if watched.ready().is_ok() && broken.fetch_update(SeqCst, SeqCst, less).is_ok() {
                panic!("the core broke");
            }
        };
        fail::cfg_callback("core", fault).expect("a fault");

        left.store(1, SeqCst);
        let once = place.create(3).await.expect("room");
        let waits = place.create(3).await.expect("room");
        for status in [&once, &waits] {
            assert!(matches!(place.end(status).await, JobOutcome::Done(_)));
        }
        left.store(2, SeqCst);
        let twice = place.create(3).await.expect("room");
        match place.end(&twice).await {
            JobOutcome::Failed { code, message } => {
                assert_eq!(code, "engine_failed");
                let told = "the engine failed: its thread ended; the server's log says why";
                assert_eq!(message, told, "what a panic says is for the log alone");
            }
            other => panic!("{other:?}"),
        }
        let next = place.create(3).await.expect("room");
        assert!(matches!(place.end(&next).await, JobOutcome::Done(_)));
    });
}

#[test]
fn a_job_that_cannot_be_stored_waits_for_room_on_the_disk() {
    with_faults(async {
        let place = Place::new().await;
        let job = place.create(30).await.expect("room");
        fail::cfg("store", "return").expect("a fault");
        place.until(&job, |now| now.plan.len() == 30).await;
        let refused = place.create(3).await.expect_err("it cannot be kept");
        assert!(matches!(refused, JobsError::DiskFull { .. }), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(place.now(&job).await.record.outcome, None, "only what is stored is told");
        fail::cfg("store", "off").expect("no fault");
        assert!(matches!(place.end(&job).await, JobOutcome::Done(_)));

        let left = place.create(30).await.expect("room");
        fail::cfg("store", "return").expect("a fault");
        place.until(&left, |now| now.plan.len() == 30).await;
        place.scheduler.drain();
        let idle = tokio::time::timeout(Duration::from_secs(20), place.jobs.idle());
        idle.await.expect("the end does not wait for the disk");
        let left = place.now(&left).await;
        assert_eq!(
            (left.record.outcome, left.running),
            (None, false),
            "the next process draws it again"
        );
    });
}
