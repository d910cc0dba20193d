//! The orders that workers are at, where anyone can end them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::order::{Event, Failure};
use super::queue::Waiting;
use crate::server::metrics::{self, Outcome};

/// An order that a worker is at.
struct Running {
    worker: usize,
    events: UnboundedSender<Event>,
    deadline: Option<Instant>,
    run: Run,
}

/// All of them, by id. Who takes one out is the one who ends it, so that each ends once.
#[derive(Default)]
pub struct Register(Mutex<HashMap<String, Running>>);

/// A worker's own hold on an order, for asking between graph calls whether it has been ended.
#[derive(Clone, Debug)]
pub struct Run {
    id: Arc<str>,
    over: Arc<AtomicBool>,
}

impl Run {
    /// The order's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether somebody has ended it.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Register {
    /// `worker` begins an order.
    pub fn begin(&self, worker: usize, waiting: &Waiting) -> Run {
        let run = Run { id: waiting.order.id.as_str().into(), over: Arc::default() };
        let running = Running {
            worker,
            events: waiting.events.clone(),
            deadline: waiting.order.deadline,
            run: run.clone(),
        };
        let _ = waiting.events.send(Event::Started);
        self.lock().insert(waiting.order.id.clone(), running);
        run
    }

    /// Tells of `run`, unless somebody has ended it: nothing comes after an end.
    pub fn tell(&self, run: &Run, event: Event) {
        let all = self.lock();
        if let (false, Some(running)) = (run.is_over(), all.get(&*run.id)) {
            let _ = running.events.send(event); // who does not listen any more need not hear it
        }
    }

    /// Ends `run` with `event`, unless somebody has ended it. Another run of the same order, which was
    /// begun after this one's end, is not touched.
    pub fn finish(&self, run: &Run, event: Event) {
        let mut all = self.lock();
        if !run.is_over() {
            Register::take(&mut all, &run.id, event);
        }
    }

    /// Ends the order `id` with `event`, if a worker is at it.
    pub fn end(&self, id: &str, event: Event) {
        Register::take(&mut self.lock(), id, event);
    }

    fn take(all: &mut HashMap<String, Running>, id: &str, event: Event) {
        if let Some(running) = all.remove(id) {
            running.run.over.store(true, Ordering::Relaxed);
            finish(&running.events, event);
        }
    }

    /// Ends those of `worker`.
    pub fn fail_worker(&self, worker: usize, why: &str) {
        self.fail(|running| running.worker == worker, &Failure::Engine(why.to_string()));
    }

    /// Ends those whose deadline has passed.
    pub fn expire(&self, now: Instant) {
        self.fail(|running| running.deadline.is_some_and(|d| d <= now), &Failure::Expired);
    }

    /// Ends all of them.
    pub fn fail_all(&self, failure: &Failure) {
        self.fail(|_| true, failure);
    }

    fn fail(&self, which: impl Fn(&Running) -> bool, failure: &Failure) {
        let mut all = self.lock();
        let chosen = all.iter().filter(|(_, running)| which(running));
        let ids: Vec<String> = chosen.map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| {
            Register::take(&mut all, id, Event::Failed(failure.clone()));
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends an order's last event and counts it.
pub fn finish(events: &UnboundedSender<Event>, event: Event) {
    metrics::order(match &event {
        Event::Failed(Failure::Cancelled) => Outcome::Cancelled,
        Event::Failed(Failure::Expired) => Outcome::Expired,
        Event::Failed(Failure::Draining) => Outcome::Drained,
        Event::Failed(_) => Outcome::Failed,
        _ => Outcome::Done,
    });
    let _ = events.send(event); // who does not listen any more need not hear it
}
