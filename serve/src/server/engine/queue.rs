//! The bounded queue: orders of each client in turn, clients in rotation.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::order::{Event, Order};

/// An order that waits, and where its events go.
pub struct Waiting {
    pub order: Order,
    pub events: UnboundedSender<Event>,
    pub since: Instant,
}

/// How many orders wait, where one was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    /// In all.
    Queue(usize),
    /// Of its client.
    Share(usize),
    /// It does not matter: the queue is closed.
    Closed,
}

/// Orders that wait for a worker. The client whose order was taken goes to the end of the rotation,
/// so that one with many orders does not make the others wait for all of them.
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    most: usize,
    most_per_client: usize,
}

#[derive(Default)]
struct State {
    /// Never an empty line.
    lines: VecDeque<(Arc<str>, VecDeque<Waiting>)>,
    closed: bool,
}

impl Queue {
    pub fn new(most: usize, most_per_client: usize) -> Queue {
        Queue { state: Mutex::default(), wake: Condvar::new(), most, most_per_client }
    }

    /// Whether an order of `client` would be taken.
    pub fn room(&self, client: &str) -> Result<(), Full> {
        self.room_in(&self.lock(), client)
    }

    /// Puts an order at the end of its client's line; beyond the bounds if it is not `bounded`.
    pub fn push(&self, waiting: Waiting, bounded: bool) -> Result<(), Full> {
        let mut state = self.lock();
        let client = &waiting.order.client;
        match self.room_in(&state, client) {
            Err(Full::Closed) => return Err(Full::Closed),
            Err(full) if bounded => return Err(full),
            _ => {}
        }
        let line = state.line(client);
        match line {
            Some(line) => state.lines[line].1.push_back(waiting),
            None => {
                let client = client.clone();
                state.lines.push_back((client, VecDeque::from([waiting])));
            }
        }
        drop(state);
        self.wake.notify_all();
        Ok(())
    }

    /// The next order, once there is one; `None` when the queue is closed. It is begun before it is
    /// out of the queue: whoever looks for it finds it here or where `begin` has put it.
    pub fn wait<B>(&self, begin: impl Fn(&Waiting) -> B) -> Option<(Waiting, B)> {
        let state = self.lock();
        let idle = |state: &mut State| state.lines.is_empty() && !state.closed;
        let mut state = self.wake.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        state.take(begin)
    }

    /// The next order, if it is one that is `wanted`. Orders behind it do not overtake it.
    pub fn next_if<B>(
        &self,
        wanted: impl Fn(&Order) -> bool,
        begin: impl Fn(&Waiting) -> B,
    ) -> Option<(Waiting, B)> {
        let mut state = self.lock();
        let first = state.lines.front()?.1.front()?;
        if wanted(&first.order) { state.take(begin) } else { None }
    }

    /// Takes out the order `id`.
    pub fn remove(&self, id: &str) -> Option<Waiting> {
        let mut state = self.lock();
        let find = |line: &VecDeque<Waiting>| line.iter().position(|w| w.order.id == id);
        let (line, place) = state
            .lines
            .iter()
            .enumerate()
            .find_map(|(line, (_, orders))| Some((line, find(orders)?)))?;
        let removed = state.lines[line].1.remove(place);
        state.lines.retain(|(_, orders)| !orders.is_empty());
        removed
    }

    /// How many orders are taken before the order `id`, if no other comes.
    pub fn position(&self, id: &str) -> Option<usize> {
        let state = self.lock();
        let lines = &state.lines;
        let longest = lines.iter().map(|(_, orders)| orders.len()).max().unwrap_or(0);
        (0..longest)
            .flat_map(|round| lines.iter().filter_map(move |(_, orders)| orders.get(round)))
            .position(|waiting| waiting.order.id == id)
    }

    /// Orders waiting.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Takes out the orders whose deadline is `now` or earlier.
    pub fn expired(&self, now: Instant) -> Vec<Waiting> {
        let late = |w: &Waiting| w.order.deadline.is_some_and(|deadline| deadline <= now);
        self.take_all(late)
    }

    /// Takes out every order.
    pub fn empty(&self) -> Vec<Waiting> {
        self.take_all(|_| true)
    }

    /// Takes no more orders, wakes those who wait for one, and gives those that were left.
    pub fn close(&self) -> Vec<Waiting> {
        self.lock().closed = true;
        self.wake.notify_all();
        self.empty()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn take_all(&self, which: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut state = self.lock();
        let mut taken = Vec::new();
        for (_, orders) in &mut state.lines {
            let (out, rest): (VecDeque<Waiting>, _) =
                std::mem::take(orders).into_iter().partition(&which);
            *orders = rest;
            taken.extend(out);
        }
        state.lines.retain(|(_, orders)| !orders.is_empty());
        taken
    }

    fn room_in(&self, state: &State, client: &str) -> Result<(), Full> {
        let total = state.waiting();
        let own = state.line(client).map_or(0, |line| state.lines[line].1.len());
        if state.closed {
            Err(Full::Closed)
        } else if total >= self.most {
            Err(Full::Queue(total))
        } else if own >= self.most_per_client {
            Err(Full::Share(own))
        } else {
            Ok(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&self, client: &str) -> Option<usize> {
        self.lines.iter().position(|(name, _)| &**name == client)
    }

    fn waiting(&self) -> usize {
        self.lines.iter().map(|(_, orders)| orders.len()).sum()
    }

    fn take<B>(&mut self, begin: impl Fn(&Waiting) -> B) -> Option<(Waiting, B)> {
        let (client, mut orders) = self.lines.pop_front()?;
        let first = orders.pop_front();
        if !orders.is_empty() {
            self.lines.push_back((client, orders));
        }
        first.map(|waiting| {
            let begun = begin(&waiting);
            (waiting, begun)
        })
    }
}
