//! Starts the workers, keeps them going, and ends tasks whose time is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hydit::util::error_chain;

use super::shared::{Shared, Startup, WorkerHealth};
use super::task::{Failure, TaskEvent, finish};
use super::watchdog::COUNTED;
use super::worker::Worker;
use crate::server::metrics;

/// Time between two looks at watchdogs and deadlines.
const LOOK: Duration = Duration::from_millis(50);
/// Time before a worker whose thread ended is started again.
const REST: Duration = Duration::from_millis(200);

/// Starts the workers' threads, and one that looks after them and after deadlines.
pub fn start(shared: &Arc<Shared>) {
    for index in 0..shared.watchdogs.len() {
        let shared = shared.clone();
        let thread = thread::Builder::new().name(format!("worker-{index}"));
        thread.spawn(move || keep_alive(&shared, index)).expect("a thread can be started");
    }
    let shared = Arc::downgrade(shared);
    let thread = thread::Builder::new().name("supervisor".to_string()).spawn(move || {
        let mut last = None;
        while let Some(shared) = shared.upgrade() {
            let now = shared.clock.now().instant;
            look(&shared, now, last.map_or(Duration::ZERO, |last| counted(last, now)));
            drop(shared);
            last = Some(now);
            thread::sleep(LOOK);
        }
    });
    thread.expect("a thread can be started");
}

/// Runs a worker until the queue is closed, and starts it anew whenever its thread would end.
fn keep_alive(shared: &Arc<Shared>, index: usize) {
    loop {
        let watchdog = shared.watchdogs[index].clone();
        let run = || match &shared.tritons {
            Some(tritons) => {
                tritons.run(shared);
                Ok(())
            }
            None => Worker { index, shared: shared.clone(), watchdog }.run(),
        };
        let why = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error_chain(&error),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                format!("its thread ended: {text}")
            }
        };
        shared.set_health(index, WorkerHealth::Dead);
        shared.watchdogs[index].rest();
        shared.in_flight.fail_worker(index, "its thread ended");
        tracing::error!(worker = index, why, "ended");
        shared.end_startup(Startup::Failed(why));
        metrics::worker_restart();
        thread::sleep(REST);
    }
}

/// The time from one look to the next, as far as it counts for graph calls. When the looks were
/// longer apart this process did not run, stopped or frozen, and the calls did not either.
fn counted(last: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(last).min(COUNTED)
}

/// Ends tasks whose deadline has passed at `now`, and those of a worker whose graph call does not
/// return, where `ran` has passed since the last look.
fn look(shared: &Shared, now: Instant, ran: Duration) {
    for queued in shared.queue.expired(now) {
        finish(&queued.events, TaskEvent::Failed(Failure::Expired));
    }
    shared.in_flight.expire(now);
    for (worker, watchdog) in shared.watchdogs.iter().enumerate() {
        let mut health = shared.health.lock();
        match (watchdog.look(ran), health[worker]) {
            (Some(stage), WorkerHealth::Alive) => {
                health[worker] = WorkerHealth::Stuck;
                let all_stuck = health.iter().all(|health| *health == WorkerHealth::Stuck);
                drop(health);
                let why = format!("a call of the {} graph does not come back", stage.label());
                tracing::error!(worker, why, "stuck");
                shared.in_flight.fail_worker(worker, "a graph call does not come back");
                if all_stuck {
                    fail_waiting(shared);
                }
            }
            (None, WorkerHealth::Stuck) => health[worker] = WorkerHealth::Alive,
            _ => {}
        }
    }
}

/// Ends the tasks that wait: with no worker alive they would wait for ever.
fn fail_waiting(shared: &Shared) {
    for queued in shared.queue.empty() {
        finish(&queued.events, TaskEvent::Failed(Failure::Worker("no worker is alive")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_counts_what_is_usual_however_late_it_comes() {
        let start = Instant::now();
        assert_eq!(counted(start, start + LOOK), LOOK);
        assert!(LOOK < COUNTED, "a busy machine looks late");
        assert_eq!(counted(start, start + Duration::from_secs(3600)), COUNTED);
    }
}
