//! The state that the workers, the supervisor and the scheduler's handle share.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydit::artifacts::Artifacts;
use hydit::runtime::RuntimeOptions;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::in_flight::InFlight;
use super::queue::Queue;
use super::remote::Tritons;
use super::throughput::Throughput;
use super::watchdog::Watchdog;
use crate::server::clock::Clock;
use crate::server::settings::Settings;

/// The state that the workers, the supervisor and the scheduler's handle share.
pub struct Shared {
    pub clock: Clock,
    pub queue: Queue,
    pub in_flight: InFlight,
    pub throughput: Throughput,
    /// The models by name, loaded or not.
    pub models: BTreeMap<String, Arc<Artifacts>>,
    /// Their names as the settings order them: the first is the default.
    pub model_names: Vec<String>,
    /// Other names of models, and those models.
    pub aliases: BTreeMap<String, String>,
    pub options: WorkerOptions,
    /// Those that draw in the place of engines of this program.
    pub tritons: Option<Tritons>,
    /// State of each worker.
    pub health: Mutex<Vec<WorkerHealth>>,
    /// In how many workers each model is loaded.
    pub loaded: Mutex<BTreeMap<String, usize>>,
    /// One for each worker.
    pub watchdogs: Vec<Arc<Watchdog>>,
    pub startup: watch::Sender<Startup>,
    /// Number of workers that take tasks: that are not loading their first models.
    pub at_work: watch::Sender<usize>,
}

/// What the settings give to each worker.
pub struct WorkerOptions {
    pub runtime: RuntimeOptions,
    /// Maximum bytes of the files of its loaded models.
    pub max_memory: u64,
    /// Maximum number of images that it draws together.
    pub max_batch: usize,
    /// Draws no request together with another.
    pub exact: bool,
}

/// State of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerHealth {
    /// It loads its models for the first time.
    Starting,
    /// It draws or waits for a task.
    Alive,
    /// Its thread ended and is about to be started again.
    Dead,
    /// One of its graph calls does not return.
    Stuck,
    /// None of the machines that draw for it is there.
    Alone,
}

/// How the start of the workers went.
#[derive(Clone, Debug)]
pub enum Startup {
    Pending,
    Done,
    Failed(String),
}

impl Shared {
    /// The state before any worker runs.
    pub fn new(
        settings: &Settings,
        clock: Clock,
        models: BTreeMap<String, Arc<Artifacts>>,
        tritons: Option<Tritons>,
    ) -> Shared {
        let workers = settings.workers.max(1);
        let threads = settings.runtime.threads.map(|threads| (threads / workers).max(1));
        let options = WorkerOptions {
            runtime: RuntimeOptions { threads, ..settings.runtime.clone() },
            max_memory: settings.max_memory.map_or(u64::MAX, |bytes| bytes / workers as u64),
            max_batch: settings.max_batch,
            exact: settings.exact,
        };
        Shared {
            clock,
            queue: Queue::new(settings.queue, settings.queue_per_key),
            in_flight: InFlight::default(),
            throughput: Throughput::default(),
            models,
            model_names: settings.models.iter().map(|(name, _)| name.clone()).collect(),
            aliases: settings.aliases.clone(),
            options,
            tritons,
            health: Mutex::new(vec![WorkerHealth::Starting; workers]),
            loaded: Mutex::default(),
            watchdogs: (0..workers).map(|_| Arc::default()).collect(),
            startup: watch::Sender::new(Startup::Pending),
            at_work: watch::Sender::new(0),
        }
    }

    /// Adds `change` to the number of workers that have the model `name` in memory.
    pub fn count_loaded(&self, name: &str, change: isize) {
        let mut all = self.loaded.lock();
        let workers = all.entry(name.to_string()).or_default();
        *workers = workers.saturating_add_signed(change);
    }

    /// Sets the state of `worker`. Once all are alive the start is done.
    pub fn set_health(&self, worker: usize, health: WorkerHealth) {
        let mut all = self.health.lock();
        all[worker] = health;
        if all.iter().all(|health| *health == WorkerHealth::Alive) {
            self.end_startup(Startup::Done);
        }
    }

    /// Tells how the start went. Only the first call has an effect.
    pub fn end_startup(&self, how: Startup) {
        self.startup.send_if_modified(|startup| {
            let pending = matches!(startup, Startup::Pending);
            if pending {
                *startup = how;
            }
            pending
        });
    }
}
