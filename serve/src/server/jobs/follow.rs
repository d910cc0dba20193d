//! From an accepted job to its end: a task each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Jobs;
use super::live::Live;
use super::record::{End, Made, Picture, Record};
use super::time::now;
use crate::server::http::Figures;
use crate::server::scheduler::{Failure, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::server::spawn::blocking;
use hydit::image::{Image, encode_png};
use hydit::request::Request;

/// Before a job that an engine has let fall is tried again: the engine starts again meanwhile.
const REST: Duration = Duration::from_secs(1);
/// How often a job is tried whose engine failed while it was drawn.
const TRIES: usize = 2;
/// Before each further try to store what could not be stored; then as the last.
const STORE_AGAIN: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// How the drawing of a job went.
enum Outcome {
    Drawn(Box<TaskOutput>),
    Failed(Failure),
    /// Its client has cancelled it meanwhile.
    Over,
}

impl Jobs {
    /// Sees a job to its end, or leaves it to the next process.
    pub(super) async fn follow(&self, live: &Live, mut handle: TaskHandle) {
        let mut tries = 0;
        loop {
            let outcome = self.watch_over(live, &mut handle).await;
            // Before the next one: its order has the same id.
            drop(handle);
            match outcome {
                Outcome::Over => return,
                Outcome::Drawn(drawn) => return self.keep(live, *drawn).await,
                Outcome::Failed(Failure::Draining | Failure::Cancelled) => return live.leave(),
                Outcome::Failed(Failure::Worker(why)) => {
                    tries += usize::from(live.status().running);
                    if tries >= TRIES {
                        return self.fail(live, "engine_failed", why).await;
                    }
                    warn!(job = %live.status().record.id, why, "is tried again");
                    live.wait_again();
                    tokio::time::sleep(REST).await;
                    let again = Task { no_batching: true, ..task(&live.status().record) };
                    match self.scheduler.resubmit(again) {
                        Ok(again) => handle = again,
                        Err(_) => return live.leave(), // shutting down
                    }
                }
                Outcome::Failed(failure @ Failure::Expired) => {
                    return self.fail(live, "deadline_exceeded", failure.to_string()).await;
                }
                Outcome::Failed(Failure::Draw(why)) => {
                    return self.fail(live, "drawing_failed", why).await;
                }
            }
        }
    }

    async fn watch_over(&self, live: &Live, handle: &mut TaskHandle) -> Outcome {
        loop {
            let event = tokio::select! {
                biased;
                () = live.over() => return Outcome::Over,
                event = handle.next() => event,
            };
            match event {
                Some(TaskEvent::Started) => {
                    let id = live.status().record.id;
                    live.start(now());
                    if let Err(error) = self.stored(move |store| store.begun(id, now())).await {
                        warn!(job = %id, %error, "its start was not stored");
                    }
                }
                Some(TaskEvent::Step(step)) => live.step(step),
                Some(TaskEvent::Preview { steps, images }) => {
                    if let Some(files) = blocking(move || small(&images)).await {
                        live.preview(steps, files);
                    }
                }
                Some(TaskEvent::Partial { .. }) => {}
                Some(TaskEvent::Done(drawn)) => return Outcome::Drawn(drawn),
                Some(TaskEvent::Failed(failure)) => return Outcome::Failed(failure),
                None => return Outcome::Failed(Failure::Worker("its thread ended".to_string())),
            }
        }
    }

    /// Stores the pictures, then tells.
    async fn keep(&self, live: &Live, drawn: TaskOutput) {
        let record = live.status().record;
        let artifacts = match self.scheduler.model(Some(&record.asked.model)) {
            Ok((_, artifacts)) => artifacts.clone(),
            Err(refusal) => return self.fail(live, "model_gone", refusal.to_string()).await,
        };
        let encoded = blocking(move || {
            let request = record.asked.request().map_err(|error| error.to_string())?;
            let files = record.asked.output.encode(&drawn.images, &artifacts, &request);
            let files = files.map_err(|error| error.to_string())?;
            Ok::<_, String>((made(&record, &request, &drawn, &files), files))
        });
        match encoded.await {
            Ok((made, files)) => self.end(live, End::Done(made), files).await,
            Err(why) => self.fail(live, "encoding_failed", why).await,
        }
    }

    /// Ends a job without pictures.
    pub(super) async fn fail(&self, live: &Live, code: &str, message: String) {
        self.end(live, End::Failed { code: code.to_string(), message }, Vec::new()).await;
    }

    /// Stores how a job ended, then tells. Where it cannot be stored, tries until there is room on the disk
    /// or the server ends: the next process draws it again.
    async fn end(&self, live: &Live, end: End, files: Vec<Vec<u8>>) {
        let id = live.status().record.id;
        let (end, files) = (Arc::new(end), Arc::new(files));
        let mut pauses = STORE_AGAIN.into_iter();
        let mut pause = STORE_AGAIN[0];
        loop {
            let (end, files) = (end.clone(), files.clone());
            let error = match self.stored(move |store| store.end(id, now(), &end, &files)).await {
                Ok(Some(record)) => {
                    info!(job = %id, end = record.end.as_ref().map(End::name), "ended");
                    return live.end(record);
                }
                Ok(None) => return live.leave(),
                Err(error) => error,
            };
            error!(job = %id, %error, "its end was not stored: trying again");
            pause = pauses.next().unwrap_or(pause);
            let mut closing = self.closing.subscribe();
            let closed = closing.wait_for(|closing| *closing);
            if tokio::time::timeout(pause, closed).await.is_ok() {
                return live.leave();
            }
        }
    }
}

/// The order of a job.
pub(super) fn task(record: &Record) -> Task {
    let asked = &record.asked;
    let left = |at: u64| Instant::now() + Duration::from_millis(at.saturating_sub(now()));
    Task {
        id: record.id.to_string(),
        model: asked.model.clone(),
        request: asked.request().expect("it was read when the job was accepted or restored"),
        client: record.client.as_str().into(),
        deadline: asked.deadline.map(left),
        preview_every: asked.preview_every,
        partial_images: 0,
        no_batching: false,
    }
}

fn made(record: &Record, request: &Request, drawn: &TaskOutput, files: &[Vec<u8>]) -> Made {
    let picture = |(seed, file): (u64, &Vec<u8>)| Picture::new(seed, file);
    Made {
        pictures: (record.asked.seed..).zip(files).map(picture).collect(),
        dropped: false,
        marks: drawn.plan.iter().map(|decision| (*decision).into()).collect(),
        figures: Figures::new(&record.asked.model, request, drawn),
    }
}

/// Previews as PNG files.
fn small(images: &[Image]) -> Option<Vec<Vec<u8>>> {
    images.iter().map(|image| encode_png(image, &[]).ok()).collect()
}
