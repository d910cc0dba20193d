//! Decides which request is drawn when, and draws: a bounded `queue`, and threads that own the
//! models (`worker`).
//!
//! A [`Task`] waits in the queue until a worker takes it, alone or into the batch that it is
//! drawing; its [`TaskHandle`] receives an event at every step. The `supervisor` keeps the workers
//! going; a `watchdog` tells whether one is alive.

mod in_flight;
mod models;
mod queue;
mod remote;
mod shared;
mod supervisor;
mod task;
mod throughput;
mod watchdog;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::artifacts::Artifacts;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use task::{Failure, Refusal, Task, TaskEvent, TaskOutput};

use self::queue::{Full, Queued};
use self::remote::Tritons;
use self::shared::{Shared, Startup, WorkerHealth};
use self::task::finish;
use super::clock::Clock;
use super::error::ServeError;
use super::metrics::{self, TaskOutcome};
use super::settings::Settings;

/// Maximum number of characters of an unknown model's name in an answer.
const MAX_NAME: usize = 96;
const DRAINING: &str = "the server is shutting down";

/// The scheduler, as the rest of the server sees it. Dropping it ends the workers.
pub struct Scheduler {
    shared: Arc<Shared>,
}

/// An accepted task. Dropping it cancels the task.
pub struct TaskHandle {
    id: String,
    events: UnboundedReceiver<TaskEvent>,
    scheduler: Arc<Scheduler>,
}

impl Scheduler {
    /// Opens the models' folders and starts the workers, which load and warm up in the background.
    /// Deadlines are those of `clock`.
    ///
    /// # Errors
    /// When a model's folder cannot be used, or no threads can be started.
    pub fn start(settings: &Settings, clock: Clock) -> Result<Arc<Scheduler>, ServeError> {
        let mut models = BTreeMap::new();
        for (name, path) in &settings.models {
            let artifacts = Artifacts::open(path)?.with_loras(settings.lora_dir.as_deref())?;
            let engines = settings.engines.get(name).map(PathBuf::as_path);
            let artifacts = artifacts.with_engines(engines)?;
            let artifacts = artifacts.allowing_builds(settings.allow_build);
            if settings.tritons.is_empty() {
                artifacts.check_code()?;
            }
            models.insert(name.clone(), Arc::new(artifacts));
        }
        let tritons = match &settings.tritons[..] {
            [] => None,
            addresses => Some(Tritons::start(addresses, &models)?),
        };
        let shared = Arc::new(Shared::new(settings, clock, models, tritons));
        supervisor::start(&shared);
        Ok(Arc::new(Scheduler { shared }))
    }

