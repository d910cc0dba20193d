//! How fast orders go, for telling when a place may be free.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Weight of the latest order in the moving means.
const LATEST: f64 = 0.2;

/// Moving means over the latest orders.
#[derive(Default)]
pub struct Pace(Mutex<State>);

#[derive(Default)]
struct State {
    /// Seconds from one finished order to the next, while there was work.
    interval: Option<f64>,
    last: Option<Instant>,
}

impl Pace {
    /// An order was finished that took `drawing`.
    pub fn drew(&self, drawing: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // After a pause the time since the last one says nothing: an order does not take longer than itself.
        let since = state.last.map_or(drawing, |last| (now - last).min(drawing)).as_secs_f64();
        state.interval = Some(state.interval.map_or(since, |mean| mean + LATEST * (since - mean)));
        state.last = Some(now);
    }

    /// When `orders` that wait will have been drawn; at least a second.
    pub fn time_for(&self, orders: usize) -> Duration {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = state.interval.unwrap_or(1.0) * orders as f64;
        Duration::from_secs_f64(seconds.clamp(1.0, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_not_taken_for_slowness() {
        let pace = Pace::default();
        assert_eq!(pace.time_for(100), Duration::from_secs(100), "a guess");
        (0..50).for_each(|_| pace.drew(Duration::from_millis(40)));
        std::thread::sleep(Duration::from_millis(200));
        pace.drew(Duration::from_millis(40));
        let wait = pace.time_for(1000);
        assert!(wait <= Duration::from_secs(40), "{wait:?}");
        assert_eq!(pace.time_for(0), Duration::from_secs(1));
    }
}
