//! Time that means something after a restart.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
