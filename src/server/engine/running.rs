//! The orders that workers are at, where anyone can end them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::order::{Event, Failure};
use super::queue::Waiting;
use crate::server::metrics::{self, Outcome};

/// An order that a worker is at.
struct Running {
    worker: usize,
    events: UnboundedSender<Event>,
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

/// All of them, by id. Who takes one out is the one who ends it, so that each ends once.
#[derive(Default)]
pub struct Register {
    running: Mutex<HashMap<String, Running>>,
    none_left: Notify,
}

/// What a worker asks between graph calls.
#[derive(Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether the order was ended by another.
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Register {
    /// `worker` begins an order.
    pub fn begin(&self, worker: usize, waiting: &Waiting) -> Flag {
        let flag = Flag::default();
        let running = Running {
            worker,
            events: waiting.events.clone(),
            deadline: waiting.order.deadline,
            cancelled: flag.0.clone(),
        };
        self.lock().insert(waiting.order.id.clone(), running);
        let _ = waiting.events.send(Event::Started);
        flag
    }

    /// Sends the order `id` an event, unless somebody has ended it: nothing comes after an end.
    pub fn tell(&self, id: &str, event: Event) {
        if let Some(running) = self.lock().get(id) {
            let _ = running.events.send(event); // who does not listen any more need not hear it
        }
    }

    /// Ends the order `id` with `event`, unless somebody has ended it.
    pub fn end(&self, id: &str, event: Event) {
        let mut all = self.lock();
        let Some(running) = all.remove(id) else { return };
        let none_left = all.is_empty();
        drop(all);
        running.cancelled.store(true, Ordering::Relaxed);
        finish(&running.events, event);
        if none_left {
            self.none_left.notify_waiters();
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
        let all = self.lock();
        let chosen = all.iter().filter(|(_, running)| which(running));
        let ids: Vec<String> = chosen.map(|(id, _)| id.clone()).collect();
        drop(all);
        ids.iter().for_each(|id| self.end(id, Event::Failed(failure.clone())));
    }

    /// Comes back when there is none.
    pub async fn idle(&self) {
        loop {
            let left = self.none_left.notified();
            if self.lock().is_empty() {
                return;
            }
            left.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
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
