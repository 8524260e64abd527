//! What a process spends its time on, by reading, exchanging and writing, while a run lasts.
//!
//! Nothing is measured until [`start`]. The whole time lies in bins, which become twice as wide
//! whenever it doesn't fit any more; so it costs two looks at the clock a piece of work, and a few kB.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bins of a process's time.
const BINS: usize = 240;
/// How wide they are at first, in microseconds.
const WIDTH_US: u64 = 500;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Reads, or takes what was received to where it belongs.
    Read,
    /// Sends and receives.
    Exchange,
    /// Writes.
    Write,
}

/// What was measured on a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Paced {
    /// Microseconds of a bin.
    pub width_us: u64,
    /// For each bin microseconds of reading, exchanging and writing, all threads together.
    pub bins: Vec<[u64; 3]>,
    /// When each phase began, in microseconds since the start.
    pub phases: Vec<(String, u64)>,
    /// When all ended.
    pub end_us: u64,
}

struct Running {
    begun: Instant,
    paced: Paced,
}

static ON: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
static CHOSEN: Mutex<Option<String>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to measure; the tensor called `chosen` is to be drawn before others. On all processes or none.
pub fn start(chosen: Option<&str>) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = chosen.map(str::to_owned);
    *running() = Some(Running {
        begun: Instant::now(),
        paced: Paced {
            width_us: WIDTH_US,
            ..Paced::default()
        },
    });
    ON.store(true, Ordering::Relaxed);
}

/// Ends measuring.
pub fn stop() {
    ON.store(false, Ordering::Relaxed);
}

/// Whether anything is measured.
#[must_use]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The tensor that is to be drawn first.
#[must_use]
pub fn chosen() -> Option<String> {
    CHOSEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// What was measured so far; nothing, if nothing was.
#[must_use]
pub fn now() -> Paced {
    let running = running();
    let Some(running) = running.as_ref() else {
        return Paced::default();
    };
    Paced {
        end_us: micros(running.begun.elapsed()),
        ..running.paced.clone()
    }
}

/// Takes note that a phase begins.
pub(super) fn phase(phase: &str) {
    if !is_on() {
        return;
    }
    if let Some(running) = running().as_mut() {
        let at = micros(running.begun.elapsed());
        running.paced.phases.push((phase.to_owned(), at));
    }
}

/// A piece of work, measured from here until it is dropped.
#[must_use = "it measures until it is dropped"]
pub struct Piece(Option<(Doing, Instant)>);

/// Begins a piece of work.
pub fn doing(what: Doing) -> Piece {
    Piece(is_on().then(|| (what, Instant::now())))
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some((what, begun)) = self.0 else { return };
        let ended = Instant::now();
        if let Some(running) = running().as_mut() {
            let since = |time: Instant| micros(time.saturating_duration_since(running.begun));
            let (from, to) = (since(begun), since(ended));
            running.paced.add(what, from, to);
        }
    }
}

impl Paced {
    /// Adds a piece of work.
    fn add(&mut self, what: Doing, from: u64, to: u64) {
        if self.width_us == 0 {
            return;
        }
        while bin(to / self.width_us) >= BINS {
            self.fold();
        }
        let (width, kind) = (self.width_us, what as usize);
        let (first, last) = (bin(from / width), bin(to / width));
        if self.bins.len() <= last {
            self.bins.resize(last + 1, [0; 3]);
        }
        for (number, bin) in (0u64..).zip(&mut self.bins).take(last + 1).skip(first) {
            let (begin, end) = (number * width, (number + 1) * width);
            bin[kind] += to.min(end).saturating_sub(from.max(begin));
        }
    }

    /// Makes bins twice as wide.
    fn fold(&mut self) {
        let add = |pair: &[[u64; 3]]| {
            let mut sum = [0; 3];
            for bin in pair {
                for (sum, value) in sum.iter_mut().zip(bin) {
                    *sum += value;
                }
            }
            sum
        };
        self.bins = self.bins.chunks(2).map(add).collect();
        self.width_us *= 2;
    }

    /// Seconds of reading, exchanging and writing, all threads together.
    #[must_use]
    pub fn seconds(&self) -> [f64; 3] {
        let mut sums = [0; 3];
        for bin in &self.bins {
            for (sum, value) in sums.iter_mut().zip(bin) {
                *sum += value;
            }
        }
        sums.map(|us| Duration::from_micros(us).as_secs_f64())
    }
}

fn bin(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_time_is_kept_however_long_it_lasts() {
        let mut paced = Paced {
            width_us: WIDTH_US,
            ..Paced::default()
        };
        paced.add(Doing::Read, 100, 1700);
        assert_eq!(paced.bins[0][0] + paced.bins[1][0], 400 + 500);
        paced.add(Doing::Write, 9_000_000, 10_000_000);
        paced.add(Doing::Exchange, 0, 3);
        assert!(paced.bins.len() <= BINS && paced.width_us > WIDTH_US);
        assert_eq!(paced.seconds(), [0.0016, 0.000_003, 1.0]);
    }
}
