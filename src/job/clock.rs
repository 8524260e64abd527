//! How long each phase of a job takes.

use crate::job::outcome::Seconds;
use std::time::Instant;

/// Seconds by phase.
pub(super) struct Clock {
    start: Instant,
    phase: Instant,
    seconds: Seconds,
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Clock {
            start: now,
            phase: now,
            seconds: Seconds::default(),
        }
    }

    /// Ends a phase.
    pub(super) fn lap(&mut self, phase: impl Fn(&mut Seconds) -> &mut f64) {
        *phase(&mut self.seconds) = self.phase.elapsed().as_secs_f64();
        self.phase = Instant::now();
    }

    pub(super) fn stop(mut self) -> Seconds {
        self.seconds.total = self.start.elapsed().as_secs_f64();
        self.seconds
    }
}
