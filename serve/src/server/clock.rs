//! Where the scheduler and the jobs read the time.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a clock shows.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// Milliseconds of Unix time: means the same after a restart, but jumps when the system's clock
    /// is set.
    pub unix: u64,
    /// Never jumps, and means nothing after a restart.
    pub instant: Instant,
}

/// Milliseconds of Unix time by the system's clock.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clock. A test gives the server one that it moves itself.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// A clock that is read by `read`.
    pub fn new(read: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(read))
    }

    /// The system's.
    pub fn system() -> Clock {
        Clock::new(|| Time { unix: now(), instant: Instant::now() })
    }

    /// What it shows now.
    pub fn now(&self) -> Time {
        (self.0)()
    }

    /// Milliseconds of Unix time now.
    pub fn unix(&self) -> u64 {
        self.now().unix
    }
}
