//! How fast tasks are finished, to tell clients when to come back.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Weight of the latest task in the moving mean.
const LATEST: f64 = 0.2;

/// Moving mean of the time between two finished tasks.
#[derive(Default)]
pub struct Throughput(Mutex<State>);

#[derive(Default)]
struct State {
    /// Seconds from one finished task to the next while there was work.
    interval: Option<f64>,
    last: Option<Instant>,
}

impl Throughput {
    /// Counts a task that was finished at `now` after it had run for `drawing`.
    pub fn finished(&self, drawing: Duration, now: Instant) {
        let mut state = self.0.lock();
        // A gap longer than the task itself was a pause without work and says nothing.
        let since = state.last.map_or(drawing, |last| (now - last).min(drawing)).as_secs_f64();
        state.interval = Some(state.interval.map_or(since, |mean| mean + LATEST * (since - mean)));
        state.last = Some(now);
    }

    /// Expected time until `tasks` that wait are done: at least a second, at most an hour.
    pub fn time_for(&self, tasks: usize) -> Duration {
        let seconds = self.0.lock().interval.unwrap_or(1.0) * tasks as f64;
        Duration::from_secs_f64(seconds.clamp(1.0, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_not_taken_for_slowness() {
        let throughput = Throughput::default();
        assert_eq!(throughput.time_for(100), Duration::from_secs(100), "a guess");
        let (start, drawing) = (Instant::now(), Duration::from_millis(40));
        for i in 1..=50 {
            throughput.finished(drawing, start + i * drawing);
        }
        throughput.finished(drawing, start + Duration::from_secs(60));
        let wait = throughput.time_for(1000).as_secs_f64();
        assert!((wait - 40.0).abs() < 1e-6, "{wait}");
        assert_eq!(throughput.time_for(0), Duration::from_secs(1));
    }

    #[test]
    fn workers_side_by_side_finish_faster_than_one_task_takes() {
        let throughput = Throughput::default();
        let (start, drawing) = (Instant::now(), Duration::from_secs(4));
        for i in 1..=100 {
            throughput.finished(drawing, start + i * drawing / 2);
        }
        let wait = throughput.time_for(10).as_secs_f64();
        assert!((wait - 20.0).abs() < 1e-6, "{wait}");
    }
}
