//! The time, and waiting for it.

use std::time::{Duration, Instant};

/// This moment.
#[must_use]
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = super::cluster::now() {
        return now;
    }
    Instant::now()
}

/// How long ago `begun` was.
#[must_use]
pub fn since(begun: Instant) -> Duration {
    now().saturating_duration_since(begun)
}

/// Waits so long.
pub fn sleep(time: Duration) {
    #[cfg(test)]
    if super::cluster::sleep(time) {
        return;
    }
    std::thread::sleep(time);
}
