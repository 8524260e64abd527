//! How to wait for others without taking their cores.

use std::time::Duration;

/// How long to sleep between two looks at a request, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Others may be busy for long: leave them the cores.
    Long,
    /// Bytes only move while we look.
    Short,
}

/// The rests between two looks: first other threads get their turn, then sleeps that grow.
pub(super) struct Pause {
    looks: u32,
    sleep: Duration,
    sleep_max: Duration,
}

impl Pause {
    /// Looks that only give the core away before the first sleep.
    const LOOKS_AWAKE: u32 = 50;

    /// *Local.* The first rest is the shortest.
    pub(super) fn new(patience: Patience) -> Self {
        Pause {
            looks: 0,
            sleep: Duration::from_micros(10),
            sleep_max: match patience {
                Patience::Long => Duration::from_millis(1),
                Patience::Short => Duration::from_micros(50),
            },
        }
    }

    /// *Local.* Rests a little.
    pub(super) fn rest(&mut self) {
        #[cfg(test)]
        if crate::host::cluster::rest(None) {
            return;
        }
        self.looks = self.looks.saturating_add(1);
        if self.looks <= Self::LOOKS_AWAKE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.sleep);
            self.sleep = (self.sleep * 5 / 4).min(self.sleep_max);
        }
    }
}
