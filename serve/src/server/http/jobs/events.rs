//! A job's events as they happen.
//!
//! A reader holds nothing but its place in the job's own log, however slowly it reads, and a text
//! that all readers share.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::error::job_id;
use super::view::JobView;
use crate::server::app::App;
use crate::server::http::base64::Base64;
use crate::server::http::error::ApiError;
use crate::server::http::guard::Client;
use crate::server::http::path::Path;
use crate::server::http::sent_events::{event, sent_events};
use crate::server::jobs::{FeedEntry, JobEvent, JobFeed, JobSnapshot, Next, StepKind, Watch};

/// Header with the id of the last event that a reader got before its connection was lost.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Id of a job's last event.
const END: &str = "end";
/// Time between two looks at the position in the queue.
const LOOK: Duration = Duration::from_millis(500);
/// Time that readers wait before they connect again.
const AGAIN: Duration = Duration::from_secs(1);

/// Streams a job's events.
pub async fn events(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let watch = app.jobs.watch(&client, job_id(&id)?).await?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    if last == END {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = match watch {
        Watch::Over(job) => Reader::Ended(Some(job)),
        Watch::Live(feed) => {
            let read = last.split_once('-').filter(|(epoch, _)| *epoch == feed.epoch.to_string());
            let number = read.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
            Reader::Live(Box::new(LiveReader::new(app, feed, number)))
        }
    };
    let events = stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((event, reader))
    });
    let again = format!("retry: {}\n\n", AGAIN.as_millis());
    Ok(sent_events(stream::iter([Bytes::from(again)]).chain(events)))
}

/// A reader of a job's events.
enum Reader {
    Live(Box<LiveReader>),
    Ended(Option<Box<JobSnapshot>>),
}

/// A reader of events that have not all happened.
struct LiveReader {
    app: Arc<App>,
    feed: Arc<JobFeed>,
    steps: usize,
    changes: watch::Receiver<()>,
    /// Number of the last entry that was sent.
    number: u64,
    /// The position in the queue that was sent last, if one was.
    sent_position: Option<Option<usize>>,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Reader::Ended(job) => end(*job.take()?),
            Reader::Live(reader) => match reader.next().await {
                Some(event) => Some(event),
                None => {
                    let job = reader.feed.snapshot();
                    *self = Reader::Ended(None);
                    end(job)
                }
            },
        }
    }
}

impl LiveReader {
    fn new(app: Arc<App>, feed: Arc<JobFeed>, number: u64) -> LiveReader {
        let (changes, steps) = (feed.changes(), feed.snapshot().record.spec.request.steps_taken());
        LiveReader { app, feed, steps, changes, number, sent_position: None }
    }

    /// The next event before the last one.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.changes.borrow_and_update();
            match self.feed.after(self.number) {
                Next::Over => return None,
                Next::Entry(entry) => {
                    self.number = entry.number;
                    return Some(entry_event(&entry, self.feed.epoch, self.steps));
                }
                Next::NotYet => {}
            }
            let job = self.app.jobs.with_position(self.feed.snapshot());
            if !job.running && self.sent_position != Some(job.position) {
                self.sent_position = Some(job.position);
                return Some(event("queued", None, &json!({ "position": job.position })));
            }
            let changed = self.changes.changed();
            if job.running {
                changed.await.ok()?;
            } else if let Ok(gone) = tokio::time::timeout(LOOK, changed).await {
                gone.ok()?;
            }
        }
    }
}

#[derive(Serialize)]
struct Preview<'a> {
    step: usize,
    steps: usize,
    images: Vec<Base64<'a>>,
}

/// The text of an entry, which all its readers share.
fn entry_event(entry: &FeedEntry, epoch: u64, steps: usize) -> Bytes {
    let id = format!("{epoch}-{}", entry.number);
    let text = entry.text.get_or_init(|| match &*entry.event {
        JobEvent::Started => event("started", Some(&id), &json!({ "steps": steps })),
        JobEvent::Step { step, kind, refreshes, took } => {
            let data = json!({
                "step": step,
                "steps": steps,
                "refreshed": *kind == StepKind::Refresh,
                "mark": kind,
                "core_runs": refreshes,
                "seconds": took.as_micros() as f64 / 1e6,
            });
            event("step", Some(&id), &data)
        }
        JobEvent::Preview { step, images } => {
            let images = images.iter().map(|png| Base64(png)).collect();
            event("preview", Some(&id), &Preview { step: *step, steps, images })
        }
    });
    text.clone()
}

/// The last event; there is none if the job goes on in another process.
fn end(job: JobSnapshot) -> Option<Bytes> {
    let name = job.record.outcome.as_ref()?.name();
    Some(event(name, Some(END), &json!({ "job": JobView::from(job) })))
}
