//! The bounded queue: first in, first out for each client, with clients taking turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

use super::task::{Task, TaskEvent};

/// A task that waits for a worker.
pub struct Queued {
    pub task: Task,
    /// Where the task's events go.
    pub events: UnboundedSender<TaskEvent>,
    /// When the task was submitted.
    pub since: Instant,
}

/// Why the queue did not take a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    /// The queue holds this many tasks, its maximum.
    Queue(usize),
    /// The queue holds this many tasks of the client, the maximum of each.
    Share(usize),
    /// The queue is closed.
    Closed,
}

/// Tasks that wait for a worker. A client whose task was taken goes to the end of the rotation, so
/// that one with many tasks does not make the others wait for all of them.
pub struct Queue {
    state: Mutex<State>,
    /// Notified when a task arrives and when the queue is closed.
    wake: Condvar,
    max: usize,
    max_per_client: usize,
}

#[derive(Default)]
struct State {
    /// The clients in rotation, each with its tasks; clients without tasks are removed.
    lines: VecDeque<(Arc<str>, VecDeque<Queued>)>,
    closed: bool,
}

impl Queue {
    pub fn new(max: usize, max_per_client: usize) -> Queue {
        Queue { state: Mutex::default(), wake: Condvar::new(), max, max_per_client }
    }

    /// Whether [`Queue::push`] would take a task of `client` within the bounds.
    pub fn room(&self, client: &str) -> Result<(), Full> {
        self.room_in(&self.state.lock(), client)
    }

    /// Puts a task at the end of its client's line. Unless `bounded`, only a closed queue refuses
    /// it.
    pub fn push(&self, queued: Queued, bounded: bool) -> Result<(), Full> {
        let mut state = self.state.lock();
        let client = &queued.task.client;
        match self.room_in(&state, client) {
            Err(full) if bounded || full == Full::Closed => return Err(full),
            _ => {}
        }
        match state.line(client) {
            Some(line) => state.lines[line].1.push_back(queued),
            None => state.lines.push_back((client.clone(), VecDeque::from([queued]))),
        }
        drop(state);
        self.wake.notify_all();
        Ok(())
    }

    /// Waits for the next task; `None` when the queue is closed. `begin` runs before the task
    /// leaves the queue, so that who looks for it finds it here or where `begin` has put it.
    pub fn wait<B>(&self, begin: impl Fn(&Queued) -> B) -> Option<(Queued, B)> {
        let mut state = self.state.lock();
        self.wake.wait_while(&mut state, |state| state.lines.is_empty() && !state.closed);
        state.take(begin)
    }

    /// The next task if it is `wanted`; those behind it do not overtake it. `begin` as in
    /// [`Queue::wait`].
    pub fn next_if<B>(
        &self,
        wanted: impl Fn(&Task) -> bool,
        begin: impl Fn(&Queued) -> B,
    ) -> Option<(Queued, B)> {
        let mut state = self.state.lock();
        let next = state.lines.front()?.1.front()?;
        if wanted(&next.task) { state.take(begin) } else { None }
    }

    /// Removes the task `id`.
    pub fn remove(&self, id: &str) -> Option<Queued> {
        self.take_all(|queued| queued.task.id == id).pop()
    }

    /// Number of tasks that will be taken before the task `id` if no other is submitted.
    pub fn position(&self, id: &str) -> Option<usize> {
        let lines = &self.state.lock().lines;
        let longest = lines.iter().map(|(_, tasks)| tasks.len()).max().unwrap_or(0);
        (0..longest)
            .flat_map(|round| lines.iter().filter_map(move |(_, tasks)| tasks.get(round)))
            .position(|queued| queued.task.id == id)
    }

    /// Number of waiting tasks.
    pub fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// Removes the tasks whose deadline is `now` or earlier.
    pub fn expired(&self, now: Instant) -> Vec<Queued> {
        self.take_all(|queued| queued.task.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Removes all tasks.
    pub fn empty(&self) -> Vec<Queued> {
        self.take_all(|_| true)
    }

    /// Takes no more tasks, wakes the workers that wait for one, and returns the tasks left.
    pub fn close(&self) -> Vec<Queued> {
        self.state.lock().closed = true;
        self.wake.notify_all();
        self.empty()
    }

    /// Whether [`Queue::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn take_all(&self, which: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        for (_, tasks) in &mut state.lines {
            let (out, rest): (VecDeque<Queued>, _) =
                std::mem::take(tasks).into_iter().partition(&which);
            *tasks = rest;
            taken.extend(out);
        }
        state.lines.retain(|(_, tasks)| !tasks.is_empty());
        taken
    }

    fn room_in(&self, state: &State, client: &str) -> Result<(), Full> {
        let total = state.len();
        let share = state.line(client).map_or(0, |line| state.lines[line].1.len());
        if state.closed {
            Err(Full::Closed)
        } else if total >= self.max {
            Err(Full::Queue(total))
        } else if share >= self.max_per_client {
            Err(Full::Share(share))
        } else {
            Ok(())
        }
    }
}

impl State {
    fn line(&self, client: &str) -> Option<usize> {
        self.lines.iter().position(|(name, _)| &**name == client)
    }

    fn len(&self) -> usize {
        self.lines.iter().map(|(_, tasks)| tasks.len()).sum()
    }

    fn take<B>(&mut self, begin: impl Fn(&Queued) -> B) -> Option<(Queued, B)> {
        let (client, mut tasks) = self.lines.pop_front()?;
        let first = tasks.pop_front()?;
        if !tasks.is_empty() {
            self.lines.push_back((client, tasks));
        }
        let begun = begin(&first);
        Some((first, begun))
    }
}
