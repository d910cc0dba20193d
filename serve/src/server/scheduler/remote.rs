//! The worker that has Tritons draw in the place of an engine: it hands tasks out, as many as the hosts have
//! room for, and the rest wait in the queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hydit::artifacts::Artifacts;
use hydit::pipeline::tables::Tabulator;
use hydit::util::error_chain;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::in_flight::CancelToken;
use super::queue::Queued;
use super::shared::{Shared, WorkerHealth};
use super::task::{Failure, Task, TaskEvent, TaskOutput};
use super::worker::AtWork;
use crate::server::error::ServeError;
use crate::server::metrics;
use crate::server::told::Told;
use crate::triton::{Address, Drawn, Hosts, Order, Place, TritonError};

/// Time between two looks at whether a task was cancelled, or the queue closed.
const LOOK: Duration = Duration::from_millis(50);
/// There is one such worker, however many the hosts are.
const INDEX: usize = 0;

/// The hosts, and what makes their orders, by model.
pub struct Tritons {
    hosts: Arc<Hosts>,
    tabulators: BTreeMap<String, Arc<Tabulator>>,
}

impl Tritons {
    /// Begins to look for hosts at `addresses` that draw the models.
    ///
    /// # Errors
    /// When a model has no tokenizers, or no threads can be started.
    pub fn start(
        addresses: &[Address],
        models: &BTreeMap<String, Arc<Artifacts>>,
    ) -> Result<Tritons, ServeError> {
        let open = |artifacts: &Arc<Artifacts>| Tabulator::open(artifacts.clone()).map(Arc::new);
        let tabulators = models.iter().map(|(name, model)| Ok((name.clone(), open(model)?)));
        let tabulators = tabulators.collect::<hydit::Result<_>>()?;
        let exports = models.values().map(|model| model.hash.clone()).collect();
        let hosts = Hosts::start(addresses.to_vec(), exports).map_err(ServeError::Runtime)?;
        Ok(Tritons { hosts: Arc::new(hosts), tabulators })
    }

    /// Whether a host draws the model `name`.
    pub fn have(&self, name: &str) -> bool {
        self.tabulators.get(name).is_some_and(|model| self.hosts.has(&model.artifacts().hash))
    }

    /// Hands out tasks until the queue is closed, and waits until all have ended.
    pub fn run(&self, shared: &Arc<Shared>) {
        let _at_work = AtWork::begin(shared);
        let handle = self.hosts.handle();
        let telling = handle.spawn(tell_health(Arc::downgrade(shared), self.hosts.clone()));
        let mut drawing = JoinSet::new();
        while !shared.queue.is_closed() {
            while drawing.try_join_next().is_some() {}
            if handle.block_on(async { timeout(LOOK, self.hosts.room()).await.is_err() }) {
                continue;
            }
            let begin = |queued: &Queued| shared.in_flight.begin(INDEX, queued);
            let Some((queued, token)) = shared.queue.wait(begin) else { break };
            let tabulator = self.tabulators[&queued.task.model].clone();
            let Some(place) = handle.block_on(place(&self.hosts, &tabulator, &token)) else {
                continue;
            };
            let one = One { shared: shared.clone(), queued, token, begun: Instant::now() };
            drawing.spawn_on(one.draw(self.hosts.clone(), tabulator, place), handle);
        }
        handle.block_on(async { while drawing.join_next().await.is_some() {} });
        telling.abort();
    }
}

/// Room for the task of `token` at a host; none if it ends before there is some.
async fn place(hosts: &Hosts, tabulator: &Tabulator, token: &CancelToken) -> Option<Place> {
    tokio::select! {
        place = hosts.place(&tabulator.artifacts().hash, true) => place.ok(),
        () = cancelled(token) => None,
    }
}

/// A task that is being drawn.
struct One {
    shared: Arc<Shared>,
    queued: Queued,
    token: CancelToken,
    begun: Instant,
}

impl One {
    async fn draw(self, hosts: Arc<Hosts>, tabulator: Arc<Tabulator>, place: Place) {
        let task = self.queued.task.clone();
        let (token, in_flight) = (self.token.clone(), self.shared.clone());
        let drawing = tokio::spawn(async move {
            tokio::select! {
                drawn = draw(&hosts, tabulator, task, place) => self.end(drawn),
                () = cancelled(&self.token) => {}
            }
        });
        if drawing.await.is_err() {
            let failed = Failure::Worker("its thread ended");
            in_flight.in_flight.finish(&token, TaskEvent::Failed(failed));
        }
    }

    /// Tells the client how it ended.
    fn end(&self, drawn: Result<(Order, Drawn), TritonError>) {
        let id = &self.queued.task.id;
        let last = match drawn {
            Ok((order, drawn)) => {
                tracing::info!(order = id, host = drawn.host, lost = drawn.lost, "drawn");
                TaskEvent::Done(Box::new(self.output(&order, drawn)))
            }
            Err(TritonError::Request(error)) => {
                TaskEvent::Failed(Failure::Draw(Told::of(&error, id)))
            }
            Err(error) => {
                tracing::warn!(order = id, error = error_chain(&error), "drawing failed");
                let why = match error {
                    TritonError::Lost { .. } => "the machines that drew it went away",
                    _ => "the machine that drew it did not succeed",
                };
                TaskEvent::Failed(Failure::Worker(why))
            }
        };
        self.shared.in_flight.finish(&self.token, last);
    }

    fn output(&self, order: &Order, drawn: Drawn) -> TaskOutput {
        let plan = self.queued.task.request.planned().expect("its tables were made").to_vec();
        plan.iter().for_each(|decision| metrics::step(decision.refreshes()));
        metrics::pictures(drawn.images.len());
        metrics::redrawn(drawn.lost);
        let drawing = self.begun.elapsed();
        self.shared.throughput.finished(drawing, Instant::now());
        TaskOutput {
            images: drawn.images,
            plan,
            took: Vec::new(),
            queued: self.begun - self.queued.since,
            drawing,
            truncated: order.truncated.clone(),
        }
    }
}

async fn draw(
    hosts: &Hosts,
    tabulator: Arc<Tabulator>,
    task: Task,
    place: Place,
) -> Result<(Order, Drawn), TritonError> {
    let order = spawn_blocking(move || Order::new(&tabulator, &task.request)).await;
    let order = order.expect("making tables does not panic")?;
    let drawn = hosts.draw(&order, place, true).await?;
    Ok((order, drawn))
}

async fn cancelled(token: &CancelToken) {
    while !token.is_cancelled() {
        sleep(LOOK).await;
    }
}

/// Says at every change of the hosts whether one is there.
async fn tell_health(shared: Weak<Shared>, hosts: Arc<Hosts>) {
    let mut changes = hosts.changes();
    hosts.known().await;
    while let Some(shared) = shared.upgrade() {
        let up = hosts.up();
        metrics::hosts(up);
        shared.set_health(INDEX, if up > 0 { WorkerHealth::Alive } else { WorkerHealth::Alone });
        drop(shared);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
