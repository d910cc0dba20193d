//! Draws: a bounded `queue`, and threads that own the models (`worker`).
//!
//! An [`Order`] waits in the queue until a worker takes it, alone or into the batch that it is
//! drawing; its [`Ticket`] hears of every step. A `pulse` tells whether a worker is alive.

mod models;
mod order;
mod pace;
mod pulse;
mod queue;
mod running;
mod worker;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

pub use order::{Drawn, Event, Failure, Order, Refusal};

use self::pace::Pace;
use self::pulse::Pulse;
use self::queue::{Full, Queue, Waiting};
use self::running::{Register, finish};
use self::worker::Worker;
use super::metrics::{self, Outcome};
use super::settings::Settings;
use crate::artifacts::Artifacts;
use crate::runtime::RuntimeOptions;

/// Between two looks at pulses and deadlines.
const LOOK: Duration = Duration::from_millis(50);
/// Before a worker whose thread ended is started again.
const REST: Duration = Duration::from_millis(200);

/// The engine, as the rest of the server sees it.
pub struct Engine {
    shared: Arc<Shared>,
}

/// What the workers and the rest of the server share.
struct Shared {
    queue: Queue,
    running: Register,
    pace: Pace,
    models: Arc<BTreeMap<String, Arc<Artifacts>>>,
    order_of_models: Vec<String>,
    options: Options,
    health: Mutex<Vec<Health>>,
    /// In how many workers each model is loaded.
    loaded: Mutex<BTreeMap<String, usize>>,
    pulses: Vec<Arc<Pulse>>,
    started: watch::Sender<Start>,
    /// Workers whose threads have not ended.
    left: watch::Sender<usize>,
}

struct Options {
    runtime: RuntimeOptions,
    /// Bytes of the files of loaded models, of each worker.
    max_memory: u64,
    max_batch: usize,
    exact: bool,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Starting,
    Alive,
    /// Its thread ended; it is about to be started again.
    Dead,
    /// A graph call does not come back.
    Stuck,
}

/// How the start went.
#[derive(Clone, Debug)]
enum Start {
    UnderWay,
    Done,
    Failed(String),
}

/// An order that was taken. Dropping it cancels the order.
pub struct Ticket {
    /// The order's.
    pub id: String,
    events: UnboundedReceiver<Event>,
    engine: Arc<Engine>,
}