    /// Waits until every worker is warm.
    ///
    /// # Errors
    /// Why one could not start.
    pub async fn started(&self) -> Result<(), String> {
        let mut startup = self.shared.startup.subscribe();
        let ended = startup.wait_for(|startup| !matches!(startup, Startup::Pending)).await;
        match &*ended.expect("the scheduler holds the sender") {
            Startup::Failed(why) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// The clock of deadlines.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The models by name, whether loaded or not.
    pub fn models(&self) -> &BTreeMap<String, Arc<Artifacts>> {
        &self.shared.models
    }

    /// The model of that name or alias, or without a name the default model.
    ///
    /// # Errors
    /// [`Refusal::UnknownModel`].
    pub fn model(&self, name: Option<&str>) -> Result<(&str, &Arc<Artifacts>), Refusal> {
        let Shared { models, model_names, aliases, .. } = &*self.shared;
        let name = name.unwrap_or(&model_names[0]);
        let name = aliases.get(name).map_or(name, String::as_str);
        match models.get_key_value(name) {
            Some((name, artifacts)) => Ok((name, artifacts)),
            None => {
                let name = name.chars().take(MAX_NAME).collect();
                let known = model_names.iter().chain(aliases.keys());
                let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
                Err(Refusal::UnknownModel { name, known })
            }
        }
    }

    /// Whether a worker has the model `name` in memory, or a Triton draws it.
    pub fn is_loaded(&self, name: &str) -> bool {
        match &self.shared.tritons {
            Some(tritons) => tritons.have(name),
            None => self.shared.loaded.lock().get(name).is_some_and(|workers| *workers > 0),
        }
    }

    /// Accepts a task, or refuses it at once.
    ///
    /// # Errors
    /// Why it was not accepted.
    pub fn submit(self: &Arc<Self>, task: Task) -> Result<TaskHandle, Refusal> {
        self.enqueue(task, true).inspect_err(count)
    }

    /// Accepts a task of a job that was promised earlier: beyond the queue's bounds, and while the
    /// workers are starting.
    ///
    /// # Errors
    /// When the server is shutting down, or has no such model.
    pub fn resubmit(self: &Arc<Self>, task: Task) -> Result<TaskHandle, Refusal> {
        self.enqueue(task, false).inspect_err(count)
    }

    /// Whether [`Scheduler::submit`] would accept a task of `client` for `model` now.
    ///
    /// # Errors
    /// Why it would not be accepted.
    pub fn check_room(&self, model: &str, client: &str) -> Result<(), Refusal> {
        self.check(model, true)
            .and_then(|()| self.shared.queue.room(client).map_err(|full| self.refusal(full)))
            .inspect_err(count)
    }

    fn enqueue(self: &Arc<Self>, task: Task, bounded: bool) -> Result<TaskHandle, Refusal> {
        self.check(&task.model, bounded)?;
        let (sender, events) = unbounded_channel();
        let id = task.id.clone();
        let queued = Queued { task, events: sender, since: Instant::now() };
        self.shared.queue.push(queued, bounded).map_err(|full| self.refusal(full))?;
        Ok(TaskHandle { id, events, scheduler: self.clone() })
    }

    fn check(&self, model: &str, ready: bool) -> Result<(), Refusal> {
        self.model(Some(model))?;
        if ready { self.ready().map_err(unready) } else { Ok(()) }
    }

    fn refusal(&self, full: Full) -> Refusal {
        let retry_after = self.shared.throughput.time_for(1);
        match full {
            Full::Queue(waiting) => Refusal::Full { waiting, retry_after },
            Full::Share(waiting) => Refusal::Share { waiting, retry_after },
            Full::Closed => unready(DRAINING),
        }
    }

    /// Number of tasks before this one; `None` when it does not wait.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.shared.queue.position(id)
    }

    /// Ends a task: one that waits at once, one that runs before its next graph call.
    pub fn cancel(&self, id: &str) {
        match self.shared.queue.remove(id) {
            Some(queued) => finish(&queued.events, TaskEvent::Failed(Failure::Cancelled)),
            None => self.shared.in_flight.fail(id, Failure::Cancelled),
        }
    }

    /// Whether [`Scheduler::submit`] accepts tasks.
    ///
    /// # Errors
    /// Why not, for clients.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.shared.queue.is_closed() {
            return Err(DRAINING);
        }
        let health = self.shared.health.lock();
        if health.contains(&WorkerHealth::Starting) {
            Err("the models are being loaded")
        } else if health.contains(&WorkerHealth::Alone) {
            Err("no machine that draws is there")
        } else if health.contains(&WorkerHealth::Dead) {
            Err("an engine's thread has ended and is started again")
        } else if health.contains(&WorkerHealth::Stuck) {
            Err("a graph call does not come back")
        } else {
            Ok(())
        }
    }

    /// Number of waiting tasks.
    pub fn waiting(&self) -> usize {
        self.shared.queue.len()
    }

    /// Accepts no more tasks and fails those that wait with [`Failure::Draining`]; those that run
    /// go on.
    pub fn drain(&self) {
        for queued in self.shared.queue.close() {
            finish(&queued.events, TaskEvent::Failed(Failure::Draining));
        }
    }

    /// Waits until no worker takes tasks any more, as happens after [`Scheduler::drain`]. A worker
    /// that is still loading its first models is not waited for.
    pub async fn idle(&self) {
        let mut at_work = self.shared.at_work.subscribe();
        at_work.wait_for(|workers| *workers == 0).await.expect("the scheduler holds the sender");
    }

    /// Ends what runs before its next graph call.
    pub fn abort(&self) {
        self.shared.in_flight.fail_all(&Failure::Draining);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.drain();
    }
}

impl TaskHandle {
    /// Waits for the next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.events.recv().await
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.scheduler.cancel(&self.id);
    }
}

fn unready(why: &'static str) -> Refusal {
    Refusal::Unready { why, retry_after: Duration::from_secs(5) }
}

fn count(_: &Refusal) {
    metrics::task(TaskOutcome::Refused);
}
