//! From an accepted job to its end, in a tokio task for each.

use std::sync::Arc;
use std::time::Duration;

use hydit::CheckedRequest;
use hydit::image::{Image, encode_png};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::feed::JobFeed;
use super::record::{JobOutcome, JobRecord, JobResult, StepKind, StoredImage};
use super::shared::Jobs;
use crate::server::clock::Time;
use crate::server::figures::Figures;
use crate::server::metrics;
use crate::server::scheduler::{Failure, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::server::spawn::blocking;
use crate::server::told::Told;

/// Time before a job whose worker failed is tried again; the worker starts anew meanwhile.
const REST: Duration = Duration::from_secs(1);
/// How often a job is tried whose worker fails while drawing it.
const TRIES: usize = 2;
/// Times before each further try to store an end that could not be stored. The last one repeats.
const STORE_AGAIN: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// How the task of a job ended.
enum TaskEnd {
    Done(Box<TaskOutput>),
    Failed(Failure),
    /// The job's client has cancelled it.
    Cancelled,
    /// It was not drawn, because the ends of others cannot be stored.
    Postponed,
}

/// Counts a job whose end could not be stored so far.
struct Unstored<'a>(&'a watch::Sender<usize>);

impl Jobs {
    /// Has a job drawn and follows it until it has ended, or leaves it to the next process. To be
    /// called once for each.
    pub(super) fn begin(self: &Arc<Self>, record: JobRecord, request: CheckedRequest) {
        let task = task(&record, request, self.scheduler.clock().now());
        // It is promised by now: beyond the queue's bounds or, if need be, to the next process.
        let Ok(handle) = self.scheduler.resubmit(task.clone()) else { return };
        self.track(record, |jobs, feed| async move { jobs.follow(&feed, task, handle).await });
    }

    /// Ends a job that cannot be drawn.
    pub(super) fn refuse(self: &Arc<Self>, record: JobRecord, code: &'static str, why: String) {
        self.track(record, |jobs, feed| async move { jobs.fail(&feed, code, why).await });
    }