impl Engine {
    /// Opens the models' folders and starts the workers, which load and warm up in the background.
    ///
    /// # Errors
    /// When a model's folder cannot be used.
    pub fn start(settings: &Settings) -> crate::Result<Arc<Engine>> {
        let mut models = BTreeMap::new();
        for (name, path) in &settings.models {
            let artifacts = Artifacts::open(path)?;
            artifacts.check_code()?;
            models.insert(name.clone(), Arc::new(artifacts));
        }
        let workers = settings.workers.max(1);
        let threads = settings.runtime.threads.map(|threads| (threads / workers).max(1));
        let options = Options {
            runtime: RuntimeOptions { threads, ..settings.runtime.clone() },
            max_memory: settings.max_memory.map_or(u64::MAX, |bytes| bytes / workers as u64),
            max_batch: settings.max_batch,
            exact: settings.exact,
        };
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue, settings.queue_per_key),
            running: Register::default(),
            pace: Pace::default(),
            models: Arc::new(models),
            order_of_models: settings.models.iter().map(|(name, _)| name.clone()).collect(),
            options,
            health: Mutex::new(vec![Health::Starting; workers]),
            loaded: Mutex::default(),
            pulses: (0..workers).map(|_| Arc::default()).collect(),
            started: watch::Sender::new(Start::UnderWay),
            left: watch::Sender::new(workers),
        });
        for index in 0..workers {
            let shared = shared.clone();
            let name = format!("engine-{index}");
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || keep_alive(&shared, index)).expect("a thread");
        }
        let looked_after = Arc::downgrade(&shared);
        let look = move || {
            while let Some(shared) = looked_after.upgrade() {
                shared.look();
                drop(shared);
                std::thread::sleep(LOOK);
            }
        };
        std::thread::Builder::new().name("engine-watch".into()).spawn(look).expect("a thread");
        Ok(Arc::new(Engine { shared }))
    }

    /// Comes back when every worker is warm.
    ///
    /// # Errors
    /// Why one could not be.
    pub async fn started(&self) -> Result<(), String> {
        let mut started = self.shared.started.subscribe();
        let over = started.wait_for(|start| !matches!(start, Start::UnderWay)).await;
        match &*over.expect("the engine holds the sender") {
            Start::Failed(why) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// The models by name, whether loaded or not.
    pub fn models(&self) -> &BTreeMap<String, Arc<Artifacts>> {
        &self.shared.models
    }

    /// The model of that name, or without a name the first that was given.
    ///
    /// # Errors
    /// [`Refusal::UnknownModel`].
    pub fn model(&self, name: Option<&str>) -> Result<(&str, &Arc<Artifacts>), Refusal> {
        let name = name.unwrap_or(&self.shared.order_of_models[0]);
        match self.shared.models.get_key_value(name) {
            Some((name, artifacts)) => Ok((name, artifacts)),
            None => {
                let known = self.shared.order_of_models.join(", ");
                Err(Refusal::UnknownModel { name: name.to_string(), known })
            }
        }
    }

    /// Whether a worker has the model `name` in memory.
    pub fn is_loaded(&self, name: &str) -> bool {
        let loaded = self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.get(name).is_some_and(|workers| *workers > 0)
    }

    /// Takes an order, or refuses it at once.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit(self: &Arc<Self>, order: Order) -> Result<Ticket, Refusal> {
        self.take(order, true)
    }

    /// As [`Engine::submit`], of a job that was accepted earlier: beyond the queue's bounds, and while
    /// the engine is starting.
    ///
    /// # Errors
    /// When the server is shutting down, or has no such model.
    pub fn resubmit(self: &Arc<Self>, order: Order) -> Result<Ticket, Refusal> {
        self.take(order, false)
    }

    /// Whether [`Engine::submit`] would take an order of `client` for `model` now.
    ///
    /// # Errors
    /// Why it would not be taken.
    pub fn room(&self, model: &str, client: &str) -> Result<(), Refusal> {
        let room = || {
            self.model(Some(model))?;
            self.ready().map_err(unready)?;
            self.shared.queue.room(client).map_err(|full| self.refusal(full))
        };
        room().inspect_err(|_| metrics::order(Outcome::Refused))
    }

    fn take(self: &Arc<Self>, order: Order, bounded: bool) -> Result<Ticket, Refusal> {
        self.enter(order, bounded).inspect_err(|_| metrics::order(Outcome::Refused))
    }

    fn enter(self: &Arc<Self>, order: Order, bounded: bool) -> Result<Ticket, Refusal> {
        self.model(Some(&order.model))?;
        if bounded {
            self.ready().map_err(unready)?;
        }
        let (sender, events) = unbounded_channel();
        let id = order.id.clone();
        let waiting = Waiting { order, events: sender, since: Instant::now() };
        let pushed = self.shared.queue.push(waiting, bounded);
        pushed.map_err(|full| self.refusal(full))?;
        Ok(Ticket { id, events, engine: self.clone() })
    }

    fn refusal(&self, full: Full) -> Refusal {
        let retry_after = self.shared.pace.time_for(1);
        match full {
            Full::Queue(waiting) => Refusal::Full { waiting, retry_after },
            Full::Share(waiting) => Refusal::Share { waiting, retry_after },
            Full::Closed => unready(DRAINING),
        }
    }

    /// How many orders are before this one; `None` when it does not wait.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.shared.queue.position(id)
    }

    /// Ends an order: one that waits at once, one that runs before its next graph call.
    pub fn cancel(&self, id: &str) {
        let cancelled = Event::Failed(Failure::Cancelled);
        match self.shared.queue.remove(id) {
            Some(waiting) => finish(&waiting.events, cancelled),
            None => self.shared.running.end(id, cancelled),
        }
    }

    /// Whether orders are taken, or why not.
    ///
    /// # Errors
    /// What is the matter.
    pub fn ready(&self) -> Result<(), &'static str> {
        let shared = &self.shared;
        if shared.queue.is_closed() {
            return Err(DRAINING);
        }
        shared.look();
        let health = shared.health();
        let any = |wanted| health.contains(&wanted);
        if any(Health::Starting) {
            Err("the models are being loaded")
        } else if any(Health::Dead) {
            Err("an engine's thread has ended and is started again")
        } else if any(Health::Stuck) {
            Err("a graph call does not come back")
        } else {
            Ok(())
        }
    }

    /// Orders waiting.
    pub fn waiting(&self) -> usize {
        self.shared.queue.waiting()
    }

    /// Takes no more orders and sends those that wait [`Failure::Draining`]; those that run go on.
    pub fn drain(&self) {
        for waiting in self.shared.queue.close() {
            finish(&waiting.events, Event::Failed(Failure::Draining));
        }
    }

    /// After [`Engine::drain`]: comes back when the workers' threads have ended.
    pub async fn idle(&self) {
        let mut left = self.shared.left.subscribe();
        left.wait_for(|workers| *workers == 0).await.expect("the engine holds the sender");
    }

    /// Ends what runs, before its next graph call.
    pub fn abort(&self) {
        self.shared.running.fail_all(&Failure::Draining);
    }
}

