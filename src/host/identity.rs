//! Which process this is.

use std::hash::{BuildHasher, RandomState};

/// How often there is what a process has once: a program is one process.
#[cfg(not(test))]
pub const SLOTS: usize = 1;
#[cfg(test)]
pub(crate) use super::cluster::SLOTS;

/// The place of this process among those, below [`SLOTS`].
#[must_use]
pub fn slot() -> usize {
    #[cfg(test)]
    if let Some(slot) = super::cluster::slot() {
        return slot;
    }
    0
}

/// Its number.
#[must_use]
pub fn process() -> u32 {
    #[cfg(test)]
    if let Some(process) = super::cluster::number() {
        return process;
    }
    std::process::id()
}

/// Whether process `number` lives, if that isn't to be asked of the system.
#[must_use]
pub fn lives(number: u32) -> Option<bool> {
    #[cfg(test)]
    return super::cluster::lives(number);
    #[cfg(not(test))]
    {
        let _ = number;
        None
    }
}

/// Whether this process has not been killed: one of a test unwinds, and must leave all as it is.
#[must_use]
pub fn is_alive() -> bool {
    #[cfg(test)]
    return super::cluster::is_alive();
    #[cfg(not(test))]
    true
}

/// Whether it is a process of its own, with the system's threads and time.
#[must_use]
pub fn is_real() -> bool {
    #[cfg(test)]
    return super::cluster::slot().is_none();
    #[cfg(not(test))]
    true
}

/// The name of this start of its machine, which the system calls `boot`.
#[must_use]
pub fn boot(boot: String) -> String {
    #[cfg(test)]
    if let Some(node) = super::cluster::node() {
        return format!("{boot}-{node}");
    }
    boot
}

/// Whether what another node has made isn't seen yet, though the system shows it.
#[must_use]
pub fn is_late() -> bool {
    #[cfg(test)]
    return super::cluster::is_late();
    #[cfg(not(test))]
    false
}

/// A number that nobody has drawn before.
#[must_use]
pub fn random() -> u64 {
    #[cfg(test)]
    if let Some(number) = super::cluster::random() {
        return number;
    }
    // The keys of the hash are random.
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

/// Notes that the process is in `phase` from now on.
pub fn phase(phase: &'static str) {
    #[cfg(test)]
    super::cluster::phase(phase);
    #[cfg(not(test))]
    let _ = phase;
}