    /// Counts a job among those under way until `work` has ended it or left it.
    fn track<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        record: JobRecord,
        work: impl FnOnce(Arc<Jobs>, Arc<JobFeed>) -> F,
    ) {
        let id = record.id;
        let feed = Arc::new(JobFeed::new(record, self.epoch));
        self.live.lock().insert(id, feed.clone());
        self.followed.send_modify(|jobs| *jobs += 1);
        let following = tokio::spawn(work(self.clone(), feed.clone()));
        let jobs = self.clone();
        tokio::spawn(async move {
            if following.await.is_err_and(|error| error.is_panic()) {
                let message = "internal error; see the server's log".to_string();
                jobs.fail(&feed, "internal_error", message).await;
            }
            jobs.live.lock().remove(&id);
            jobs.sweep().await;
            jobs.followed.send_modify(|jobs| *jobs -= 1);
        });
    }

    async fn follow(&self, feed: &JobFeed, mut task: Task, mut handle: TaskHandle) {
        let mut tries = 0;
        loop {
            let end = self.receive_events(feed, &mut handle).await;
            // Before the next task, which has the same id: dropping the handle cancels that id.
            drop(handle);
            match end {
                TaskEnd::Postponed => tokio::select! {
                    () = self.all_stored() => {}
                    () = feed.over() => return,
                    () = self.closed() => return feed.leave(),
                },
                TaskEnd::Cancelled => return,
                TaskEnd::Done(output) => return self.finish(feed, *output).await,
                TaskEnd::Failed(Failure::Draining | Failure::Cancelled) => return feed.leave(),
                TaskEnd::Failed(Failure::Worker(why)) => {
                    tries += usize::from(feed.snapshot().running);
                    if tries >= TRIES {
                        let message = Failure::Worker(why).to_string();
                        return self.fail(feed, "engine_failed", message).await;
                    }
                    warn!(job = %feed.snapshot().record.id, why, "is tried again");
                    feed.wait_again();
                    tokio::time::sleep(REST).await;
                    task.no_batching = true;
                }
                TaskEnd::Failed(failure @ Failure::Expired) => {
                    return self.fail(feed, "deadline_exceeded", failure.to_string()).await;
                }
                TaskEnd::Failed(Failure::Draw(Told { code, message })) => {
                    return self.fail(feed, code, message).await;
                }
            }
            match self.scheduler.resubmit(task.clone()) {
                Ok(again) => handle = again,
                Err(_) => return feed.leave(), // the server is shutting down
            }
        }
    }

    async fn receive_events(&self, feed: &JobFeed, handle: &mut TaskHandle) -> TaskEnd {
        loop {
            let event = tokio::select! {
                biased;
                () = feed.over() => return TaskEnd::Cancelled,
                event = handle.next() => event,
            };
            match event {
                // Its images would only wait in memory.
                Some(TaskEvent::Started) if self.ready().is_err() => return TaskEnd::Postponed,
                Some(TaskEvent::Started) => {
                    let id = feed.snapshot().record.id;
                    let now = self.now();
                    feed.start(now);
                    if let Err(error) = self.stored(move |store| store.begun(id, now)).await {
                        warn!(job = %id, %error, "its start was not stored");
                    }
                }
                Some(TaskEvent::Step { step, took }) => feed.step(step, took),
                Some(TaskEvent::Preview { steps, images }) => {
                    if let Some(files) = blocking(move || png_files(&images)).await {
                        feed.preview(steps, files);
                    }
                }
                Some(TaskEvent::Partial { .. }) => {}
                Some(TaskEvent::Done(output)) => return TaskEnd::Done(output),
                Some(TaskEvent::Failed(failure)) => return TaskEnd::Failed(failure),
                None => return TaskEnd::Failed(Failure::Worker("its thread ended")),
            }
        }
    }

    /// Encodes and stores the images of a job, and ends it.
    async fn finish(&self, feed: &JobFeed, output: TaskOutput) {
        let record = feed.snapshot().record;
        let id = record.id;
        let artifacts = match self.scheduler.model(Some(&record.spec.model)) {
            Ok((_, artifacts)) => artifacts.clone(),
            Err(refusal) => return self.fail(feed, "model_gone", refusal.to_string()).await,
        };
        let encoded = blocking(move || {
            let spec = &record.spec;
            let files =
                spec.output.encode(&output.images, &artifacts, &spec.request, &output.truncated)?;
            Ok::<_, hydit::Error>((result(&record, &output, &files), files))
        });
        match encoded.await {
            Ok((result, files)) => self.end(feed, JobOutcome::Done(result), files).await,
            Err(error) => {
                let Told { code, message } = Told::of(&error, &id.to_string());
                self.fail(feed, code, message).await;
            }
        }
    }

    /// Ends a job without images.
    async fn fail(&self, feed: &JobFeed, code: &str, message: String) {
        let outcome = JobOutcome::Failed { code: code.to_string(), message };
        self.end(feed, outcome, Vec::new()).await;
    }

    /// Stores how a job ended, then tells its feed. Where it cannot be stored, tries again until
    /// there is room on the disk, the job is cancelled, or the server ends: then the next process
    /// draws the job anew. Meanwhile no other job is begun or accepted, so that no more images wait
    /// in memory than were being drawn when that was noticed.
    async fn end(&self, feed: &JobFeed, outcome: JobOutcome, files: Vec<Vec<u8>>) {
        let id = feed.snapshot().record.id;
        let end = Arc::new((outcome, files));
        let mut pauses = STORE_AGAIN.into_iter();
        let mut pause = STORE_AGAIN[0];
        let mut unstored = None;
        loop {
            let (now, stored) = (self.now(), end.clone());
            let error = match self.stored(move |s| s.end(id, now, &stored.0, &stored.1)).await {
                Ok(Some(record)) => {
                    info!(job = %id, end = record.outcome.as_ref().map(JobOutcome::name), "ended");
                    return feed.end(record);
                }
                Ok(None) => return feed.leave(),
                Err(error) => error,
            };
            error!(job = %id, %error, "its end was not stored: trying again");
            unstored.get_or_insert_with(|| Unstored::count(&self.unstored));
            pause = pauses.next().unwrap_or(pause);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = feed.over() => return,
                () = self.closed() => return feed.leave(),
            }
        }
    }

    /// Waits until the end of every job that has ended is stored.
    async fn all_stored(&self) {
        let mut unstored = self.unstored.subscribe();
        unstored.wait_for(|jobs| *jobs == 0).await.expect("this value holds the sender");
    }

    /// Waits until the process is about to end.
    async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        closing.wait_for(|closing| *closing).await.expect("this value holds the sender");
    }
}

impl Unstored<'_> {
    fn count(jobs: &watch::Sender<usize>) -> Unstored<'_> {
        jobs.send_modify(|jobs| *jobs += 1);
        metrics::unstored(*jobs.borrow());
        Unstored(jobs)
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| *jobs -= 1);
        metrics::unstored(*self.0.borrow());
    }
}

/// The task that draws a job at `now`, whose request is `request`.
fn task(record: &JobRecord, request: CheckedRequest, now: Time) -> Task {
    let JobRecord { spec, created, .. } = record;
    // Never more than the client has asked for, even if the system's clock was set back.
    let left = |at: u64| at.saturating_sub(now.unix.max(*created));
    Task {
        id: record.id.to_string(),
        model: spec.model.clone(),
        request,
        client: record.client.as_str().into(),
        deadline: spec.deadline.map(|at| now.instant + Duration::from_millis(left(at))),
        preview_every: spec.preview_every,
        partial_images: 0,
        no_batching: false,
    }
}

fn result(record: &JobRecord, output: &TaskOutput, files: &[Vec<u8>]) -> JobResult {
    let JobRecord { spec, .. } = record;
    let seeds = spec.request.seed..;
    JobResult {
        images: seeds.zip(files).map(|(seed, file)| StoredImage::new(seed, file)).collect(),
        dropped: false,
        plan: output.plan.iter().map(StepKind::from).collect(),
        step_seconds: output.took.iter().map(|took| took.as_micros() as f64 / 1e6).collect(),
        figures: Figures::new(&spec.model, &spec.request, output),
    }
}

/// Previews as PNG files.
fn png_files(images: &[Image]) -> Option<Vec<Vec<u8>>> {
    images.iter().map(|image| encode_png(image, &[]).ok()).collect()
}
