//! Draws: a bounded queue, and threads that own the models.

mod order;

pub use order::{Drawn, Event, Failure, Order, Refusal};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::settings::Settings;
use crate::artifacts::Artifacts;

/// The engine, as the rest of the server sees it.
pub struct Engine {}

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
    /// When a model's folder or the engine cannot be used.
    pub fn start(settings: &Settings) -> crate::Result<Arc<Engine>> {
        let _ = settings;
        todo!()
    }

    /// The models by name, whether loaded or not; the first is the default.
    pub fn models(&self) -> &BTreeMap<String, Arc<Artifacts>> {
        todo!()
    }

    /// The model of that name, or the default one without a name.
    ///
    /// # Errors
    /// [`Refusal::UnknownModel`].
    pub fn model(&self, name: Option<&str>) -> Result<(&str, &Arc<Artifacts>), Refusal> {
        let _ = name;
        todo!()
    }

    /// Takes an order, or refuses it at once.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit(self: &Arc<Self>, order: Order) -> Result<Ticket, Refusal> {
        let _ = order;
        todo!()
    }

    /// As [`Engine::submit`], of a job that an earlier process has accepted: beyond the queue's bounds.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn resubmit(self: &Arc<Self>, order: Order) -> Result<Ticket, Refusal> {
        let _ = order;
        todo!()
    }

    /// How many orders are before this one; `None` when it does not wait.
    pub fn position(&self, id: &str) -> Option<usize> {
        let _ = id;
        todo!()
    }

    /// Ends an order: one that waits at once, one that runs before its next graph call.
    pub fn cancel(&self, id: &str) {
        let _ = id;
        todo!()
    }

    /// Whether orders are taken, or why not.
    ///
    /// # Errors
    /// What is the matter.
    pub fn ready(&self) -> Result<(), &'static str> {
        todo!()
    }

    /// Orders waiting.
    pub fn waiting(&self) -> usize {
        todo!()
    }

    /// Takes no more orders and sends those that wait [`Failure::Draining`]; those that run go on.
    pub fn drain(&self) {
        todo!()
    }

    /// Comes back when nothing runs any more.
    pub async fn idle(&self) {
        tokio::time::sleep(Duration::ZERO).await;
        todo!()
    }

    /// Ends what runs, before its next graph call.
    pub fn abort(&self) {
        todo!()
    }
}

impl Ticket {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.engine.cancel(&self.id);
    }
}
