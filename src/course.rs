//! Where this run is: what it does, how many bytes it has moved, and what it would leave if it ended now.
//!
//! For whoever asks from outside, by a signal; the run itself only tells and never asks.

pub mod pace;

use crate::host::identity::{self, SLOTS, slot};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// What a run would leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing: it has written nothing, or isn't to write at all.
    #[default]
    Nothing,
    /// Files in a directory that is not in place.
    Staged(PathBuf),
    /// Its result may have been put in place just now, by another process.
    Unknown,
    /// Its result, in place; and what that has replaced, if it still is somewhere.
    Placed(Option<PathBuf>),
}

/// Where a run is.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// What it does.
    pub phase: &'static str,
    /// Bytes moved, of how many, in this phase.
    pub bytes: (u64, u64),
    /// Where its result goes, once that is known.
    pub destination: Option<PathBuf>,
    /// The lock beside it.
    pub lock: Option<PathBuf>,
    /// What it would leave.
    pub leaves: Leaves,
}

static COURSE: Mutex<Course> = Mutex::new(Course {
    phase: "starting",
    bytes: (0, 0),
    destination: None,
    lock: None,
    leaves: Leaves::Nothing,
});
static RUN: Mutex<String> = Mutex::new(String::new());
static PLACING: [Mutex<()>; SLOTS] = [const { Mutex::new(()) }; SLOTS];

fn course() -> MutexGuard<'static, Course> {
    COURSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the run its id, which is the same on all its processes.
pub fn run_is(id: &str) {
    id.clone_into(&mut RUN.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The run's id; empty where it has none, as in a library.
#[must_use]
pub fn run() -> String {
    RUN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Tells what the run does from now on.
pub fn phase(phase: &'static str) {
    tracing::info!("{phase}");
    pace::phase(phase);
    identity::phase(phase);
    let mut course = course();
    course.phase = phase;
    course.bytes = (0, 0);
}

/// Tells how many bytes have been moved, of how many.
pub fn moved(done: u64, total: u64) {
    course().bytes = (done, total);
}

/// Tells where the result goes, and which lock is held for it.
pub fn writes(destination: &Path, lock: &Path) {
    let mut course = course();
    course.destination = Some(destination.to_path_buf());
    course.lock = Some(lock.to_path_buf());
    course.leaves = Leaves::Nothing;
}

/// Tells what would be left from now on.
pub fn leaves(leaves: Leaves) {
    course().leaves = leaves;
}

/// Held while a result is put in place: whoever wants to end the run waits for it.
pub fn placing() -> MutexGuard<'static, ()> {
    PLACING[slot()]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Where the run is now.
#[must_use]
pub fn now() -> Course {
    course().clone()
}

/// Where the run is, not in the middle of putting a result in place unless that takes longer than
/// `patience`. While the second value is held, it doesn't begin to either.
#[must_use]
pub fn settled(patience: Duration) -> (Course, Option<MutexGuard<'static, ()>>) {
    let begun = Instant::now();
    loop {
        match PLACING[slot()].try_lock() {
            Ok(held) => return (now(), Some(held)),
            Err(TryLockError::Poisoned(held)) => return (now(), Some(held.into_inner())),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => return (now(), None),
        }
    }
}
