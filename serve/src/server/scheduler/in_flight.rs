//! The tasks that workers have begun, where any thread can end them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::queue::Queued;
use super::task::{Failure, TaskEvent, finish};

/// All begun tasks by id. Whoever removes a task ends it, so that each ends exactly once.
#[derive(Default)]
pub struct InFlight(Mutex<HashMap<String, Entry>>);

struct Entry {
    worker: usize,
    events: UnboundedSender<TaskEvent>,
    deadline: Option<Instant>,
    token: CancelToken,
}

/// A worker's hold on a task that it has begun. It is asked between graph calls whether the task
/// has been ended meanwhile.
#[derive(Clone, Debug)]
pub struct CancelToken {
    task: Arc<str>,
    ended: Arc<AtomicBool>,
}

impl CancelToken {
    /// The task's id.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Whether the task has ended: then no further work for it counts.
    pub fn is_cancelled(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl InFlight {
    /// Notes that `worker` begins a task, and tells its client.
    pub fn begin(&self, worker: usize, queued: &Queued) -> CancelToken {
        let Queued { task, events, .. } = queued;
        let token = CancelToken { task: task.id.as_str().into(), ended: Arc::default() };
        let entry =
            Entry { worker, events: events.clone(), deadline: task.deadline, token: token.clone() };
        let _ = events.send(TaskEvent::Started);
        self.0.lock().insert(task.id.clone(), entry);
        token
    }

    /// Sends an event unless the task has ended: nothing follows its last event.
    pub fn send(&self, token: &CancelToken, event: TaskEvent) {
        let all = self.0.lock();
        if let Some(entry) = all.get(&*token.task).filter(|_| !token.is_cancelled()) {
            let _ = entry.events.send(event); // a client that has gone away needs no event
        }
    }

    /// Ends the task of `token` with `last` unless it has ended. If a task of the same id was begun
    /// after that, it is left alone.
    pub fn finish(&self, token: &CancelToken, last: TaskEvent) {
        let mut all = self.0.lock();
        if !token.is_cancelled() {
            end(&mut all, &token.task, last);
        }
    }

    /// Ends the task `id` with `failure` if a worker has begun it.
    pub fn fail(&self, id: &str, failure: Failure) {
        end(&mut self.0.lock(), id, TaskEvent::Failed(failure));
    }

    /// Ends all tasks of `worker`.
    pub fn fail_worker(&self, worker: usize, why: &'static str) {
        self.fail_where(|entry| entry.worker == worker, &Failure::Worker(why));
    }

    /// Ends the tasks whose deadline is `now` or earlier.
    pub fn expire(&self, now: Instant) {
        self.fail_where(|entry| entry.deadline.is_some_and(|d| d <= now), &Failure::Expired);
    }

    /// Ends all tasks.
    pub fn fail_all(&self, failure: &Failure) {
        self.fail_where(|_| true, failure);
    }

    fn fail_where(&self, which: impl Fn(&Entry) -> bool, failure: &Failure) {
        let mut all = self.0.lock();
        let chosen = all.iter().filter(|(_, entry)| which(entry));
        let ids: Vec<String> = chosen.map(|(id, _)| id.clone()).collect();
        for id in ids {
            end(&mut all, &id, TaskEvent::Failed(failure.clone()));
        }
    }
}

fn end(all: &mut HashMap<String, Entry>, id: &str, last: TaskEvent) {
    if let Some(entry) = all.remove(id) {
        entry.token.ended.store(true, Ordering::Relaxed);
        finish(&entry.events, last);
    }
}
