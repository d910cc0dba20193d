//! From an accepted job to its end, in a tokio task for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::CheckedRequest;
use hydit::image::{Image, encode_png};
use tracing::{error, info, warn};

use super::feed::JobFeed;
use super::record::{JobOutcome, JobRecord, JobResult, StoredImage};
use super::shared::Jobs;
use crate::server::clock::now;
use crate::server::figures::Figures;
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
}

impl Jobs {
    /// Follows a job until it has ended, or leaves it to the next process. To be called once for
    /// each.
    pub(super) fn begin(
        self: &Arc<Self>,
        record: JobRecord,
        request: CheckedRequest,
        handle: TaskHandle,
    ) {
        let id = record.id;
        let feed = Arc::new(JobFeed::new(record, self.epoch));
        self.live.lock().insert(id, feed.clone());
        self.followed.send_modify(|jobs| *jobs += 1);
        let (jobs, followed) = (self.clone(), feed.clone());
        let following = tokio::spawn(async move { jobs.follow(&followed, request, handle).await });
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

    async fn follow(&self, feed: &JobFeed, request: CheckedRequest, mut handle: TaskHandle) {
        let mut tries = 0;
        loop {
            let end = self.receive_events(feed, &mut handle).await;
            // Before the next task, which has the same id: dropping the handle cancels that id.
            drop(handle);
            match end {
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
                    let again = Task {
                        no_batching: true,
                        ..task(&feed.snapshot().record, request.clone())
                    };
                    match self.scheduler.resubmit(again) {
                        Ok(again) => handle = again,
                        Err(_) => return feed.leave(), // the server is shutting down
                    }
                }
                TaskEnd::Failed(failure @ Failure::Expired) => {
                    return self.fail(feed, "deadline_exceeded", failure.to_string()).await;
                }
                TaskEnd::Failed(Failure::Draw(Told { code, message })) => {
                    return self.fail(feed, code, message).await;
                }
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
                Some(TaskEvent::Started) => {
                    let id = feed.snapshot().record.id;
                    feed.start(now());
                    if let Err(error) = self.stored(move |store| store.begun(id, now())).await {
                        warn!(job = %id, %error, "its start was not stored");
                    }
                }
                Some(TaskEvent::Step(step)) => feed.step(step),
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
            let files = spec.output.encode(&output.images, &artifacts, &spec.request)?;
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
    /// there is room on the disk or the server ends: then the next process draws the job anew.
    async fn end(&self, feed: &JobFeed, outcome: JobOutcome, files: Vec<Vec<u8>>) {
        let id = feed.snapshot().record.id;
        let end = Arc::new((outcome, files));
        let mut pauses = STORE_AGAIN.into_iter();
        let mut pause = STORE_AGAIN[0];
        loop {
            let stored = end.clone();
            let error = match self.stored(move |s| s.end(id, now(), &stored.0, &stored.1)).await {
                Ok(Some(record)) => {
                    info!(job = %id, end = record.outcome.as_ref().map(JobOutcome::name), "ended");
                    return feed.end(record);
                }
                Ok(None) => return feed.leave(),
                Err(error) => error,
            };
            error!(job = %id, %error, "its end was not stored: trying again");
            pause = pauses.next().unwrap_or(pause);
            let mut closing = self.closing.subscribe();
            let closed = closing.wait_for(|closing| *closing);
            if tokio::time::timeout(pause, closed).await.is_ok() {
                return feed.leave();
            }
        }
    }
}

/// The task that draws a job, whose request is `request`.
pub fn task(record: &JobRecord, request: CheckedRequest) -> Task {
    let spec = &record.spec;
    Task {
        id: record.id.to_string(),
        model: spec.model.clone(),
        request,
        client: record.client.as_str().into(),
        deadline: spec
            .deadline
            .map(|at| Instant::now() + Duration::from_millis(at.saturating_sub(now()))),
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
        plan: output.plan.iter().map(|decision| (*decision).into()).collect(),
        figures: Figures::new(&spec.model, &spec.request, output),
    }
}

/// Previews as PNG files.
fn png_files(images: &[Image]) -> Option<Vec<Vec<u8>>> {
    images.iter().map(|image| encode_png(image, &[]).ok()).collect()
}
