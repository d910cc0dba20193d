//! A job's events as they happen.
//!
//! Who reads holds nothing but its place in the job's own log, however slowly it reads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::error::ErrorBody;
use super::super::openapi::SentEvent;
use super::super::path::Path;
use super::super::{ApiError, App, Client};
use super::job_id;
use super::view::JobView;
use crate::server::jobs::{Entry, Live, Mark, Next, Status, Watched, What};

/// Where a reader was when its connection was lost.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The id of a job's last event.
const END: &str = "end";
/// Between two looks at the place in the queue.
const LOOK: Duration = Duration::from_millis(500);
/// Between two comments that keep a quiet connection open.
const QUIET: Duration = Duration::from_secs(10);
/// How long readers wait before they connect again.
const AGAIN: Duration = Duration::from_secs(1);

/// A job's events: `queued` with its place, when that changes; `started`; `step` at every step; `preview`, if asked
/// for; and at last one of `done`, `failed` and `cancelled`, with the job. A stream that ends without one of these
/// was cut off: connect again, with the header Last-Event-ID. A job that still goes on tells all that came after that
/// event, but for previews, of which the latest are kept; one that another process draws anew is told from its start; one
/// that has ended meanwhile tells its end only.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job's id.", format = "uuid"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was read: go on from there."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = SentEvent, content_type = "text/event-stream"),
        (status = 204, description = "By its Last-Event-ID the reader has read all: do not connect again."),
        (status = 404, description = "There is no such job, or it is another key's.", body = ErrorBody),
        (status = 503, description = "The jobs cannot be read.", body = ErrorBody),
    ))]
pub async fn events(
    State(app): State<Arc<App>>,
    Extension(Client(client)): Extension<Client>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let watched = app.jobs.watch(&client, job_id(&id)?).await?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    if last == END {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = match watched {
        Watched::Over(status) => Reader::Ended(Some(status)),
        Watched::Live(live) => {
            let read = last.split_once('-').filter(|(life, _)| *life == live.life.to_string());
            let number = read.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
            Reader::Live(Box::new(Reading::new(app, live, number)))
        }
    };
    let events = stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let again = stream::iter([Ok(Event::default().retry(AGAIN))]);
    let mut response =
        Sse::new(again.chain(events)).keep_alive(KeepAlive::new().interval(QUIET)).into_response();
    // Proxies that gather answers would hold the events back.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    Ok(response)
}

/// Who reads a job's events.
enum Reader {
    Live(Box<Reading>),
    Ended(Option<Box<Status>>),
}

/// Who reads them as they happen.
struct Reading {
    app: Arc<App>,
    live: Arc<Live>,
    changes: watch::Receiver<()>,
    /// Number of the last entry that was sent.
    number: u64,
    /// The place in the queue that was sent.
    told: Option<Option<usize>>,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        match self {
            Reader::Ended(status) => end(*status.take()?),
            Reader::Live(reading) => match reading.next().await {
                Some(event) => Some(event),
                None => {
                    let status = reading.live.status();
                    *self = Reader::Ended(None);
                    end(status)
                }
            },
        }
    }
}

impl Reading {
    fn new(app: Arc<App>, live: Arc<Live>, number: u64) -> Reading {
        let changes = live.changes();
        Reading { app, live, changes, number, told: None }
    }

    /// The next event before the last one.
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.changes.borrow_and_update();
            match self.live.after(self.number) {
                Next::Over => return None,
                Next::Entry(entry) => {
                    self.number = entry.number;
                    let total = self.live.status().record.asked.steps;
                    return Some(entry_event(&entry, self.live.life, total));
                }
                Next::NotYet => {}
            }
            let status = self.app.jobs.placed(self.live.status());
            if !status.running && self.told != Some(status.position) {
                self.told = Some(status.position);
                return Some(event("queued", json!({ "position": status.position })));
            }
            let changed = self.changes.changed();
            if status.running {
                changed.await.ok()?;
            } else if let Ok(gone) = tokio::time::timeout(LOOK, changed).await {
                gone.ok()?;
            }
        }
    }
}

fn entry_event(entry: &Entry, life: u64, steps: usize) -> Event {
    let event = match &*entry.what {
        What::Started => event("started", json!({ "steps": steps })),
        What::Step { step, mark, core_runs } => {
            let refreshed = *mark == Mark::Refresh;
            let data = json!({
                "step": step,
                "steps": steps,
                "refreshed": refreshed,
                "mark": mark,
                "core_runs": core_runs,
            });
            event("step", data)
        }
        What::Preview { step, images } => {
            let images: Vec<String> = images.iter().map(|png| STANDARD.encode(png)).collect();
            event("preview", json!({ "step": step, "steps": steps, "images": images }))
        }
    };
    event.id(format!("{life}-{}", entry.number))
}

/// The last event; there is none if the job goes on in another process.
fn end(status: Status) -> Option<Event> {
    let name = status.record.end.as_ref()?.name();
    let job =
        serde_json::to_value(JobView::of(status)).expect("strings and numbers are valid JSON");
    Some(event(name, json!({ "job": job })).id(END))
}

fn event(name: &str, data: Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
