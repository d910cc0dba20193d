//! Draws: a bounded `queue`, and threads that own the models (`worker`).
//!
//! An [`Order`] waits in the queue until a worker takes it, alone or into the batch that it is
//! drawing; its [`Ticket`] hears of every step. `shared` keeps the workers going; a `pulse` tells
//! whether one is alive.

mod models;
mod order;
mod pace;
mod pulse;
mod queue;
mod running;
mod shared;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use order::{Drawn, Event, Failure, Order, Refusal};

use self::queue::{Full, Waiting};
use self::running::finish;
use self::shared::{Health, Shared, Start};
use super::metrics::{self, Outcome};
use super::settings::Settings;
use hydit::artifacts::Artifacts;

/// The engine, as the rest of the server sees it.
pub struct Engine {
    shared: Arc<Shared>,
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
    pub fn start(settings: &Settings) -> hydit::Result<Arc<Engine>> {
        let mut models = BTreeMap::new();
        for (name, path) in &settings.models {
            let artifacts = Artifacts::open(path)?;
            artifacts.check_code()?;
            models.insert(name.clone(), Arc::new(artifacts));
        }
        let shared = Shared::new(settings, models);
        shared.start();
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
