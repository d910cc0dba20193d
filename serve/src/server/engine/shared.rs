//! What the workers and the rest of the server share, and what keeps the workers going.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::order::{Event, Failure};
use super::pace::Pace;
use super::pulse::Pulse;
use super::queue::Queue;
use super::running::{Register, finish};
use super::worker::{self, Worker};
use crate::server::metrics;
use crate::server::settings::Settings;
use hydit::artifacts::Artifacts;
use hydit::runtime::RuntimeOptions;

/// Between two looks at pulses and deadlines.
const LOOK: Duration = Duration::from_millis(50);
/// Before a worker whose thread ended is started again.
const REST: Duration = Duration::from_millis(200);

/// What the workers and the rest of the server share.
pub struct Shared {
    pub queue: Queue,
    pub running: Register,
    pub pace: Pace,
    pub models: Arc<BTreeMap<String, Arc<Artifacts>>>,
    pub order_of_models: Vec<String>,
    pub options: Options,
    pub health: Mutex<Vec<Health>>,
    /// In how many workers each model is loaded.
    pub loaded: Mutex<BTreeMap<String, usize>>,
    pub pulses: Vec<Arc<Pulse>>,
    pub started: watch::Sender<Start>,
    /// Workers whose threads have not ended.
    pub left: watch::Sender<usize>,
}

/// What was asked for of the workers.
pub struct Options {
    pub runtime: RuntimeOptions,
    /// Bytes of the files of loaded models, of each worker.
    pub max_memory: u64,
    pub max_batch: usize,
    pub exact: bool,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Starting,
    Alive,
    /// Its thread ended; it is about to be started again.
    Dead,
    /// A graph call does not come back.
    Stuck,
}

/// How the start went.
#[derive(Clone, Debug)]
pub enum Start {
    UnderWay,
    Done,
    Failed(String),
}

impl Shared {
    /// Nothing runs yet.
    pub fn new(settings: &Settings, models: BTreeMap<String, Arc<Artifacts>>) -> Arc<Shared> {
        let workers = settings.workers.max(1);
        let threads = settings.runtime.threads.map(|threads| (threads / workers).max(1));
        let options = Options {
            runtime: RuntimeOptions { threads, ..settings.runtime.clone() },
            max_memory: settings.max_memory.map_or(u64::MAX, |bytes| bytes / workers as u64),
            max_batch: settings.max_batch,
            exact: settings.exact,
        };
        Arc::new(Shared {
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
        })
    }

    /// Starts the workers, and one thread that looks after them and after deadlines.
    pub fn start(self: &Arc<Self>) {
        for index in 0..self.pulses.len() {
            let shared = self.clone();
            let name = format!("engine-{index}");
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || keep_alive(&shared, index)).expect("a thread");
        }
        let looked_after = Arc::downgrade(self);
        let look = move || {
            while let Some(shared) = looked_after.upgrade() {
                shared.look();
                drop(shared);
                std::thread::sleep(LOOK);
            }
        };
        std::thread::Builder::new().name("engine-watch".into()).spawn(look).expect("a thread");
    }

    pub fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has loaded the model `name`, or let it go.
    pub fn loaded(&self, name: &str, change: isize) {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = all.entry(name.to_string()).or_default();
        *workers = workers.saturating_add_signed(change);
    }

    pub fn set_health(&self, worker: usize, health: Health) {
        let mut all = self.health();
        all[worker] = health;
        if all.iter().all(|health| *health == Health::Alive) {
            self.started_as(Start::Done);
        }
    }

    /// The first word on how the start went is the last.
    fn started_as(&self, how: Start) {
        self.started.send_if_modified(|start| {
            let first = matches!(start, Start::UnderWay);
            if first {
                *start = how;
            }
            first
        });
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
        shared.started_as(Start::Failed(why));
        metrics::engine_restart();
        std::thread::sleep(REST);
    }
}
