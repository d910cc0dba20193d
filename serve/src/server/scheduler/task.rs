//! What goes into the scheduler and what comes out of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::cache::Decision;
use hydit::image::Image;
use hydit::{CheckedRequest, Step};
use tokio::sync::mpsc::UnboundedSender;

use crate::server::metrics::{self, TaskOutcome};
use crate::server::told::Told;

/// A request for images, with how it is to be scheduled.
#[derive(Clone, Debug)]
pub struct Task {
    /// Names the task in logs; unique among the tasks that wait or run.
    pub id: String,
    /// Name of the model that draws it.
    pub model: String,
    /// What to draw, checked against that model.
    pub request: CheckedRequest,
    /// Owner of the task: the queue gives clients turns.
    pub client: Arc<str>,
    /// The task ends with [`Failure::Expired`] at this time.
    pub deadline: Option<Instant>,
    /// Steps between two small previews; none are made without it.
    pub preview_every: Option<usize>,
    /// Number of full-size images of the first picture that are sent on the way.
    pub partial_images: usize,
    /// Never drawn in a batch with others, so that it cannot break them.
    pub no_batching: bool,
}

/// What a task's client is told while it waits and runs, in this order. [`TaskEvent::Done`] or
/// [`TaskEvent::Failed`] is the last.
#[derive(Clone, Debug)]
pub enum TaskEvent {
    /// A worker has begun the task.
    Started,
    /// A denoising step is done.
    Step {
        /// The step.
        step: Step,
        /// Time since the step before, or since the prompts were read.
        took: Duration,
    },
    /// What the latents look like, as one small image per picture: a pixel per latent position.
    Preview {
        /// Steps done so far.
        steps: usize,
        /// One image for each picture of the request.
        images: Vec<Image>,
    },
    /// The first picture as this step predicts it, decoded at full size.
    Partial {
        /// Number of this partial image, counted from 0.
        index: usize,
        /// The image, of the requested size.
        image: Image,
    },
    /// The task has succeeded.
    Done(Box<TaskOutput>),
    /// The task has ended without images.
    Failed(Failure),
}

/// The images of a finished task and how they came about.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOutput {
    /// Image i was drawn with the request's seed plus i.
    pub images: Vec<Image>,
    /// The cache policy's decision at each step.
    pub plan: Vec<Decision>,
    /// What each step took; empty where another machine drew.
    pub took: Vec<Duration>,
    /// Time from submission until a worker began.
    pub queued: Duration,
    /// Time from then until the images were decoded.
    pub drawing: Duration,
    /// Names of the prompts that were longer than the text encoders read.
    pub truncated: Vec<&'static str>,
}

/// Why the scheduler did not accept a task.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The task names a model that is not served.
    #[error(
        "there is no model {name:?}; there is {known}; the server's --model-alias NAME=MODEL adds names"
    )]
    UnknownModel {
        /// The name in the task.
        name: String,
        /// Names of the models that are served, aliases too.
        known: String,
    },
    /// The queue is full.
    #[error("the queue is full ({waiting} waiting); try again in {} s", retry_after.as_secs())]
    Full {
        /// Number of waiting tasks.
        waiting: usize,
        /// Expected time until there is room.
        retry_after: Duration,
    },
    /// The client's share of the queue is full.
    #[error("per-key queue limit reached ({waiting}); try again in {} s", retry_after.as_secs())]
    Share {
        /// Number of waiting tasks of this client.
        waiting: usize,
        /// Expected time until there is room.
        retry_after: Duration,
    },
    /// The scheduler is starting or draining, or no worker is alive.
    #[error("{why}; try again in {} s", retry_after.as_secs())]
    Unready {
        /// What the client is told.
        why: &'static str,
        /// When to ask again.
        retry_after: Duration,
    },
}

/// Why an accepted task ended without images.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Its client cancelled it or went away.
    #[error("cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the deadline passed before the picture was done")]
    Expired,
    /// The server shut down before a worker began it, or cut it off.
    #[error("the server is shutting down")]
    Draining,
    /// The worker's thread ended, or one of its graph calls does not return: which, for clients.
    #[error("the engine failed: {0}; the server's log says why")]
    Worker(&'static str),
    /// Drawing it failed.
    #[error("{}", .0.message)]
    Draw(Told),
}

/// Sends the last event of a task and counts how it ended.
pub fn finish(events: &UnboundedSender<TaskEvent>, last: TaskEvent) {
    metrics::task(match &last {
        TaskEvent::Failed(Failure::Cancelled) => TaskOutcome::Cancelled,
        TaskEvent::Failed(Failure::Expired) => TaskOutcome::Expired,
        TaskEvent::Failed(Failure::Draining) => TaskOutcome::Drained,
        TaskEvent::Failed(_) => TaskOutcome::Failed,
        _ => TaskOutcome::Done,
    });
    let _ = events.send(last); // a client that has gone away needs no event
}
