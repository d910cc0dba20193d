//! What the API keeps between requests, of each client by itself: its orders under way, and the model that it
//! has chosen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, State};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::app::App;
use crate::server::http::guard::Client;

/// The orders under way, and the models chosen.
#[derive(Default)]
pub struct Desk {
    orders: Mutex<Vec<Order>>,
    models: Mutex<HashMap<Arc<str>, String>>,
}

/// An order under way.
struct Order {
    id: String,
    client: Arc<str>,
    begun: Instant,
    step: usize,
    steps: usize,
}

/// An order's place on the desk. Dropping it takes the order away.
pub struct Ticket {
    id: String,
    desk: Arc<Desk>,
}

impl Desk {
    /// Puts down that `client` waits for the order `id` of this number of steps.
    pub fn begin(self: &Arc<Desk>, id: &str, client: &Client, steps: usize) -> Ticket {
        let (id, client) = (id.to_string(), Arc::clone(&client.0));
        let order = Order { id: id.clone(), client, begun: Instant::now(), step: 0, steps };
        self.orders.lock().push(order);
        Ticket { id, desk: Arc::clone(self) }
    }

    /// The model that `client` has chosen, if it has.
    pub fn model(&self, client: &Client) -> Option<String> {
        self.models.lock().get(&client.0).cloned()
    }

    /// Keeps the model that `client` chooses. There are no more clients than keys.
    pub fn choose(&self, client: &Client, model: &str) {
        self.models.lock().insert(Arc::clone(&client.0), model.to_string());
    }
}

impl Ticket {
    /// A step was done.
    pub fn step(&self, done: usize) {
        let mut orders = self.desk.orders.lock();
        if let Some(order) = orders.iter_mut().find(|order| order.id == self.id) {
            order.step = done;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.desk.orders.lock().retain(|order| order.id != self.id);
    }
}

/// How far the client's oldest order is.
pub async fn progress(
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
) -> Json<Value> {
    let orders = desk.orders.lock();
    let mine = orders.iter().filter(|order| order.client == client.0);
    let (waiting, order) = (mine.clone().count(), mine.min_by_key(|order| order.begun));
    let (step, steps) = order.map_or((0, 0), |order| (order.step, order.steps));
    let done = if steps == 0 { 0.0 } else { step as f64 / steps as f64 };
    let left = order
        .filter(|order| order.step > 0)
        .map_or(0.0, |order| order.begun.elapsed().as_secs_f64() * (1.0 - done) / done);
    Json(json!({
        "progress": done,
        "eta_relative": left,
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": order.map_or("", |order| order.id.as_str()),
            "job_count": waiting,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": step,
            "sampling_steps": steps,
        },
        "current_image": null,
        "textinfo": null,
    }))
}

/// Ends the client's orders: each is answered without images.
pub async fn interrupt(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Extension(client): Extension<Client>,
) -> Json<Value> {
    let orders = desk.orders.lock();
    let mine = orders.iter().filter(|order| order.client == client.0);
    let ids: Vec<String> = mine.map(|order| order.id.clone()).collect();
    drop(orders);
    ids.iter().for_each(|id| app.scheduler.cancel(id));
    Json(json!({}))
}