const DRAINING: &str = "the server is shutting down";

fn unready(why: &'static str) -> Refusal {
    Refusal::Unready { why, retry_after: Duration::from_secs(5) }
}

impl Shared {
    fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has loaded the model `name`, or let it go.
    fn loaded(&self, name: &str, change: isize) {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = all.entry(name.to_string()).or_default();
        *workers = workers.saturating_add_signed(change);
    }

    fn set_health(&self, worker: usize, health: Health) {
        let mut all = self.health();
        all[worker] = health;
        if all.iter().all(|health| *health == Health::Alive) {
            self.started.send_if_modified(|start| {
                let first = matches!(start, Start::UnderWay);
                if first {
                    *start = Start::Done;
                }
                first
            });
        }
    }

    /// Ends orders whose deadline has passed, and those of a worker whose call does not come back.
    fn look(&self) {
        let now = Instant::now();
        for waiting in self.queue.expired(now) {
            finish(&waiting.events, Event::Failed(Failure::Expired));
        }
        self.running.expire(now);
        for (worker, pulse) in self.pulses.iter().enumerate() {
            let mut health = self.health();
            let overdue = pulse.overdue(now);
            match (overdue, health[worker]) {
                (Some(stage), Health::Alive) => {
                    health[worker] = Health::Stuck;
                    let none = health.iter().all(|health| *health == Health::Stuck);
                    drop(health);
                    let why = format!("a call of the {} graph does not come back", stage.label());
                    tracing::error!(worker, why, "stuck");
                    self.running.fail_worker(worker, &why);
                    if none {
                        self.give_up_waiting();
                    }
                }
                (None, Health::Stuck) => health[worker] = Health::Alive,
                _ => {}
            }
        }
    }

    /// Those that wait would wait for ever.
    fn give_up_waiting(&self) {
        for waiting in self.queue.empty() {
            let why = "no worker is alive".to_string();
            finish(&waiting.events, Event::Failed(Failure::Engine(why)));
        }
    }
}

/// Runs a worker, and runs it again whenever its thread would end.
fn keep_alive(shared: &Arc<Shared>, index: usize) {
    loop {
        let pulse = shared.pulses[index].clone();
        let worker = Worker { index, shared: shared.clone(), pulse };
        let why = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(Ok(())) => return shared.left.send_modify(|workers| *workers -= 1),
            Ok(Err(error)) => worker::chain(&error),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                format!("its thread ended: {text}")
            }
        };
        shared.set_health(index, Health::Dead);
        shared.pulses[index].rest();
        shared.running.fail_worker(index, &why);
        tracing::error!(worker = index, why, "ended");
        shared.started.send_if_modified(|start| {
            let first = matches!(start, Start::UnderWay);
            if first {
                *start = Start::Failed(why);
            }
            first
        });
        metrics::engine_restart();
        std::thread::sleep(REST);
    }
}

impl Ticket {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.engine.cancel(&self.id);
    }
}
