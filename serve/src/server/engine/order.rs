//! What goes to the engine and what comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::Request;
use hydit::Step;
use hydit::cache::Decision;
use hydit::image::Image;

/// A request for the engine, checked already.
#[derive(Clone, Debug)]
pub struct Order {
    /// Names it in logs; unique among those under way.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// What to draw.
    pub request: Request,
    /// Who asks: turns are shared out among clients.
    pub client: Arc<str>,
    /// When nobody wants the answer any more.
    pub deadline: Option<Instant>,
    /// Steps between two small previews.
    pub preview_every: Option<usize>,
    /// Whole pictures to show on the way, of the first picture.
    pub partials: usize,
    /// Not to be drawn together with others: what it may break is its own.
    pub alone: bool,
}

/// What an order's client is told, in this order; [`Event::Done`] or [`Event::Failed`] is the last.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker has begun.
    Started,
    /// A step is done.
    Step(Step),
    /// What the latents look like after so many steps: a pixel for each place of the latents, a picture each.
    Preview {
        /// Steps done.
        steps: usize,
        /// Small pictures.
        images: Vec<Image>,
    },
    /// The first picture as it would be if the prediction of this step were the last.
    Partial {
        /// Counted from 0.
        index: usize,
        /// Of the size asked for.
        image: Image,
    },
    /// The pictures.
    Done(Box<Drawn>),
    /// There will be none.
    Failed(Failure),
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Pictures; the seed of picture i is the request's plus i.
    pub images: Vec<Image>,
    /// What was done at each step.
    pub plan: Vec<Decision>,
    /// From the order to the worker.
    pub queued: Duration,
    /// From the worker to the pictures.
    pub drawing: Duration,
    /// Which of the texts were longer than the text encoders read.
    pub truncated: Vec<&'static str>,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no such model.
    #[error("there is no model {name:?}; there is {known}")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The queue is full.
    #[error("the queue is full ({waiting} waiting); try again in {} s", retry_after.as_secs())]
    Full {
        /// Orders waiting.
        waiting: usize,
        /// When a place may be free.
        retry_after: Duration,
    },
    /// This client's share of the queue is full.
    #[error("this key has {waiting} requests waiting, as many as it may; try again in {} s", retry_after.as_secs())]
    Share {
        /// Its orders waiting.
        waiting: usize,
        /// When a place may be free.
        retry_after: Duration,
    },
    /// Starting, draining, or no engine alive.
    #[error("{why}; try again in {} s", retry_after.as_secs())]
    Unready {
        /// What is the matter.
        why: &'static str,
        /// When it may be over.
        retry_after: Duration,
    },
}

/// Why an order that was taken brought no picture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Its client does not want it any more.
    #[error("cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the deadline passed before the picture was done")]
    Expired,
    /// The server ends, and had not begun it.
    #[error("the server is shutting down")]
    Draining,
    /// The engine's thread ended, or a graph call does not come back.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// Drawing it failed.
    #[error("{0}")]
    Draw(String),
}
